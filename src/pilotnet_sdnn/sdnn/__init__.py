"""The sigma-delta network and the ANN baseline: layers, losses, training, checkpoints and fast kernels.

Only `lava` imports lava-dl and lava-nc. Other packages may use every module; of `kernels`, only what its `__init__`
names.
"""
