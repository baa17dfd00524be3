"""The network in integers against netx, against the network it was exported from, and against what was shipped."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import drifting_noise, trained_network

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.loihi.comparison import agreement, first_difference, netx_messages, stream_angles
from pilotnet_sdnn.loihi.export import export_hdf5
from pilotnet_sdnn.loihi.fixed_point import ONE, encode, read_network, run, start_state, zero_state
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.lava import simulate_fixed_point
from pilotnet_sdnn.sdnn.losses import synops_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, normalise


@pytest.fixture(scope="module")
def videos() -> torch.Tensor:
    return drifting_noise(sequences=3, frames=6)


@pytest.fixture(scope="module")
def trained(videos) -> Network:
    """A network after a few optimizer steps that make it sparse, with thresholds that moved."""

    def penalty(network: Network, outcome: NetworkOutput) -> torch.Tensor:
        return 0.1 * synops_loss(outcome.rates, network.thresholds, torch.ones(8))

    return trained_network(videos, penalty).eval()


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "network.net"
    export_hdf5(trained, path)
    return path


def test_shipped_pilotnet_gives_its_shipped_output(ground_truth):
    """What it says before the frame reaches the last layer, eight steps later, and what it makes of the frame."""
    frame, expected = np.load(ground_truth / "input.npy"), np.load(ground_truth / "output.npy")
    network = read_network(ground_truth / "network.net")
    start = start_state(network, sequences=1)
    sent, _ = run(network, torch.tensor(frame).permute(3, 2, 1, 0)[None], start)
    assert start[-1].sigma.item() == expected[0, 7]
    assert sent[-1].item() == expected[0, 8]


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("which", ["shipped", "freshly trained"])
def test_every_message_of_every_layer_is_netxs(which, corrected, ground_truth, exported, videos):
    file = ground_truth / "network.net" if which == "shipped" else exported
    frames = videos[:1].numpy()
    network = read_network(file)
    ours, _ = run(network, encode(frames), start_state(network, 1, corrected), corrected)
    assert first_difference(netx_messages(file, frames, corrected), ours) is None
    assert all(sent.any() for sent in ours[:5])  # it is no comparison of silence


def test_from_the_same_start_it_is_the_trained_network_in_every_layer(trained, exported, videos):
    """Not approximately: thresholds, weights, biases and messages are all there in full."""
    network = read_network(exported)
    fixed, _ = run(network, encode(videos.numpy()), zero_state(network, len(videos)))
    with torch.no_grad():
        *floating, angles = trained.messages(normalise(videos))
    for number, (integers, messages) in enumerate(zip(fixed, floating, strict=False)):
        sent = messages.movedim(-1, 1).double().reshape(integers.shape)
        assert torch.equal(integers / 2**12, sent), f"layer-{number}"
    assert torch.equal(fixed[-1].flatten(1) / ONE, angles.flatten(1).double())


@pytest.mark.parametrize("kind", ["native", "torch"])
def test_corrected_it_is_the_corrected_network_wherever_its_stream_is_cut(trained, exported, videos, kind):
    """Two definitions: integers remember what they have sent, the network what it has not."""
    network = Network(corrected=True)
    network.load_state_dict(trained.state_dict())
    integers = read_network(exported)
    fixed, _ = run(integers, encode(videos.numpy()), zero_state(integers, 3), corrected=True)
    with torch.no_grad():
        first = kernels.stream(network.eval(), videos[:, :2], kind, None)
        second = kernels.stream(network, videos[:, 2:], kind, first.state)
    for number, (sent, *parts) in enumerate(zip(fixed, first.messages, second.messages, strict=False)):
        assert torch.equal(sent / 2**12, torch.cat(parts, 1).double().reshape(sent.shape)), f"layer-{number}"
    angles = torch.cat([first.output.angles, second.output.angles], 1)
    assert torch.equal(fixed[-1].flatten(1) / ONE, angles.double())


def test_frames_are_encoded_as_the_input_block_does(trained):
    frames = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T.reshape(1, 1, 4, 64, 3)
    values = trained.layers[0].pre_hook_fx(normalise(frames))
    assert torch.equal(encode(frames.numpy()) / 64, values.movedim(-1, 1))


def test_a_run_goes_on_where_it_was(exported, videos):
    network = read_network(exported)
    inputs = encode(videos.numpy())
    whole, _ = run(network, inputs, start_state(network, 3))
    first, state = run(network, inputs[:, :2], start_state(network, 3))
    second, _ = run(network, inputs[:, 2:], state)
    for at_once, *parts in zip(whole, first, second, strict=True):
        assert torch.equal(at_once, torch.cat(parts, 1))


@pytest.mark.parametrize("corrected", [True, False])
def test_what_neurons_remember_and_what_they_sent(exported, videos, corrected):
    """Corrected, the same; in lava-nc 0.10 receivers have less, by up to 63/64 of the last bit of each message.

    From layer-2 on: the input's values are multiples of 1/32, and so are weights and biases.
    """
    network = read_network(exported)
    sent, states = run(network, encode(videos.numpy()), zero_state(network, 3), corrected)
    drifting = set()
    for number, (messages, state) in enumerate(zip(sent[:-1], states, strict=False)):
        missing = state.sent - messages.sum(1) * 64
        assert (missing >= 0).all() and (missing <= 63 * (messages != 0).sum(1)).all()
        if missing.any():
            drifting.add(number)
    assert not drifting if corrected else {2, 3, 4} <= drifting <= {2, 3, 4, 5, 6, 7}


def write_small_network(path: Path, weights: list[np.ndarray], bias: int) -> None:
    """Input 2x9x9, a convolution to 3x4x3 and dense layers, as lava-dl exports them."""
    with h5py.File(path, "w") as file:

        def layer(kind: str, number: int, shape: tuple, **more: object) -> None:
            group = file.create_group(f"layer/{number}")
            group.create_dataset("type", (1,), "S10", [kind.encode()])
            for name, value in {"shape": shape, "neuron/type": "SDNN", "neuron/vThMant": 3, **more}.items():
                group[name] = value

        layer("input", 0, (2, 9, 9))
        geometry = {"stride": (2, 2), "padding": (0, 1), "dilation": (1, 2), "groups": 1}
        layer("conv", 1, (3, 4, 4), weight=weights[0], bias=np.full(3, bias, float), **geometry)
        file["layer/2/type"] = np.array([b"flatten"])
        for number, weight in enumerate(weights[1:-1], 3):
            layer("dense", number, (len(weight),), weight=weight, bias=np.full(len(weight), bias, float))
        last = len(weights) + 1
        layer("dense", last, (len(weights[-1]),), weight=weights[-1], **{"neuron/sigma_output": True})


RANDOM = np.random.default_rng(5)


def even(low: int, high: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(low // 2, high // 2, shape, endpoint=True) * 2


@pytest.mark.parametrize(
    ("convolution", "dense"),
    [
        ((-256, 254), [(-256, 254), (-256, 254)]),  # convolutions wrap around at 24 bits
        ((-40, 40), [(2, 20), (-16, -2), (-64, 0)]),  # all of a sign: what has no room in eight bits is cut off
        ((-40, 40), [(-2, -2), (0, 0), (-8, 8)]),  # -256 becomes 0; a layer without weights
    ],
)
def test_extreme_weights_and_inputs_as_netx_computes_them(tmp_path, convolution, dense):
    sizes = [48, *(5 for _ in dense[1:]), 2]
    weights = [even(*convolution, 3, 2, 3, 3)]
    weights += [even(*range_, n, m) for range_, m, n in zip(dense, sizes, sizes[1:], strict=False)]
    write_small_network(tmp_path / "small.net", weights, bias=100)
    inputs = RANDOM.integers(-500, 500, (9, 9, 2, 6))
    network = read_network(tmp_path / "small.net")

    ours, _ = run(network, torch.tensor(inputs).int().permute(3, 2, 1, 0)[None], start_state(network, 1))
    steps = list(simulate_fixed_point(tmp_path / "small.net", inputs, steps=6 + len(dense) + 1))
    for number, (layer, sent) in enumerate(zip(ours, zip(*steps, strict=True), strict=True)):
        assert np.array_equal(layer[0].numpy(), [message.transpose() for message in sent[number : number + 6]]), number


def test_where_two_runs_part():
    one = [torch.zeros(1, 5, 3, 2, 2), *(torch.zeros(1, 5, 4) for _ in range(8))]
    other = [messages.clone() for messages in one]
    assert first_difference(one, other) is None
    other[3][0, 4, 0] = 1
    other[8][0, 2, 1] = 1
    assert first_difference(one, other) == "frame 2 of the stretch, layer-8"


def test_agreement_by_hand():
    labels, floating, is_start = np.zeros(2), np.array([0.1, 0.0]), np.array([True, False])
    compared = agreement(labels, floating, np.array([0.1, 0.3]), is_start)
    assert compared["float_mse"] == pytest.approx(0.005)
    assert compared["fixed_point_mse"] == pytest.approx(0.05)
    assert compared["mse_ratio"] == pytest.approx(10)
    assert compared["max_abs_difference"] == pytest.approx(np.degrees(0.3))
    assert compared["rms_difference_degrees"] == pytest.approx(np.degrees(0.3) / np.sqrt(2))
    assert np.isnan(agreement(labels, labels, floating, is_start)["mse_ratio"])  # nothing is a multiple of no error


@pytest.mark.parametrize("start", [start_state, zero_state])
def test_a_stream_cut_anywhere_is_the_stream_whole(exported, videos, start):
    network, frames = read_network(exported), videos.flatten(0, 1).numpy()
    angles, events = stream_angles(network, [frames], start)
    for cuts in ([1], [5, 6, 13], range(1, 18)):
        parts, counted = stream_angles(network, np.split(frames, cuts), start)
        assert np.array_equal(parts, angles) and np.array_equal(counted, events)
    whole, _ = run(network, encode(frames[None]), start(network, 1))
    assert np.array_equal(angles, whole[-1].flatten().numpy() / ONE)
    assert events.tolist() == torch.stack([(sent[0] != 0).flatten(1).sum(1) for sent in whole[:-1]], -1).tolist()


@pytest.mark.parametrize("content", [None, b"not a network"])
def test_missing_or_foreign_file(tmp_path, content):
    if content:
        (tmp_path / "network.net").write_bytes(content)
    with pytest.raises(UserError, match=r"network\.net is (damaged|not in this clone)"):
        read_network(tmp_path / "network.net")


def test_other_networks_are_refused(tmp_path):
    with h5py.File(tmp_path / "network.net", "w") as file:
        file["layer/0/type"] = np.array([b"pool"])
        file["layer/0/neuron/type"] = "SDNN"
    with pytest.raises(UserError, match="expected an input, conv or dense layer"):
        read_network(tmp_path / "network.net")


def test_weights_beyond_eight_bits_are_refused(tmp_path):
    weights = [even(-8, 8, 3, 2, 3, 3), even(-8, 8, 5, 48), np.full((2, 5), 256)]
    write_small_network(tmp_path / "small.net", weights, bias=0)
    with pytest.raises(UserError, match="layer/4: expected weights from -256 to 254, found 256 to 256"):
        read_network(tmp_path / "small.net")
