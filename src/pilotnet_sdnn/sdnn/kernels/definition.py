"""The definition of the kernels: pure torch, on any device, slower than `native` on a CPU."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pilotnet_sdnn.sdnn.kernels.shared import (
    LayerOutput,
    LayerState,
    corrected,
    dropout_gain,
    geometry,
    mean_magnitude,
    norm_mean,
    quantised_weight,
    total_sent,
    with_sent_before,
)
from pilotnet_sdnn.sdnn.network import normalise


def encode_frames(
    entry: Any, synapse: Any, frames: Tensor, batch: int, before: LayerState | None, carry: bool
) -> tuple[Tensor, LayerOutput]:
    """The Input block and the first synapse: the current (N * T, ...) of layer-1's neurons, and layer-0's output."""
    values = entry.pre_hook_fx(normalise(frames)).permute(0, 4, 1, 2, 3)
    sent = _send(values, entry.neuron.delta, None, batch, before, carry)
    arriving = with_sent_before(sent.messages, before, frames.shape[1])
    return apply_synapse(synapse, arriving.contiguous(memory_format=torch.channels_last)), sent


def apply_block(
    block: Any, messages: Tensor, events: Tensor, length: int, batch: int, before: LayerState | None, carry: bool
) -> LayerOutput:
    """A synapse and the neurons behind it. `events`, the number of those that arrive, makes no difference here."""
    return apply_neurons(block.neuron, apply_synapse(block.synapse, messages), length, batch, before, carry)


def apply_synapse(synapse: Any, messages: Tensor) -> Tensor:
    """The current that messages (N * T, ...) bring to the neurons behind a synapse."""
    weight = quantised_weight(synapse)
    if messages.dim() == 2:
        return F.linear(messages, weight.flatten(1))
    return F.conv2d(messages, weight, None, *geometry(synapse))


def apply_neurons(
    neuron: Any, current: Tensor, length: int, batch: int, before: LayerState | None, carry: bool
) -> LayerOutput:
    """What sigma-delta neurons send when they receive the current (N * T, ...)."""
    dendrite = current.unflatten(0, (-1, length)).cumsum(1)
    if neuron.norm is not None:
        everything_but_channels = [d for d in range(dendrite.dim()) if d != 2]
        count = batch * length * math.prod(dendrite.shape[3:])
        mean = norm_mean(neuron.norm, lambda: dendrite.sum(everything_but_channels, dtype=torch.float64) / count)
        dendrite = dendrite - neuron.norm.pre_hook_fx(mean).view(-1, *(1 for _ in dendrite.shape[3:]))
    gain = dropout_gain(neuron, batch, dendrite.shape[2], before)
    return _send(F.relu(dendrite), neuron.delta, gain, batch, before, carry)


def _send(
    activations: Tensor, delta: Any, gain: Tensor | None, batch: int, before: LayerState | None, carry: bool
) -> LayerOutput:
    """The delta unit, quantisation and dropout of activations (N, T, ...)."""
    delta.clamp()
    zero = torch.zeros_like(activations[:, 0])
    start = (zero, zero) if before is None else (before.activation, before.residual)
    messages, residual = _DeltaUnit.apply(activations, delta.threshold, delta, *start)
    if gain is not None:
        messages = messages * gain.unsqueeze(1)
    flat = messages.flatten(0, 1)
    state = None
    if carry:
        total = total_sent(flat, before, activations.shape[1])
        state = LayerState(total, activations[:, -1].detach().clone(), residual.detach(), gain)
    return LayerOutput(flat, mean_magnitude(messages, batch), messages[:, 1:].count_nonzero(), state)


class _DeltaUnit(torch.autograd.Function):
    """lava-dl's `_DeltaUnit` and the quantisation of its output, time in dimension 1."""

    @staticmethod
    def forward(
        ctx: Any, activations: Tensor, threshold: Tensor, delta: Any, previous: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        kept = 1 if corrected(delta) else 0
        differences = _scan(activations.device.type)(activations, threshold, previous, residual, delta.scale, kept)
        ctx.save_for_backward(differences, threshold)
        ctx.delta = delta
        events = torch.where(differences.abs() >= threshold, differences, 0)
        residual = _residual(differences[:, -1], threshold, delta.scale, kept)
        ctx.mark_non_differentiable(residual)
        return _rounded(events, delta.scale), residual

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        differences, threshold = ctx.saved_tensors
        above = differences.abs() - threshold
        spike = ctx.delta.scale_grad * torch.exp(-above.abs() / ctx.delta.tau_grad)
        sensitivity = torch.where(above > 0, -differences * spike / threshold, -differences.sign())
        later = torch.cat([gradient[:, 1:], torch.zeros_like(gradient[:, :1])], 1)
        return gradient - later, (sensitivity * gradient).sum().view(1), None, None, None


def _differences(
    activations: Tensor, threshold: Tensor, previous: Tensor, residual: Tensor, scale: int, kept: int
) -> Tensor:
    """What is compared with the threshold: d[t] = x[t] - x[t-1] + r[t-1]; r[t] is the part of d[t] not sent."""
    differences = []
    for activation in activations.unbind(1):
        difference = activation - previous + residual
        residual = _residual(difference, threshold, scale, kept)
        previous = activation
        differences.append(difference)
    return torch.stack(differences, 1)


def _residual(difference: Tensor, threshold: Tensor, scale: int, kept: int) -> Tensor:
    """All of a difference below the threshold. Of one that is sent, what rounding takes off, times `kept`."""
    rounding = difference - _rounded(difference, scale)
    return torch.where(difference.abs() >= threshold, kept * rounding, difference)


def _rounded(messages: Tensor, scale: int) -> Tensor:
    return torch.floor(messages * scale) / scale


@functools.cache
def _scan(device: str) -> Callable[..., Tensor]:
    """`_differences`. On a GPU it is compiled to one kernel, for any shape, instead of several small ones per frame."""
    return torch.compile(_differences, dynamic=True) if device == "cuda" else _differences
