"""What both versions share: a layer's output and state, quantised weights, the norm's mean, dropout."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pilotnet_sdnn.sdnn.processes import part, totals


class LayerState(NamedTuple):
    """What a layer carries from frame to frame in N streams. The backward pass takes it as constant.

    It holds what was sent, not what arrived. The next layer's sigma is its weights times `sent`, so a state stays valid
    when an optimizer step changes the weights.
    """

    sent: Tensor  # (N, ...) sum of all messages
    activation: Tensor  # (N, ...) at the last frame
    residual: Tensor  # (N, ...) change that was not sent
    gain: Tensor | None  # (N, features) dropout's factors, the same for the whole stream


class LayerOutput(NamedTuple):
    """What a layer sends in N sequences of T frames."""

    messages: Tensor  # (N * T, ...)
    rate: Tensor  # these sequences' part of the mean magnitude of the messages of the whole batch
    events: Tensor  # messages that are not zero, each sequence's first frame left out
    state: LayerState | None  # after the last frame; None unless requested


def with_sent_before(messages: Tensor, before: LayerState | None, length: int) -> Tensor:
    """Messages (N * T, ...), with all earlier ones added to the first of each sequence: sigma starts from their sum."""
    if before is None:
        return messages
    frames = messages.unflatten(0, (-1, length))
    return torch.cat([frames[:, :1] + before.sent.unsqueeze(1), frames[:, 1:]], 1).flatten(0, 1)


@torch.no_grad()
def total_sent(messages: Tensor, before: LayerState | None, length: int) -> Tensor:
    """(N, ...) sum of messages (N * T, ...) and of those before them."""
    total = messages.detach().unflatten(0, (-1, length)).sum(1)
    return total if before is None else total + before.sent


def quantised_weight(synapse: Any) -> Tensor:
    """Channels-last (out, in, height, width). It also updates `synapse.weight`, which the export reads."""
    for weight_norm in synapse._forward_pre_hooks.values():
        weight_norm(synapse, None)
    return synapse.pre_hook_fx(synapse.weight).squeeze(-1).contiguous(memory_format=torch.channels_last)


def geometry(synapse: Any) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups for a convolution in the plane: lava-dl's are in space and time."""
    return synapse.stride[:2], synapse.padding[:2], synapse.dilation[:2], synapse.groups


def corrected(delta: Any) -> bool:
    """Whether neurons send later what rounding takes off a message. lava-dl's own lose it."""
    return getattr(delta, "corrected", False)


def mean_magnitude(messages: Tensor, batch: int) -> Tensor:
    """A layer's rate, from messages (N, T, ...). In float64 the sum is exact, so it is the same in any order."""
    return (messages.abs().sum(dtype=torch.float64) / (batch * math.prod(messages.shape[1:]))).float()


def norm_mean(norm: Any, batch_mean: Callable[[], Tensor]) -> Tensor:
    """The mean that `MeanOnlyBatchNorm.forward` subtracts; in training it updates the running mean.

    Args:
        norm: the batch norm.
        batch_mean: these sequences' part of the mean over the whole batch, in float64.
    """
    if not (norm.training and norm.update):
        return norm.running_mean
    mean = totals(batch_mean())[0].float()
    with torch.no_grad():
        norm.running_mean = (1 - norm.momentum) * norm.running_mean + norm.momentum * mean
    return mean


def dropout_gain(neuron: Any, batch: int, features: int, before: LayerState | None) -> Tensor | None:
    """Dropout's factors (N, features), drawn as lava-dl draws them, or taken from the state; None without dropout.

    Every process draws those of the whole batch, so they depend on a sequence's place in it alone.
    """
    if neuron.drop is None or not neuron.drop.training:
        return None
    if before is not None and before.gain is not None:
        return before.gain
    return neuron.drop(torch.ones(batch, features, 1, device=neuron.device)).squeeze(-1)[part()].contiguous()
