"""PilotNet as a sigma-delta neural network: a DVC pipeline to train, measure and ship it."""
