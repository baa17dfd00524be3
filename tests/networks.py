"""Network files with random numbers, in the format of lava-dl's exports, to test with."""

import math
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np


class Convolution(NamedTuple):
    outputs: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of its output; not positive where the kernel does not fit."""
        steps = zip(shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return self.outputs, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in steps)


class Shape(NamedTuple):
    """A network without its numbers."""

    image: tuple[int, int, int]  # C, H, W
    convolutions: list[Convolution]
    dense: list[int]
    low: int  # weights
    high: int
    bias: int  # at most
    threshold: int  # 64ths, at most
    seed: int


PILOTNET = Shape(
    (3, 33, 100),
    [
        Convolution(24, stride=(2, 2)), Convolution(36, stride=(2, 2)),
        Convolution(64, stride=(2, 1), padding=(1, 0)), Convolution(64),
    ],
    [100, 50, 10, 1], -4, 4, 30, 6, 1,
)  # fmt: skip

WRAPPING = PILOTNET._replace(low=-256, high=254, bias=2**19, threshold=0)


def write(path: Path, shape: Shape) -> None:
    """A network file as lava-dl exports them, with random numbers."""
    random = np.random.default_rng(shape.seed)
    with h5py.File(path, "w") as file:

        def layer(kind: str, size: tuple[int, ...], readout: bool = False, **more: object) -> None:
            group = file.create_group(f"layer/{len(file.get('layer', ()))}")
            threshold = random.integers(0, shape.threshold, endpoint=True) + random.choice([0, 1 / 64])
            more["neuron/sigma_output" if readout else "neuron/vThMant"] = threshold
            for name, value in {
                "type": np.array([kind.encode()]),
                "shape": size,
                "neuron/type": "SDNN",
                **more,
            }.items():
                group[name] = value

        def numbers(*size: int) -> dict[str, np.ndarray]:
            weight = random.integers(shape.low, shape.high, size, endpoint=True)
            return {"weight": weight, "bias": random.integers(-shape.bias, shape.bias, size[0], endpoint=True)}

        layer("input", shape.image)
        size: tuple[int, ...] = shape.image
        for convolution in shape.convolutions:
            outputs, kernel, stride, padding, dilation, groups = convolution
            geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            numbers_ = numbers(outputs, size[0] // groups, *kernel)
            size = convolution.size(size)
            layer("conv", size, **numbers_, **geometry)
        for number, neurons in enumerate(shape.dense, 1):
            weights = numbers(neurons, math.prod(size))
            size = (neurons,)
            layer("dense", size, readout=number == len(shape.dense), **weights)
