"""PilotNet as a sigma-delta neural network: a DVC pipeline to train, measure and ship it."""

import os

# Threads that wait for each other by spinning stand still when another process wants a core. This bounds the
# spinning; it must be set before torch loads OpenMP.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
