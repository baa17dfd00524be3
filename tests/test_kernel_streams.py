"""Streams in chunks, with the network's state carried from one to the next: the same bits wherever they are cut."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels import KINDS, drive, new_network, stock, train
from torch import Tensor

from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.kernels.shared import LayerState
from pilotnet_sdnn.sdnn.network import Network, normalise

FRAMES = 24


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> Network:
    trained = new_network()
    train(trained, stock, 8)
    return trained.eval()


@torch.no_grad()
def in_chunks(network: Network, frames: Tensor, kind: str, cuts: list[int]) -> tuple[Tensor, list[Tensor]]:
    """Angles (N, T) and each layer's messages (N, T, ...) of streams that are cut before these frames."""
    state, angles, messages = None, [], []
    for chunk in frames.tensor_split(sorted(cuts), dim=1):
        if chunk.shape[1]:
            streamed = kernels.stream(network, chunk, kind, state)
            state = streamed.state
            angles.append(streamed.output.angles)
            messages.append(streamed.messages)
    return torch.cat(angles, 1), [torch.cat(layer, 1) for layer in zip(*messages, strict=True)]


@torch.no_grad()
def by_lava_dl(network: Network, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The same of lava-dl's own blocks, on the streams whole."""
    *messages, angles = network.messages(normalise(frames))
    return angles.flatten(1), [message.movedim(-1, 1) for message in messages]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(cuts=st.lists(st.integers(1, FRAMES - 1), max_size=6))
def test_a_stream_cut_anywhere_is_what_lava_dl_computes_of_it_whole(
    network: Network, kind: str, cuts: list[int]
) -> None:
    frames = drive(2, FRAMES)
    expected_angles, expected = by_lava_dl(network, frames)
    angles, messages = in_chunks(network, frames, kind, cuts)
    assert torch.equal(angles, expected_angles)
    for layer, (one, other) in enumerate(zip(messages, expected, strict=True)):
        # dense layers' messages of lava-dl have no image shape, ours neither
        assert torch.equal(one.flatten(2), other.flatten(2)), f"layer-{layer}"


@pytest.mark.parametrize("kind", KINDS)
def test_lava_dl_with_persistent_state_sends_the_same_messages(network: Network, kind: str) -> None:
    """lava-dl carries sigma and the delta unit's state itself, where it is told to, in the Input and Conv blocks."""
    carrying = copy.deepcopy(network)
    for block in carrying.layers:
        for part in (block.neuron, block.neuron.sigma, block.neuron.delta):
            part.persistent_state = True
    frames = drive(1, 12)
    state = None
    for chunk in (frames[:, :5], frames[:, 5:]):
        _, expected = by_lava_dl(carrying, chunk)
        with torch.no_grad():
            streamed = kernels.stream(network, chunk, kind, state)
        state = streamed.state
        for one, other in zip(streamed.messages, expected, strict=True):
            assert torch.equal(one.flatten(2), other.flatten(2))


CUT = 6


def by_chunk(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function of the frames before the cut, which become constants, and of those after it."""

    def apply(values: Tensor) -> Tensor:
        before, after = values[..., :CUT].contiguous(), values[..., CUT:].contiguous()
        return torch.cat([function(before).detach(), function(after)], -1)

    return apply


def second_chunk_by_lava_dl(network: Network, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Angles and rates after the cut: lava-dl's own blocks over the stream whole, everything before the cut constant.

    Each chunk has its own mean in the batch norms.
    """
    for block in network.layers:
        block.neuron.activation = by_chunk(block.neuron.activation)
        if block.neuron.norm is not None:
            block.neuron.norm.forward = by_chunk(block.neuron.norm.forward)
        block.register_forward_hook(lambda _, __, sent: by_chunk(torch.Tensor.clone)(sent))
    messages = [layer[..., CUT:] for layer in network.messages(normalise(frames).to(network.thresholds.dtype))]
    return messages[-1].flatten(1), torch.stack([layer.abs().mean() for layer in messages])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gradients_from_a_carried_state_are_those_of_autograd_through_lava_dl(
    network: Network, kind: str, mode: str
) -> None:
    frames = drive(2, 14)

    def gradients(chunk: Callable[[Network], tuple[Tensor, Tensor]], precision: torch.dtype) -> dict[str, Tensor]:
        fresh = copy.deepcopy(network).train(mode == "train").to(precision)
        torch.manual_seed(3)  # dropout
        angles, rates = chunk(fresh)
        loss = angles.square().mean() + 0.1 * rates.sum()
        loss.backward()
        return {name: p.grad for name, p in fresh.named_parameters() if p.grad is not None}

    def ours(fresh: Network) -> tuple[Tensor, Tensor]:
        state = kernels.stream(fresh, frames[:, :CUT], kind, None).state
        output = kernels.stream(fresh, frames[:, CUT:], kind, state).output
        return output.angles, output.rates

    def lava_dl(fresh: Network) -> tuple[Tensor, Tensor]:
        return second_chunk_by_lava_dl(fresh, frames)

    expected, actual = gradients(lava_dl, torch.float64), gradients(ours, torch.float32)
    rounded = gradients(lava_dl, torch.float32)
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        tolerance = (2e-4 if name.endswith("threshold") else 2e-5) * gradient.norm()
        rounding = (rounded[name] - gradient).norm()
        assert (actual[name] - gradient).norm() <= max(tolerance, 2 * rounding), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_stays_valid_when_weights_change(network: Network, kind: str) -> None:
    """What was sent stays sent: the readout's sum is its new weights times it, to the bit."""
    frames, fresh = drive(1, 9), copy.deepcopy(network)
    with torch.no_grad():
        state = kernels.stream(fresh, frames[:, :8], kind, None).state
        readout = fresh.layers[-1].synapse
        readout.weight_g.mul_(2)
        streamed = kernels.stream(fresh, frames[:, 8:], kind, state)
        all_sent = state[-1].sent + streamed.messages[-1][:, 0]
        weight = readout.pre_hook_fx(torch._weight_norm(readout.weight_v, readout.weight_g, 0)).flatten(1)
        assert torch.equal(streamed.output.angles, all_sent @ weight.T)


@pytest.mark.parametrize("kind", KINDS)
def test_some_streams_continue_while_others_start_anew(network: Network, kind: str) -> None:
    frames = drive(3, 12)
    with torch.no_grad():
        state = kernels.stream(network, frames[:, :6], kind, None).state
        alone = kernels.stream(network, frames[:, 6:], kind, None)
        going_on = kernels.stream(network, frames[:, 6:], kind, state)
        mixed = kernels.stream(
            network, frames[:2, 6:], kind, kernels.continued(network, state, torch.tensor([False, True]))
        )
    for one, continuing, fresh in zip(mixed.messages, going_on.messages, alone.messages, strict=True):
        assert torch.equal(one[0], fresh[0]) and torch.equal(one[1], continuing[1])
    assert torch.equal(mixed.output.angles[1], going_on.output.angles[1])
    assert not torch.equal(alone.output.angles[1], going_on.output.angles[1])


def test_streams_that_start_anew_draw_dropout_of_their_own() -> None:
    fresh = new_network(dropout=0.5).train()
    state = kernels.stream(fresh, drive(2, 4), "torch", None).state
    continued = kernels.continued(fresh, state, torch.tensor([True, False]))
    assert continued is not None
    drawn = [(before.gain, after.gain) for before, after in zip(state[5:], continued[5:], strict=True)]
    assert all(torch.equal(before[0], after[0]) for before, after in drawn)
    assert not any(torch.equal(before[1], after[1]) for before, after in drawn[:2])


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_stays_the_same_as_long_as_the_stream_lasts(kind: str) -> None:
    fresh, frames = new_network(dropout=0.5).train(), drive(2, 8)
    first = kernels.stream(fresh, frames[:, :4], kind, None)
    second = kernels.stream(fresh, frames[:, 4:], kind, first.state)

    def gains(state: list[LayerState]) -> list[Tensor]:
        return [layer.gain for layer in state[5:]]

    assert all(torch.equal(*pair) for pair in zip(gains(first.state), gains(second.state), strict=True))
    assert any((gain == 0).any() for gain in gains(first.state))
