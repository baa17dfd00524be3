"""How well a network steers: the figures of metrics/evaluation.json and metrics/ann.json."""

import math

import numpy as np


def steering_metrics(labels: np.ndarray, angles: np.ndarray) -> dict:
    """How well angles match their labels, both in radians and of the same shape.

    `mse` in sq. radians, `mae_degrees` in degrees of the steering wheel, `r2` the share of the labels'
    variance that is explained (NaN where the labels do not vary), `frames` how many there are.
    """
    labels, angles = labels.astype(float).ravel(), angles.astype(float).ravel()
    mse, variance = np.mean((angles - labels) ** 2), labels.var()
    return {
        "mse": float(mse),
        "mae_degrees": float(np.degrees(np.abs(angles - labels).mean())),
        "r2": float(1 - mse / variance) if variance else math.nan,
        "label_variance": float(variance),
        "frames": labels.size,
    }
