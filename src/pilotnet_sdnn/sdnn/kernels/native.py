"""The fast version: the C++ source beside this module, called through ctypes. It equals `definition` bit for bit.

Convolutions of few events skip silent neurons, forward and in the gradient of the weights, and resting neurons in the
gradient of the events.
"""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pilotnet_sdnn.sdnn.kernels import definition
from pilotnet_sdnn.sdnn.kernels.arguments import (
    Population,
    at,
    convolution_of,
    currents,
    images_of,
    population_of,
    state_struct,
)
from pilotnet_sdnn.sdnn.kernels.library import ConvolutionStruct, StateStruct, library
from pilotnet_sdnn.sdnn.kernels.shared import (
    LayerOutput,
    LayerState,
    dropout_gain,
    geometry,
    norm_mean,
    quantised_weight,
    total_sent,
    with_sent_before,
)
from pilotnet_sdnn.sdnn.lava import slayer
from pilotnet_sdnn.sdnn.network import normalise
from pilotnet_sdnn.sdnn.processes import totals

MAX_CHANNELS = 64  # of the C++ convolutions, on either side
SPARSE_SHARE = 0.2  # of events among all messages; below it, skipping zeros is faster


def encode_frames(
    entry: Any, synapse: Any, frames: Tensor, batch: int, before: LayerState | None, carry: bool
) -> tuple[Tensor, LayerOutput]:
    """`definition.encode_frames`."""
    table = entry.pre_hook_fx(normalise(torch.arange(256, dtype=torch.uint8).view(1, 1, 1, -1, 1))).flatten()
    sequences, length, height, width, channels = frames.shape
    values = torch.empty(sequences * length, channels, height, width, memory_format=torch.channels_last)
    frames = frames.contiguous()
    library().look_up(at(frames), at(table), ctypes.c_int64(frames.numel()), torch.get_num_threads(), at(values))
    population = population_of(values, entry.neuron.delta, length, batch, before, has_dendrite=False)
    delta, weight = entry.neuron.delta, quantised_weight(synapse)
    current, *outputs = _EncodeFrames.apply(values, delta.threshold, weight, population, geometry(synapse), carry)
    return current, _layer_output(outputs, population, None, carry)


def apply_block(
    block: Any, messages: Tensor, events: Tensor, length: int, batch: int, before: LayerState | None, carry: bool
) -> LayerOutput:
    """`definition.apply_block`. It skips silent neurons where events are few and the C++ source has the geometry."""
    synapse, neuron = block.synapse, block.neuron
    channels = max(synapse.in_channels, synapse.out_channels)
    plain = messages.dim() == 4 and synapse.groups == 1 and synapse.dilation[:2] == (1, 1) and channels <= MAX_CHANNELS
    if not plain or events.item() > SPARSE_SHARE * messages.numel():
        return apply_neurons(neuron, definition.apply_synapse(synapse, messages), length, batch, before, carry)
    images = images_of(messages)
    struct = convolution_of(images, synapse)
    population = population_of(currents(images, struct), neuron.delta, length, batch, before, has_dendrite=True)
    weight = quantised_weight(synapse)
    outputs = _SparseBlock.apply(images, weight, neuron.delta.threshold, neuron, struct, population, carry)
    return _layer_output(outputs, population, None, carry)


def apply_neurons(
    neuron: Any, current: Tensor, length: int, batch: int, before: LayerState | None, carry: bool
) -> LayerOutput:
    """`definition.apply_neurons`."""
    current = images_of(current)
    gain = dropout_gain(neuron, batch, current.shape[1], before)
    population = population_of(current, neuron.delta, length, batch, before, has_dendrite=True)
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
        arriving = images_of(with_sent_before(outputs[0], population.before, population.struct.frames))
        ctx.save_for_backward(values, arriving, weight)
        ctx.population, ctx.geometry = population, geometry
        ctx.mark_non_differentiable(*(output for output in (outputs[0], *outputs[2:]) if output is not None))
        return F.conv2d(arriving, weight, None, *geometry), *outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Any, rate_gradient: Tensor, *__: Any) -> tuple[Tensor | None, ...]:
        values, arriving, weight = ctx.saved_tensors
        gradient = images_of(gradient)
        sensitivity = torch.empty_like(values)
        through_rate = library().sensitivities(
            ctypes.byref(ctx.population.struct), state_struct(ctx.population.before), at(values), at(sensitivity)
        )
        current_sensitivity = images_of(F.conv2d(sensitivity, weight, None, *ctx.geometry))
        through_synapse = library().inner_product(
            at(current_sensitivity), at(gradient), ctypes.c_int64(gradient.numel()), torch.get_num_threads()
        )
        threshold = through_synapse + through_rate * rate_gradient.item() / ctx.population.batch_messages
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
        current = currents(images, convolution)
        packed = weight.permute(2, 3, 1, 0).contiguous()
        library().convolve_events(ctypes.byref(convolution), at(images), at(packed), at(current))
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
            convolution, ctypes.c_int64(ctx.population.struct.frames), at(through_neurons), at(shares), at(packed),
            at(image_gradient),
        )  # fmt: skip
        library().current_gradients(neurons, at(shares), at(through_neurons))
        weight_gradient = torch.empty_like(weight.permute(2, 3, 1, 0), memory_format=torch.contiguous_format)
        library().event_weight_gradient(convolution, at(images), at(through_neurons), at(weight_gradient))
        return image_gradient, images_of(weight_gradient.permute(3, 2, 0, 1)), threshold, None, None, None, None


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
        library().current_gradients(ctypes.byref(ctx.population.struct), at(shares), at(current_gradient))
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
    gradient = images_of(gradient)
    activation_gradient, shares = torch.empty_like(current), torch.empty(population.struct.channels)
    slope = ctypes.c_float(rate_gradient.item() / population.batch_messages)
    threshold = library().activation_gradients(
        ctypes.byref(population.struct), state_struct(population.before), at(current), at(mean), at(mean_passes),
        at(gain), at(gradient), slope, at(activation_gradient), at(shares),
    )  # fmt: skip
    if mean_passes is not None:
        (shares,) = totals(shares)
    return activation_gradient, shares, torch.tensor([threshold], dtype=torch.float32)


def _quantised_mean(neuron: Any, population: Population, current: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What the norm subtracts from each channel, and 1.0 where its gradient passes the clamping, else 0.0.

    The first is None without a norm, the second also where the mean is constant.
    """
    norm = neuron.norm
    if norm is None:
        return None, None

    def batch_mean() -> Tensor:
        means = torch.empty(population.struct.channels, dtype=torch.float64)
        library().dendrite_means(ctypes.byref(population.struct), at(current), at(means))
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
        ctypes.byref(population.struct), state_struct(population.before), at(current), at(mean), at(gain),
        at(messages), ctypes.byref(StateStruct(at(activation), at(residual))), sums,
    )  # fmt: skip
    magnitude, events = sums
    rate = torch.tensor(magnitude / population.batch_messages, dtype=torch.float32)
    return messages, rate, torch.tensor(int(events)), activation, residual
