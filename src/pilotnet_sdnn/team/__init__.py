"""What a team does with runs: compare, review, share and repair them, by what git, DVC and metrics/ say.

It knows nothing of networks and data; the commands in `commands` are its only users.
"""
