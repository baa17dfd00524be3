"""The pictures of a drive to watch: camera, steering, events.

Only the command `sdnn-video` uses it.
"""
