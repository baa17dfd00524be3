"""The sigma-delta network and the ANN baseline: layers, losses, training, checkpoints and fast kernels.

Only `lava` imports lava-dl and lava-nc. Outside, use `network`, `geometry`, `training.fit` and what `kernels` offers.
"""
