"""The fast version: the C++ source beside this module, called through ctypes. It equals `definition` bit for bit.

Convolutions of few events skip silent neurons, forward and in the gradient of the weights, and resting neurons in the
gradient of the events.
"""

import ctypes
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pilotnet_sdnn.sdnn.kernels import definition
from pilotnet_sdnn.sdnn.kernels.library import ConvolutionStruct, NeuronsStruct, StateStruct, library
from pilotnet_sdnn.sdnn.kernels.shared import (
    LayerOutput,
    LayerState,
    corrected,
    dropout_gain,
    geometry,
    norm_mean,
    quantised_weight,
    total_sent,
    with_sent_before,
)
from pilotnet_sdnn.sdnn.lava import slayer
from pilotnet_sdnn.sdnn.network import normalise

MAX_CHANNELS = 64  # of the C++ convolutions, on either side
ONE_THREAD_VALUES = 1 << 15  # a layer with fewer values is computed before a second thread wakes up
SPARSE_SHARE = 0.2  # of events among all messages; below it, skipping zeros is faster


class Population(NamedTuple):
    """The neurons of a layer, as both passes need them besides the tensors of the graph."""

    struct: NeuronsStruct
    before: LayerState | None


def encode_frames(
    entry: Any, synapse: Any, frames: Tensor, before: LayerState | None, carry: bool
) -> tuple[Tensor, LayerOutput]:
    """`definition.encode_frames`."""
    table = entry.pre_hook_fx(normalise(torch.arange(256, dtype=torch.uint8).view(1, 1, 1, -1, 1))).flatten()
    sequences, length, height, width, channels = frames.shape
    values = torch.empty(sequences * length, channels, height, width, memory_format=torch.channels_last)
    frames = frames.contiguous()
    library().look_up(_at(frames), _at(table), ctypes.c_int64(frames.numel()), torch.get_num_threads(), _at(values))
    population = _population(values, entry.neuron.delta, length, before, has_dendrite=False)
    delta, weight = entry.neuron.delta, quantised_weight(synapse)
    current, *outputs = _EncodeFrames.apply(values, delta.threshold, weight, population, geometry(synapse), carry)
    return current, _layer_output(outputs, population, None, carry)


def apply_block(
    block: Any, messages: Tensor, events: Tensor, length: int, before: LayerState | None, carry: bool
) -> LayerOutput:
    """`definition.apply_block`. It skips silent neurons where events are few and the C++ source has the geometry."""
    synapse, neuron = block.synapse, block.neuron
    channels = max(synapse.in_channels, synapse.out_channels)
    plain = messages.dim() == 4 and synapse.groups == 1 and synapse.dilation[:2] == (1, 1) and channels <= MAX_CHANNELS
    if not plain or events.item() > SPARSE_SHARE * messages.numel():
        return apply_neurons(neuron, definition.apply_synapse(synapse, messages), length, before, carry)
    images = _images(messages)
    struct = _convolution(images, synapse)
    population = _population(_currents(images, struct), neuron.delta, length, before, has_dendrite=True)
    weight = quantised_weight(synapse)
    outputs = _SparseBlock.apply(images, weight, neuron.delta.threshold, neuron, struct, population, carry)
    return _layer_output(outputs, population, None, carry)


