"""The exported network as one step in ONNX, for other runtimes: a frame and the state in, the angle and the state out.

All is int32 and equals `fixed_point.run`. ONNX Runtime has no int32 convolution on a CPU, nor an arithmetic shift, so a
convolution is a gather (of what the kernel sees, with a zero for padding) and a matrix product, and a shift is a
division of what `BitwiseAnd` has made divisible. It is dense: every frame costs the same.
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.loihi.fixed_point import INPUT_BITS, ONE, STATE_BITS, IntegerLayer, encode, start_state
from pilotnet_sdnn.loihi.runtime import Kernel, Network, clipped, kernel_of

OPSET, IR = 18, 9  # from 2022: BitwiseAnd is new in it


class _Graph:
    """An ONNX graph that grows."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def constant(self, values: Any, name: str = "") -> str:
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def int32(self, values: Any) -> str:
        return self.constant(np.asarray(values, np.int32))

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node; returns the name of its output."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def reshape(self, value: str, *shape: int) -> str:
        return self.add("Reshape", value, self.constant(np.array(shape, np.int64)))

    def shifted_down(self, value: str, bits: int) -> str:
        return self.add("Div", self.add("BitwiseAnd", value, self.int32(-(2**bits))), self.int32(2**bits))

    def state(self, name: str, start: np.ndarray) -> str:
        """An input that has the start of the stream where it is not given."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT32, start.shape))
        return self.constant(start, name)

    def output(self, value: str, name: str, kind: int, shape: Sequence[int]) -> None:
        self.add("Identity", value, name=name)
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))


def write_onnx(network: Network, path: Path) -> None:
    """Write one step of the network.

    Inputs are `frame`, (H, W, C) uint8, and the state: `sent_0`, `sigma_1`, `sent_1` and so on, int32 of the layers'
    shapes. Outputs are `angle`, float64, in radians (or all that the last layer says), and `next_sent_0`,
    `next_sigma_1` and so on, the state for the next frame. A state that is not given is that of the hardware when the
    first frame arrives, `fixed_point.start_state`.
    """
    graph = _Graph()
    graph.inputs.append(helper.make_tensor_value_info("frame", TensorProto.UINT8, network.frame_shape))
    levels = encode(np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 256, 1)).numpy().ravel()
    encoded = graph.add("Gather", graph.int32(levels << INPUT_BITS), graph.add("Cast", "frame", to=TensorProto.INT32))
    value = graph.add("Transpose", encoded, perm=[2, 0, 1])
    starts = start_state(network.integers, 1, network.corrected)
    for number, (layer, start) in enumerate(zip(network.integers, starts, strict=True)):
        if layer.synapses:
            arriving = _arriving(graph, layer, network.shapes[number - 1], value)
            value = graph.add("Add", graph.state(f"sigma_{number}", start.sigma[0].numpy()), arriving)
            graph.output(value, f"next_sigma_{number}", TensorProto.INT32, layer.shape)
            if layer.threshold is None:
                break
            active = graph.add("Add", value, graph.int32(layer.bias.numpy()))
            value = graph.add("Max", active, graph.int32(0))
        assert layer.threshold is not None
        before = graph.state(f"sent_{number}", start.sent[0].numpy())
        change = graph.add("Sub", value, before)
        enough = graph.add("Greater", graph.add("Abs", change), graph.int32(clipped(layer.threshold - 1, np.int32)))
        change = graph.add("Where", enough, change, graph.int32(0))
        kept = graph.add("BitwiseAnd", change, graph.int32(-(2**STATE_BITS))) if network.corrected else change
        graph.output(graph.add("Add", before, kept), f"next_sent_{number}", TensorProto.INT32, layer.shape)
        value = graph.shifted_down(change, STATE_BITS)
    angle = graph.add("Div", graph.add("Cast", value, to=TensorProto.DOUBLE), graph.constant(np.float64(ONE)))
    graph.output(angle, "angle", TensorProto.DOUBLE, network.integers[-1].shape)

    made = helper.make_graph(graph.nodes, "PilotNet SDNN, one frame", graph.inputs, graph.outputs, graph.initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model, full_check=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _arriving(graph: _Graph, layer: IntegerLayer, source: tuple[int, ...], messages: str) -> str:
    """What the messages of a layer of shape `source` bring to the neurons of the next, as `fixed_point` sums it."""
    assert layer.synapses
    kernel = kernel_of(layer.synapses, source)
    weight = graph.int32(kernel.weight.reshape(len(kernel.weight), -1).T)
    if layer.synapses.flat:
        sums = graph.add("MatMul", graph.reshape(messages, 1, prod(source)), weight)
        return graph.shifted_down(graph.reshape(sums, *layer.shape), layer.synapses.shift)
    flat = graph.add("Concat", graph.reshape(messages, prod(source)), graph.int32([0]), axis=0)
    seen = graph.add("Gather", flat, graph.int32(_seen(kernel, source, layer.shape)))
    sums = graph.reshape(graph.add("Transpose", graph.add("MatMul", seen, weight), perm=[1, 0]), *layer.shape)
    low_bits = graph.add("BitwiseAnd", graph.add("Add", sums, graph.int32(2**23)), graph.int32(2**24 - 1))
    return graph.add("Sub", low_bits, graph.int32(2**23))  # wrapped at 24 bits


def _seen(kernel: Kernel, source: tuple[int, ...], target: tuple[int, ...]) -> np.ndarray:
    """Which messages of a layer (C, H, W) each place of the next one sees, (places, what the kernel covers).

    What is seen outside the image is the number behind the last one.
    """
    channels, height, width = source
    y, x = (
        np.arange(target[1 + axis])[:, None] * kernel.stride[axis]
        + np.arange(kernel.weight.shape[2 + axis])
        - kernel.padding[axis]
        for axis in (0, 1)
    )
    channel = np.arange(channels)[:, None, None]
    y, x = y[:, None, None, :, None], x[None, :, None, None, :]  # [place y, place x, channel, kernel y, kernel x]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    numbers = np.where(inside, (channel * height + y) * width + x, prod(source))
    return numbers.reshape(target[1] * target[2], -1)
