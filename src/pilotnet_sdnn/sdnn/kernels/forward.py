"""A pass of the whole network over frames, by either version of the kernels."""

import itertools
import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn.kernels import definition, native
from pilotnet_sdnn.sdnn.kernels.library import library
from pilotnet_sdnn.sdnn.kernels.shared import LayerState, Sent, mean_magnitude, with_sent_before
from pilotnet_sdnn.sdnn.kernels.support import refuse_unsupported, sdnn
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput

logger = logging.getLogger(__name__)


State = list[LayerState]  # of layer-0 to layer-7: what a network carries from frame to frame


class Streamed(NamedTuple):
    """A stretch of N streams, T frames long."""

    output: NetworkOutput
    messages: list[Tensor]  # of layer-0 to layer-7, each (N, T, ...)
    state: State  # after the last frame


def choose(kind: str, device: torch.device) -> str:
    """The kernels to use, "native" or "torch", where `kind` is one of them or "auto".

    Gradients of the two differ in their last bits, so "auto" never falls back: it is native on a CPU, torch elsewhere.

    Raises:
        UserError: native kernels are not possible here.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # 10 bits of mantissa do not hold the sums
    if kind == "torch" or (kind == "auto" and device.type != "cpu"):
        logger.info("kernels: torch")
        return "torch"
    try:
        if device.type != "cpu":
            raise RuntimeError(f"they run on the CPU, not on {device.type}")
        library()
    except (OSError, RuntimeError) as obstacle:
        raise UserError(
            f"params.yaml: kernels: native is not possible here: {obstacle}; or set torch, which is slower and "
            "differs in the last bits"
        ) from None
    logger.info("kernels: native, %d threads", torch.get_num_threads())
    return "native"


def run(network: Network, frames: Tensor, kernels: str) -> NetworkOutput:
    """The output of `network(normalise(frames))`, the same bits, differentiable.

    Args:
        network: in training or evaluation mode; its batch norms' running means are kept up to date.
        frames: uint8 (N, T, 33, 100, 3), N sequences that start anew.
        kernels: "native" or "torch", as `choose` gives it.

    Raises:
        NotImplementedError: the network has a feature of lava-dl that is not computed here.
        TypeError: the frames are not bytes.
    """
    layers = list(_layers(network, frames, kernels, None, carry=False))
    return _output(network, frames, layers, None)


def stream(network: Network, frames: Tensor, kernels: str, state: State | None) -> Streamed:
    """Continue N streams by T frames, from `state` or, where it is None, from a start like `run`'s.

    A stream cut anywhere gives the same bits as the stream whole, in evaluation mode. In training, gradients stop at
    the state, which may be older than the last optimizer step (truncated back-propagation through time); events of the
    first frame are not in `output.events`.

    Args and errors are those of `run`.
    """
    layers = list(_layers(network, frames, kernels, state, carry=True))
    output = _output(network, frames, layers, state)
    messages = [sent.messages.unflatten(0, frames.shape[:2]) for sent in layers]
    states = [sent.state for sent in layers if sent.state is not None]
    return Streamed(output, messages, states)


def _layers(network: Network, frames: Tensor, kernels: str, state: State | None, carry: bool) -> Iterator[Sent]:
    """What layer-0 to layer-7 send."""
    refuse_unsupported(network)
    if frames.dtype != torch.uint8:
        raise TypeError(f"kernels: frames are uint8, not {frames.dtype}")
    version = native if kernels == "native" else definition
    length = frames.shape[1]
    entry, first, *others, _ = network.blocks
    before: Iterator[LayerState | None] = iter(state) if state else itertools.repeat(None)
    earlier = next(before)
    current, sent = version.encode_frames(entry, first.synapse, frames, earlier, carry)
    yield sent
    earlier = next(before)
    sent = version.fire(first.neuron, current, length, earlier, carry)
    yield sent
    arriving = with_sent_before(sent.messages, earlier, length)
    for block in others:
        if isinstance(block, sdnn.Flatten):
            arriving = arriving.flatten(1)
        else:
            earlier = next(before)
            sent = version.respond(block, arriving, sent.events, length, earlier, carry)
            yield sent
            arriving = with_sent_before(sent.messages, earlier, length)


def _output(network: Network, frames: Tensor, layers: list[Sent], state: State | None) -> NetworkOutput:
    sequences, length = frames.shape[:2]
    before = state[-1] if state else None
    arriving = with_sent_before(layers[-1].messages, before, length)
    angles = definition.weigh(network.blocks[-1].synapse, arriving).view(sequences, length).cumsum(1)
    rates = torch.stack([*(sent.rate for sent in layers), mean_magnitude(angles)])
    return NetworkOutput(angles, rates, torch.stack([sent.events for sent in layers]))