def apply_neurons(neuron: Any, current: Tensor, length: int, before: LayerState | None, carry: bool) -> LayerOutput:
    """`definition.apply_neurons`."""
    current = _images(current)
    gain = dropout_gain(neuron, len(current) // length, current.shape[1], before)
    population = _population(current, neuron.delta, length, before, has_dendrite=True)
    outputs = _Neurons.apply(current, neuron.delta.threshold, neuron, gain, population, carry)
    return _layer_output(outputs, population, gain, carry)


def _layer_output(outputs: Any, population: Population, gain: Tensor | None, carry: bool) -> LayerOutput:
    messages, rate, events, activation, residual = outputs
    if not carry:
        return LayerOutput(messages, rate, events, None)
    total = total_sent(messages, population.before, population.struct.frames)
    return LayerOutput(messages, rate, events, LayerState(total, activation, residual, gain))


class _EncodeFrames(torch.autograd.Function):
    """Delta unit of the Input block, then the first convolution.

    Nothing needs the gradient of the events except their threshold, which has one value. With h the
    events' sensitivity to it, <h, adjoint(gradient)> = <convolution(h), gradient>, and a convolution
    forward from three channels costs a fraction of one back to them.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, threshold: Tensor, weight: Tensor, population: Population, geometry: Any, carry: bool
    ) -> tuple[Tensor | None, ...]:
        outputs = _encode(population, values, None, None, carry)
        arriving = _images(with_sent_before(outputs[0], population.before, population.struct.frames))
        ctx.save_for_backward(values, arriving, weight)
        ctx.population, ctx.geometry = population, geometry
        ctx.mark_non_differentiable(*(output for output in (outputs[0], *outputs[2:]) if output is not None))
        return F.conv2d(arriving, weight, None, *geometry), *outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Any, rate_gradient: Tensor, *__: Any) -> tuple[Tensor | None, ...]:
        values, arriving, weight = ctx.saved_tensors
        gradient = _images(gradient)
        sensitivity = torch.empty_like(values)
        through_rate = library().sensitivities(
            ctypes.byref(ctx.population.struct), _state_struct(ctx.population.before), _at(values), _at(sensitivity)
        )
        current_sensitivity = _images(F.conv2d(sensitivity, weight, None, *ctx.geometry))
        through_synapse = library().inner_product(
            _at(current_sensitivity), _at(gradient), ctypes.c_int64(gradient.numel()), torch.get_num_threads()
        )
        threshold = through_synapse + through_rate * rate_gradient.item() / values.numel()
        stride, padding, dilation, groups = ctx.geometry
        _, weight_gradient, _ = torch.ops.aten.convolution_backward(
            gradient, arriving, weight, None, stride, padding, dilation, False, (0, 0), groups, (False, True, False)
        )
        return None, torch.tensor([threshold], dtype=torch.float32), weight_gradient, None, None, None


class _SparseBlock(torch.autograd.Function):
    """A convolution of few events and the neurons behind it: skips silent neurons before it, resting ones behind it."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        threshold: Tensor,
        neuron: Any,
        convolution: ConvolutionStruct,
        population: Population,
        carry: bool,
    ) -> tuple[Tensor | None, ...]:
        current = _currents(images, convolution)
        packed = weight.permute(2, 3, 1, 0).contiguous()
        library().convolve_events(ctypes.byref(convolution), _at(images), _at(packed), _at(current))
        outputs = _neurons_forward(ctx, current, neuron, None, population, carry, images, weight)
        ctx.convolution = convolution
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, rate_gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        through_neurons, shares, threshold = _activation_gradients(ctx, gradient, rate_gradient)
        *_, images, weight = ctx.saved_tensors
        convolution, neurons = ctypes.byref(ctx.convolution), ctypes.byref(ctx.population.struct)
        image_gradient, packed = torch.empty_like(images), weight.permute(2, 3, 0, 1).contiguous()
        library().event_gradients(
            convolution, ctypes.c_int64(ctx.population.struct.frames), _at(through_neurons), _at(shares), _at(packed),
            _at(image_gradient),
        )  # fmt: skip
        library().current_gradients(neurons, _at(shares), _at(through_neurons))
        weight_gradient = torch.empty_like(weight.permute(2, 3, 1, 0), memory_format=torch.contiguous_format)
        library().event_weight_gradient(convolution, _at(images), _at(through_neurons), _at(weight_gradient))
        return image_gradient, _images(weight_gradient.permute(3, 2, 0, 1)), threshold, None, None, None, None


