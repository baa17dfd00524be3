"""Layers and tensors as arguments of the C++ functions: structs, and memory in their order."""

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pilotnet_sdnn.sdnn.kernels.library import ConvolutionStruct, NeuronsStruct, StateStruct
from pilotnet_sdnn.sdnn.kernels.shared import LayerState, corrected, geometry

ONE_THREAD_VALUES = 1 << 15  # a layer with fewer values is computed before a second thread wakes up


class Population(NamedTuple):
    """The neurons of a layer, as both passes need them besides the tensors of the graph."""

    struct: NeuronsStruct
    before: LayerState | None

    @property
    def batch_messages(self) -> int:
        """Messages in the whole batch."""
        return self.struct.batch * self.struct.frames * self.struct.neurons


def population_of(
    images: Tensor, delta: Any, length: int, batch: int, before: LayerState | None, has_dendrite: bool
) -> Population:
    frames, channels, *area = images.shape
    threads = torch.get_num_threads() if images.numel() > ONE_THREAD_VALUES else 1
    delta.clamp()
    struct = NeuronsStruct(
        frames // length, length, channels * math.prod(area), channels, batch,
        delta.threshold.item(), delta.tau_grad, delta.scale_grad, delta.scale,
        has_dendrite, corrected(delta), threads,
    )  # fmt: skip
    if before is not None:
        before = before._replace(activation=images_of(before.activation), residual=images_of(before.residual))
    return Population(struct, before)


def convolution_of(images: Tensor, synapse: Any) -> ConvolutionStruct:
    stride, padding, *_ = geometry(synapse)
    number, inputs, height, width = images.shape
    kernel = synapse.weight.shape[2:4]
    out = [
        (size + 2 * pad - reach) // step + 1
        for size, pad, reach, step in zip((height, width), padding, kernel, stride, strict=True)
    ]
    return ConvolutionStruct(
        number, height, width, inputs, *out, synapse.out_channels, *kernel, *stride, *padding, torch.get_num_threads()
    )


def currents(images: Tensor, convolution: ConvolutionStruct) -> Tensor:
    """Memory for the currents that a convolution writes."""
    shape = (len(images), convolution.outputs, convolution.out_height, convolution.out_width)
    return torch.empty(shape, memory_format=torch.channels_last)


def images_of(tensor: Tensor) -> Tensor:
    """The tensor with its channels last in memory, as the C++ source takes it."""
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.contiguous_format)


def state_struct(before: LayerState | None) -> Any:
    if before is None:
        return ctypes.byref(StateStruct(None, None))
    return ctypes.byref(StateStruct(at(before.activation), at(before.residual)))


def at(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())
