"""The exported network behind a camera: event-driven, frame by frame, as `fixed_point` defines it, to the bit.

`Network` holds the weights, which all streams share. A `Stream` holds what the neurons of one camera remember. Its
`step` runs C++ that this machine compiles once (`runtime.cpp`). It allocates nothing and releases Python's lock, so
each thread can drive a stream of its own.
"""

import ctypes
import functools
import itertools
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pilotnet_sdnn.errors import damaged
from pilotnet_sdnn.loihi.fixed_point import ONE, STATE_BITS, IntegerLayer, State, read_network, start_state
from pilotnet_sdnn.loihi.native import (
    INT64,
    LANES,
    PAIRS,
    POINTER,
    EventsStruct,
    LayerStruct,
    NeuronsStruct,
    StreamStruct,
    aligned,
    library,
)

WRAP_TO_24_BITS = (8, 8)  # shift up and down
MAX_WEIGHTS = 2**29  # of a layer, with zeros in between; a gigabyte


class Network:
    """An exported network, ready to run; streams of several threads may share it."""

    def __init__(self, path: Path, corrected: bool) -> None:
        """Args:
            path: the exported network, which does not say whether its neurons are corrected.
            corrected: see `fixed_point.run`; the parameter `corrected_neurons` of the run that exported it.

        Raises:
            UserError: the file is missing, damaged or no network of images, or there is no compiler.
        """
        self.integers = read_network(path)
        self.corrected = corrected
        self.library = library()
        first = self.integers[0]
        if first.synapses or len(first.shape) != 3 or len(self.integers) < 2:
            raise damaged(path, "it has no layer that takes images", "export")
        channels, height, width = first.shape
        self.frame_shape = height, width, channels
        self.layers = (LayerStruct * len(self.integers))()
        self.shapes = [(*layer.shape, 1, 1)[:3] for layer in self.integers]  # channels, height, width
        self._kept_alive: list[np.ndarray] = []
        for number, layer in enumerate(self.integers):
            self._describe_neurons(self.layers[number], layer, self.shapes[number])
        try:
            for number in range(1, len(self.integers)):
                self._describe_synapses(number)
        except ValueError as error:
            raise damaged(path, error, "export") from None
        self.macs = sum(  # of an ANN of the same shape
            prod(layer.shape) * layer.synapses.connect.keywords["weight"][0].numel()
            for layer in self.integers
            if layer.synapses
        )
        self.layers[0].threshold = clipped(-(-(first.threshold or 0) // 2**12) - 1, np.int16)  # of steps of the input

    def stream(self, states: list[State] | None = None) -> "Stream":
        """A stream that starts from the given states, by default as the hardware does (`fixed_point.start_state`)."""
        return Stream(self, states or start_state(self.integers, 1, self.corrected))

    def _describe_neurons(self, struct: LayerStruct, layer: IntegerLayer, shape: tuple[int, ...]) -> None:
        struct.channels, struct.height, struct.width = shape
        struct.vectors = -(-struct.channels // LANES)
        struct.is_readout = layer.threshold is None
        struct.threshold = clipped((layer.threshold or 0) - 1, np.int32)
        bias = self._aligned(struct.vectors * LANES, np.int32)
        bias[: struct.channels] = layer.bias.numpy().ravel()  # one for all, or one each
        struct.bias = bias.ctypes.data

    def _describe_synapses(self, number: int) -> None:
        """The synapses between a layer and the one before it."""
        source, target = self.layers[number - 1], self.layers[number]
        synapses = self.integers[number].synapses
        assert synapses
        kernel = kernel_of(synapses, self.shapes[number - 1])
        outputs, inputs, height, width = kernel.weight.shape
        stride = kernel.stride[1]
        target.in_height, target.kernel_height, target.taps = source.height, height, -(-width // stride)
        target.stride_y, target.padding_y = kernel.stride[0], kernel.padding[0]
        target.pairs = 2 if number == 1 and inputs in (3, 4) else 1
        target.shift_up, target.shift_down = (0, synapses.shift) if synapses.flat else WRAP_TO_24_BITS
        pairs = -(-inputs // (2 * target.pairs)) * target.pairs
        target.tap_step, target.kernel_step = (
            stride * pairs * target.vectors,
            target.taps * stride * pairs * target.vectors,
        )
        target.halo = (target.taps - 1) * target.vectors

        _check_size(target.kernel_height * target.kernel_step * 2 * LANES)
        packed = self._aligned(target.kernel_height * target.kernel_step * 2 * LANES, np.int16)
        by_place = np.zeros((height, target.taps * stride, 2 * pairs, target.vectors * LANES), np.int16)
        by_place[:, :width, :inputs, :outputs] = kernel.weight.transpose(2, 3, 1, 0)
        packed[:] = by_place.reshape(height, -1, pairs, 2, target.vectors * LANES).swapaxes(3, 4).ravel()
        target.weights = packed.ctypes.data

        places = np.arange(source.width) + kernel.padding[1]
        sums = places // stride + target.taps - 1
        target.row_vectors = max(int(sums.max()) + 1, target.width + target.taps - 1) * target.vectors
        source.column_weight = self._kept(places % stride * pairs * target.vectors)
        source.column_target = self._kept(sums * target.vectors)
        fewer = places % stride + (target.taps - 1) * stride >= width
        source.column_fewer = self._kept(fewer)
        source.fewer_first = int((~fewer).sum()) * source.height * _groups(source, target) + LANES
        fan_out = kernel.fan_out(1, source.width, target.width)
        source.column_fan_out = self._kept(fan_out.repeat(source.channels) if number == 1 else fan_out)
        source.row_fan_out = self._kept(kernel.fan_out(0, source.height, target.height) * outputs // kernel.groups)

    def _aligned(self, count: int, dtype: Any) -> np.ndarray:
        self._kept_alive.append(aligned(count, dtype))
        return self._kept_alive[-1]

    def _kept(self, values: np.ndarray) -> int:
        kept = self._aligned(len(values) + PAIRS, np.int32)  # read as many at once
        kept[: len(values)] = values
        return kept.ctypes.data


class Kernel(NamedTuple):
    """Synapses as a convolution without groups or dilation: what is not connected has weight 0."""

    weight: np.ndarray  # (outputs, inputs, height, width)
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    def fan_out(self, axis: int, inputs: int, outputs: int) -> np.ndarray:
        """(inputs,) outputs along an axis that each place along it is connected to."""
        taps = np.arange(0, self.weight.shape[2 + axis], self.dilation[axis])
        reached, left_over = np.divmod(np.arange(inputs)[:, None] + self.padding[axis] - taps, self.stride[axis])
        return ((left_over == 0) & (reached >= 0) & (reached < outputs)).sum(1)


def kernel_of(synapses: Any, shape: tuple[int, ...]) -> Kernel:
    """The synapses that take messages of this shape (C, H, W)."""
    given = synapses.connect.keywords
    weight = given["weight"].numpy().astype(np.int16)
    if synapses.flat:
        return Kernel(weight.reshape(-1, *shape), shape[1:], (0, 0), (1, 1), 1)
    groups, dilation = given["groups"], given["dilation"]
    outputs, inputs, *size = weight.shape
    _check_size(outputs * inputs * groups * prod((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True)))
    spread = np.zeros(
        (outputs, inputs * groups, *((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True))), np.int16
    )
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        spread[rows, group * inputs : (group + 1) * inputs, :: dilation[0], :: dilation[1]] = weight[rows]
    return Kernel(spread, given["stride"], given["padding"], dilation, groups)


def _check_size(weights: int) -> None:
    if weights > MAX_WEIGHTS:
        raise ValueError(f"strides or dilations that spread its weights over {weights:,} places")


class Stream:
    """What the neurons of one camera remember; used by one thread at a time."""

    def __init__(self, network: Network, states: list[State]) -> None:
        """Args:
        network: shared by all streams.
        states: of its layers, from `start_state` or `zero_state`, for one sequence.
        """
        self.network = network
        layers, count = network.layers, len(network.layers)
        self.events = np.zeros(count, np.int64)  # of each layer, in the last frame
        self.synops = np.zeros(count, np.int64)  # that they caused
        self._frame = np.zeros(network.frame_shape, np.uint8)
        self._sigma = [aligned(n.height * n.width * n.vectors * LANES, np.int32) for n in layers[1:]]
        self._sent = [np.zeros(network.frame_shape, np.int16)]
        self._sent += [aligned(memory.size, np.int32) for memory in self._sigma]
        sums = aligned((max(layer.row_vectors for layer in layers[1:]) + 1) * LANES, np.int32)
        row = aligned(
            network.frame_shape[1] * network.frame_shape[2] + 2 * LANES, np.int16
        )  # read a cache line at once
        lists = [_event_lists(layers, first) for first in (0, 1)]
        neurons = (NeuronsStruct * count)(
            *(
                NeuronsStruct(sigma.ctypes.data if sigma is not None else None, sent.ctypes.data)
                for sigma, sent in zip([None, *self._sigma], self._sent, strict=True)
            )
        )
        events = (EventsStruct * 2)(*(EventsStruct(*(part.ctypes.data for part in parts)) for parts in lists))
        self._struct = StreamStruct(
            ctypes.addressof(neurons), ctypes.addressof(events), sums.ctypes.data, row.ctypes.data,
            self.events.ctypes.data, self.synops.ctypes.data, 1, network.corrected,
        )  # fmt: skip
        self._structs = neurons, events  # kept alive, as is the scratch memory
        self._scratch = [sums, row, *lists[0], *lists[1], self._frame, self.events, self.synops]
        self._step = functools.partial(
            network.library.step, layers, INT64(count), ctypes.byref(self._struct), POINTER(self._frame.ctypes.data)
        )
        self._remember(states)

    def step(self, frame: np.ndarray) -> float:
        """Take in the next frame, (H, W, C) uint8, and return the steering angle in radians.

        Raises:
            ValueError: the frame has another shape or type.
        """
        if frame.shape != self._frame.shape or frame.dtype != np.uint8:
            expected = "x".join(map(str, self._frame.shape))
            raise ValueError(f"expected a frame of {expected} uint8, got {frame.shape} {frame.dtype}")
        np.copyto(self._frame, frame)
        self._step()
        return self.angle

    @property
    def angle(self) -> float:
        """The last answer, in radians."""
        return self._sigma[-1].item(0) / ONE

    def messages(self, frame: np.ndarray) -> list[np.ndarray]:
        """Take in the next frame and return what each layer sends, int32 of its shape, like `fixed_point.run`."""
        before = [sent.copy() for sent in self._sent]
        self.step(frame)
        sent = [after - earlier for after, earlier in zip(self._sent, before, strict=True)]
        inputs = sent[0].astype(np.int32).transpose(2, 0, 1) << STATE_BITS
        hidden = [self._unpadded(change >> STATE_BITS, n) for n, change in enumerate(sent[1:-1], 1)]
        layers = [inputs, *hidden, self._unpadded(self._sigma[-1], len(self._sigma)).copy()]
        return [values.reshape(layer.shape) for values, layer in zip(layers, self.network.integers, strict=True)]

    @property
    def nbytes(self) -> int:
        """Memory that a stream takes besides the network."""
        return sum(array.nbytes for array in (*self._sigma, *self._sent, *self._scratch))

    def _remember(self, states: list[State]) -> None:
        self._sent[0][:] = states[0].sent[0].numpy().transpose(1, 2, 0) >> 12
        for number, (sigma, sent) in enumerate(zip(self._sigma, self._sent[1:], strict=True), 1):
            for memory, start in ((sigma, states[number].sigma), (sent, states[number].sent)):
                self._unpadded(memory, number)[:] = start[0].numpy().reshape(self.network.shapes[number])
        self._struct.all = 1

    def _unpadded(self, memory: np.ndarray, number: int) -> np.ndarray:
        """A layer's memory as (C, H, W)."""
        layer = self.network.layers[number]
        return memory.reshape(layer.height, layer.width, -1)[:, :, : layer.channels].transpose(2, 0, 1)


def _event_lists(layers: Any, first: int) -> list[np.ndarray]:
    """Room for all events of any of the layers `first`, `first + 2` and so on: the fields of EventsStruct."""
    senders = list(itertools.pairwise(layers))[first::2]
    rows = max((source.height for source, _ in senders), default=0) + 1
    room = max((source.height * source.width * _groups(source, target) for source, target in senders), default=0)
    room += 2 * LANES  # a whole Vector is written at once
    large = max((source.height * source.width * source.channels for source, _ in senders[first == 0 :]), default=0)
    pairs = max((target.pairs for _, target in senders), default=1)
    return [aligned(n, np.int32) for n in (rows, rows, rows, pairs * room, room, room, large, large, large)]


def _groups(source: LayerStruct, target: LayerStruct) -> int:
    """The events of a pixel of which every channel sends: channels that meet in one multiplication are one."""
    return -(-source.channels // (2 * target.pairs))


def clipped(value: int, dtype: Any) -> int:
    limits = np.iinfo(dtype)
    return int(np.clip(value, limits.min, limits.max))