class _Neurons(torch.autograd.Function):
    """Sigma, norm, relu, delta unit, quantisation, dropout, rate and event count: one pass over memory each way."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        threshold: Tensor,
        neuron: Any,
        gain: Tensor | None,
        population: Population,
        carry: bool,
    ) -> tuple[Tensor | None, ...]:
        return _neurons_forward(ctx, current, neuron, gain, population, carry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, rate_gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        current_gradient, shares, threshold = _activation_gradients(ctx, gradient, rate_gradient)
        library().current_gradients(ctypes.byref(ctx.population.struct), _at(shares), _at(current_gradient))
        return current_gradient, threshold, None, None, None, None


def _neurons_forward(
    ctx: Any, current: Tensor, neuron: Any, gain: Tensor | None, population: Population, carry: bool, *to_save: Tensor
) -> tuple[Tensor | None, ...]:
    mean, mean_passes = _quantised_mean(neuron, population, current)
    outputs = _encode(population, current, mean, gain, carry)
    ctx.save_for_backward(current, mean, mean_passes, gain, *to_save)
    ctx.population = population
    ctx.mark_non_differentiable(*(output for output in outputs[2:] if output is not None))
    return outputs


def _activation_gradients(ctx: Any, gradient: Tensor, rate_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the activations, of the channels' means, and of the threshold."""
    current, mean, mean_passes, gain, *_ = ctx.saved_tensors
    population = ctx.population
    gradient = _images(gradient)
    activation_gradient, shares = torch.empty_like(current), torch.empty(population.struct.channels)
    slope = ctypes.c_float(rate_gradient.item() / current.numel())
    threshold = library().activation_gradients(
        ctypes.byref(population.struct), _state_struct(population.before), _at(current), _at(mean), _at(mean_passes),
        _at(gain), _at(gradient), slope, _at(activation_gradient), _at(shares),
    )  # fmt: skip
    return activation_gradient, shares, torch.tensor([threshold], dtype=torch.float32)


def _quantised_mean(neuron: Any, population: Population, current: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What the norm subtracts from each channel, and 1.0 where its gradient passes the clamping, else 0.0.

    The first is None without a norm, the second also where the mean is constant.
    """
    norm = neuron.norm
    if norm is None:
        return None, None

    def batch_mean() -> Tensor:
        means = torch.empty(population.struct.channels)
        library().dendrite_means(ctypes.byref(population.struct), _at(current), _at(means))
        return means

    mean = norm_mean(norm, batch_mean)
    quantised = norm.pre_hook_fx(mean)
    if not (norm.training and norm.update):
        return quantised, None
    return quantised, (quantised == slayer.utils.quantize(mean, step=2 / neuron.w_scale)).float()


def _encode(
    population: Population, current: Tensor, mean: Tensor | None, gain: Tensor | None, carry: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Messages, rate, number of events; activation and residual after the last frame, None if not carried."""
    messages = torch.empty_like(current)
    activation, residual = (torch.empty_like(current[:: population.struct.frames]) if carry else None for _ in range(2))
    sums = (ctypes.c_double * 2)()
    library().encode(
        ctypes.byref(population.struct), _state_struct(population.before), _at(current), _at(mean), _at(gain),
        _at(messages), ctypes.byref(StateStruct(_at(activation), _at(residual))), sums,
    )  # fmt: skip
    magnitude, events = sums
    rate = torch.tensor(magnitude / current.numel(), dtype=torch.float32)
    return messages, rate, torch.tensor(int(events)), activation, residual


def _population(images: Tensor, delta: Any, length: int, before: LayerState | None, has_dendrite: bool) -> Population:
    frames, channels = images.shape[:2]
    threads = torch.get_num_threads() if images.numel() > ONE_THREAD_VALUES else 1
    delta.clamp()
    struct = NeuronsStruct(
        frames // length, length, images.numel() // frames, channels,
        delta.threshold.item(), delta.tau_grad, delta.scale_grad, delta.scale,
        has_dendrite, corrected(delta), threads,
    )  # fmt: skip
    if before is not None:
        before = before._replace(activation=_images(before.activation), residual=_images(before.residual))
    return Population(struct, before)


def _convolution(images: Tensor, synapse: Any) -> ConvolutionStruct:
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


def _currents(images: Tensor, convolution: ConvolutionStruct) -> Tensor:
    """Memory for the currents that a convolution writes."""
    shape = (len(images), convolution.outputs, convolution.out_height, convolution.out_width)
    return torch.empty(shape, memory_format=torch.channels_last)


def _images(tensor: Tensor) -> Tensor:
    """The tensor with its channels last in memory, as the C++ source takes it."""
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.contiguous_format)


def _state_struct(before: LayerState | None) -> Any:
    if before is None:
        return ctypes.byref(StateStruct(None, None))
    return ctypes.byref(StateStruct(_at(before.activation), _at(before.residual)))


def _at(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())
