"""PilotNet as a sigma-delta neural network: a DVC pipeline to train, measure and ship it."""

import os

# OpenMP threads that spin while they wait stall when another process wants a core. This bounds the spinning. It
# must be set before torch loads OpenMP.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
