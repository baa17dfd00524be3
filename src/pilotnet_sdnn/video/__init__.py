"""The frames of a video of a drive: camera, steering, events.

Only the command `sdnn-video` uses it.
"""
