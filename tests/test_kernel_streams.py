"""Streams that go on from where they were: the same bits wherever they are cut."""

import copy
from collections.abc import Iterator

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


def test_gradients_from_a_carried_state_are_those_of_autograd(network: Network) -> None:
    """Of the definition, whose convolutions, sums, norms and dropout autograd differentiates."""
    frames = drive(2, 14)

    def gradients(kind: str) -> dict[str, Tensor]:
        fresh = copy.deepcopy(network).train()
        torch.manual_seed(3)
        state = kernels.stream(fresh, frames[:, :6], kind, None).state
        output = kernels.stream(fresh, frames[:, 6:], kind, state).output
        loss = output.angles.square().mean() + 0.1 * output.rates.sum()
        fresh.zero_grad()
        loss.backward()
        return {name: p.grad for name, p in fresh.named_parameters() if p.grad is not None}

    expected, actual = gradients("torch"), gradients("native")
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        tolerance = 2e-4 if name.endswith("threshold") else 2e-5
        assert (actual[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_good_for_weights_that_have_changed_since(network: Network, kind: str) -> None:
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
def test_dropout_is_held_as_long_as_the_state_it_shaped(kind: str) -> None:
    fresh, frames = new_network(dropout=0.5).train(), drive(2, 8)
    first = kernels.stream(fresh, frames[:, :4], kind, None)
    second = kernels.stream(fresh, frames[:, 4:], kind, first.state)

    def gains(state: list[LayerState]) -> list[Tensor]:
        return [layer.gain for layer in state[5:]]

    assert all(torch.equal(*pair) for pair in zip(gains(first.state), gains(second.state), strict=True))
    assert any((gain == 0).any() for gain in gains(first.state))
