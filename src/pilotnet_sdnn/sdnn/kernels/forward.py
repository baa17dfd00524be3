"""A pass of the whole network over frames, by either version of the kernels."""

import itertools
import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pilotnet_sdnn.errors import UserError, counted
from pilotnet_sdnn.sdnn.kernels import definition, native
from pilotnet_sdnn.sdnn.kernels.library import library
from pilotnet_sdnn.sdnn.kernels.shared import LayerOutput, LayerState, dropout_gain, mean_magnitude, with_sent_before
from pilotnet_sdnn.sdnn.kernels.support import refuse_unsupported, sdnn
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput
from pilotnet_sdnn.sdnn.processes import joined, part

logger = logging.getLogger(__name__)


State = list[LayerState]  # of layer-0 to layer-7


class StreamOutput(NamedTuple):
    """What one pass over T frames of N streams gives."""

    output: NetworkOutput
    messages: list[Tensor]  # of layer-0 to layer-7, each (N, T, ...)
    state: State  # after the last frame


def choose(kind: str, device: torch.device) -> str:
    """The kernels to use, "native" or "torch", where `kind` is one of them or "auto".

    "auto" is native on a CPU and torch elsewhere. It never falls back: gradients of the two differ in their last bits.

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
            f"params.yaml: kernels: native is not possible here: {obstacle}; or set torch, which is slower and whose "
            "results differ in their last bits"
        ) from None
    logger.info("kernels: native, %s", counted(torch.get_num_threads(), "thread"))
    return "native"


def run(network: Network, frames: Tensor, kernels: str, batch: int | None = None) -> NetworkOutput:
    """The output of `network(normalise(frames))`, the same bits, differentiable; of corrected neurons, theirs.

    Args:
        network: in training or evaluation mode; its batch norms' running means are kept up to date.
        frames: uint8 (N, T, 33, 100, 3), N sequences that start from rest.
        kernels: "native" or "torch", as `choose` gives it.
        batch: sequences of the whole batch, where other processes have the rest. Means, rates and dropout are then
            those of the whole batch; the rates have to be summed over the processes.

    Raises:
        NotImplementedError: the network has a feature of lava-dl that is not computed here.
        TypeError: the frames are not bytes.
    """
    batch = batch or len(frames)
    layers = list(_layers(network, frames, kernels, batch, None, carry=False))
    return _output(network, frames, layers, batch, None)


def stream(
    network: Network, frames: Tensor, kernels: str, state: State | None, batch: int | None = None
) -> StreamOutput:
    """Advance N streams by T frames.

    In evaluation mode a stream in chunks gives the same bits as the stream in one piece. In training mode gradients
    stop at the state (truncated back-propagation through time); the weights may have changed since it was returned.
    As in `run`, `output.events` leaves out the first frame.

    Args:
        network: as for `run`.
        frames: as for `run`, the next ones of each stream.
        kernels: as for `run`.
        state: after the frame before them; None at rest.
        batch: as for `run`.

    Raises:
        NotImplementedError: as `run`.
        TypeError: as `run`.
    """
    batch = batch or len(frames)
    layers = list(_layers(network, frames, kernels, batch, state, carry=True))
    output = _output(network, frames, layers, batch, state)
    messages = [sent.messages.unflatten(0, frames.shape[:2]) for sent in layers]
    states = [sent.state for sent in layers if sent.state is not None]
    return StreamOutput(output, messages, states)


def continued(network: Network, state: State | None, continues: Tensor, batch: int | None = None) -> State | None:
    """The state for the next frames of the first n streams, where some of these start anew.

    Args:
        network: in the mode of the next frames.
        state: of n or more streams, on any device, or None where all start anew.
        continues: (n,) bool; streams that do not continue start from rest.
        batch: as for `run`.
    """
    if state is None or not continues.any():
        return None

    def kept(memory: Tensor, fresh: Tensor) -> Tensor:
        going = continues.view(-1, *(1 for _ in memory.shape[1:]))
        return torch.where(going, memory[: len(continues)].to(fresh.device), fresh)

    rest = torch.zeros((), device=continues.device)
    layers = []
    for block, layer in zip(network.layers, state, strict=False):
        gain = layer.gain
        if gain is not None:
            fresh = dropout_gain(block.neuron, batch or len(continues), gain.shape[1], None)
            gain = gain[: len(continues)] if fresh is None else kept(gain, fresh)
        sent, activation, residual = (kept(memory, rest) for memory in layer[:3])
        layers.append(LayerState(sent, activation, residual, gain))
    return layers


def all_lanes(own: State | None) -> list[tuple[Tensor | None, ...]] | None:
    """The state of the lanes of all processes, of which each has every n-th; in plain types, on the CPU."""
    if own is None:
        return None
    layers = []
    for parts in zip(*joined([[m if m is None else m.cpu() for m in layer] for layer in own]), strict=True):
        lanes = torch.cat([torch.arange(len(layer[0])) * len(parts) + process for process, layer in enumerate(parts)])
        memories = zip(*parts, strict=True)
        layers.append(tuple(None if memory[0] is None else torch.cat(memory)[lanes.argsort()] for memory in memories))
    return layers


def own_lanes(layers: list[tuple[Tensor | None, ...]] | None) -> State | None:
    """This process's part of what `all_lanes` gave, whatever the number of processes was."""
    return (
        None if layers is None else [LayerState._make(m if m is None else m[part()] for m in layer) for layer in layers]
    )


def _layers(
    network: Network, frames: Tensor, kernels: str, batch: int, state: State | None, carry: bool
) -> Iterator[LayerOutput]:
    """What layer-0 to layer-7 send."""
    refuse_unsupported(network)
    if frames.dtype != torch.uint8:
        raise TypeError(f"kernels: frames are uint8, not {frames.dtype}")
    version = native if kernels == "native" else definition
    length = frames.shape[1]
    entry, first, *others, _ = network.blocks
    before: Iterator[LayerState | None] = iter(state) if state else itertools.repeat(None)
    earlier = next(before)
    current, sent = version.encode_frames(entry, first.synapse, frames, batch, earlier, carry)
    yield sent
    earlier = next(before)
    sent = version.apply_neurons(first.neuron, current, length, batch, earlier, carry)
    yield sent
    arriving = with_sent_before(sent.messages, earlier, length)
    for block in others:
        if isinstance(block, sdnn.Flatten):
            arriving = arriving.flatten(1)
        else:
            earlier = next(before)
            sent = version.apply_block(block, arriving, sent.events, length, batch, earlier, carry)
            yield sent
            arriving = with_sent_before(sent.messages, earlier, length)


def _output(
    network: Network, frames: Tensor, layers: list[LayerOutput], batch: int, state: State | None
) -> NetworkOutput:
    sequences, length = frames.shape[:2]
    before = state[-1] if state else None
    arriving = with_sent_before(layers[-1].messages, before, length)
    angles = definition.apply_synapse(network.blocks[-1].synapse, arriving).view(sequences, length).cumsum(1)
    rates = torch.stack([*(sent.rate for sent in layers), mean_magnitude(angles, batch)])
    return NetworkOutput(angles, rates, torch.stack([sent.events for sent in layers]))
