"""Do the labels of a drive match its frames? Their alignment in figures, and the drive in one picture.

Only stage inspect uses it, so an edit here retrains nothing.
"""
