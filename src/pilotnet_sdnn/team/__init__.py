"""Compare, review, share and repair runs, by what git, DVC and metrics/ say.

It knows nothing of networks and data; the commands in `commands` are its only users.
"""
