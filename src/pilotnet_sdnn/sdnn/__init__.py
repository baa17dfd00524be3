"""The sigma-delta network and the ANN baseline: layers, losses, training, checkpoints and fast kernels.

Only `lava` imports lava-dl and lava-nc. Everything else may be used outside, of `kernels` what its `__init__` names.
"""
