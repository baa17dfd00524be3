"""Counts against a count by hand: every event walked to every synapse it has."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import tutorial

from pilotnet_sdnn.measure.activity import Activity, EventCounter
from pilotnet_sdnn.measure.operations import Energy, energies, exact_operations, published_operations
from pilotnet_sdnn.measure.tables import operations_report
from pilotnet_sdnn.sdnn.geometry import fan_out, layer_geometries
from pilotnet_sdnn.sdnn.network import Network, normalise

KERNEL = 3
# stride and padding (height, width) of layer-1 to layer-4 in the tutorial's text
CONVOLUTIONS = [((2, 2), (0, 0)), ((2, 2), (0, 0)), ((2, 1), (1, 0)), ((1, 1), (0, 0))]
DENSE = [100, 50, 10, 1]
ENERGY = Energy(mac=4.6, add=0.9)
EVENTS = ("events", "events_p95", "events_worst", "events_first")
SYNOPS = ("synops", "synops_p95", "synops_worst", "synops_first")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(3)
    return Network().eval()


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    """(1, 3, 33, 100, 3) uint8."""
    return torch.randint(0, 256, (1, 3, 33, 100, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def synapses_reached(y: int, x: int, size, out_size, stride, padding, channels: int) -> int:
    """Walk over all outputs and count those whose kernel covers the input (y, x)."""
    covering = 0
    for oy in range(out_size[0]):
        for ox in range(out_size[1]):
            top, left = oy * stride[0] - padding[0], ox * stride[1] - padding[1]
            covering += top <= y < top + KERNEL and left <= x < left + KERNEL
    return covering * channels


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_fan_out_of_a_convolution_by_hand(network, layer):
    source, target = layer_geometries(network)[layer - 1 : layer + 1]
    stride, padding = CONVOLUTIONS[layer - 1]
    _, height, width = source.shape
    counted = [
        [
            synapses_reached(y, x, (height, width), target.shape[1:], stride, padding, target.shape[0])
            for x in range(width)
        ]
        for y in range(height)
    ]
    expected = torch.tensor(counted, dtype=torch.float32).expand(source.shape)
    assert torch.equal(fan_out(source, target), expected)


@pytest.mark.parametrize("layer", [5, 6, 7, 8])
def test_fan_out_of_a_dense_layer_is_all_its_neurons(network, layer):
    source, target = layer_geometries(network)[layer - 1 : layer + 1]
    assert torch.equal(fan_out(source, target), torch.full(source.shape, float(DENSE[layer - 5])))


def test_synops_by_brute_force(network, video):
    """A synaptic operation is a non-zero event times a weight: count them in an im2col of ones and zeros."""
    activity = EventCounter(network, "torch").sequences(video.numpy())
    with torch.no_grad():
        *messages, _ = network.messages(normalise(video))
    for layer, (stride, padding) in enumerate(CONVOLUTIONS, 1):
        channels = layer_geometries(network)[layer].shape[0]
        for t in range(3):
            events = (messages[layer - 1][..., t] != 0).float()
            columns = torch.nn.functional.unfold(events, KERNEL, padding=padding, stride=stride)
            assert activity.synops[t, layer - 1] == columns.count_nonzero() * channels
    for layer in range(5, 9):
        for t in range(3):
            events = int((messages[layer - 1][..., t] != 0).sum())
            assert activity.synops[t, layer - 1] == events * DENSE[layer - 5]


def test_events_of_either_sign_and_positive_ones(network, video):
    activity = EventCounter(network, "torch").sequences(video.numpy())
    with torch.no_grad():
        messages = list(network.messages(normalise(video)))
    for layer, message in enumerate(messages):
        by_frame = message.flatten(1, -2).transpose(1, 2)[0].tolist()
        assert activity.positive[:, layer].tolist() == [sum(v > 0 for v in frame) for frame in by_frame]
        if layer < 8:
            assert activity.events[:, layer].tolist() == [sum(v != 0 for v in frame) for frame in by_frame]


def test_published_counts_are_the_tutorials(network, video):
    theirs = tutorial.Network()
    theirs(normalise(video))
    theirs.load_state_dict(network.state_dict())
    _, _, counts = theirs.eval()(normalise(video))
    counted = EventCounter(network, "torch").sequences(video.numpy())
    assert counted.positive[~counted.is_start].sum(0).tolist() == counts.tolist()


@pytest.mark.parametrize("kernel", ["native", "torch"])
def test_a_stream_in_chunks_counts_what_lava_dls_blocks_send_in_one_long_sequence(network, kernel):
    generator = torch.Generator().manual_seed(1)
    walk = torch.randint(-9, 10, (21, 33, 100, 3), generator=generator).cumsum(0) + 128
    frames = walk.clamp(0, 255).to(torch.uint8)
    with torch.no_grad():
        *messages, angles = network.messages(normalise(frames[None]))
    counted = EventCounter(network, kernel).stream(part.numpy() for part in frames.split([3, 1, 10, 7]))
    assert torch.equal(torch.from_numpy(counted.angles), angles.flatten())
    sent = [(message[0] != 0).flatten(0, -2).T for message in messages]
    assert counted.events.tolist() == torch.stack([s.sum(1) for s in sent], -1).tolist()
    fans = [fan_out(*pair).flatten() for pair in pairwise(layer_geometries(network))]
    synops = torch.stack([s.float() @ f for s, f in zip(sent, fans, strict=True)], -1)
    assert counted.synops.tolist() == synops.tolist()
    assert counted.is_start.tolist() == [True] + [False] * 20


def activity_of(events, positive, synops) -> Activity:
    """Two sequences with the same counts in every frame but the first, for which there is a large one."""
    frames = [np.tile(np.array(counts, float), (6, 1)) for counts in (events, positive, synops)]
    is_start = np.array([True, False, False] * 2)
    for counts in frames:
        counts[is_start] = 10_000
    return Activity(np.zeros(6), *frames, is_start)


def test_dense_network_has_the_published_and_the_exact_totals(network):
    activity = activity_of([0] * 8, [0] * 9, [0] * 8)
    geometry = layer_geometries(network)
    published = published_operations(geometry, activity, ENERGY)
    exact = exact_operations(geometry, activity, ENERGY, starts_count=False)
    assert (published["macs_per_frame"], published["neurons"]) == (7_306_062, 43_117)
    assert (exact["macs_per_frame"], exact["neurons"]) == (5_375_238, 43_117)
    assert exact["synops_sparsity"] == float("inf")


def test_exact_macs_by_counting_the_products_of_an_ordinary_network(network):
    """Run a plain torch network of the shape in the tutorial's text and count outputs x products each."""
    macs, x = [], torch.zeros(1, 3, 33, 100)
    for channels, (stride, padding) in zip((24, 36, 64, 64), CONVOLUTIONS, strict=True):
        inputs = x.shape[1]
        x = torch.nn.Conv2d(inputs, channels, KERNEL, stride, padding)(x)
        macs.append(x.numel() * inputs * KERNEL * KERNEL)
    for inputs, outputs in zip((x.numel(), 100, 50, 10), DENSE, strict=True):
        macs.append(inputs * outputs)
    assert [layer.macs for layer in layer_geometries(network)[1:]] == macs


def test_the_tutorials_table_from_the_tutorials_events(network):
    """Its printed events give its printed synops and sparsities."""
    events = [2475.93, 239.46, 422.39, 558.71, 29.90, 4.80, 1.35, 0.16, 0.44]
    published = published_operations(layer_geometries(network), activity_of([0] * 8, events, [0] * 8), ENERGY)
    synops = [published["layers"][f"layer-{i}"]["synops"] for i in range(1, 9)]
    printed = [133700.12, 19395.86, 121649.28, 321818.47, 2989.97, 240.00, 13.46, 0.16]
    np.testing.assert_allclose(synops[:4], printed[:4], rtol=1e-4)  # of events printed to two decimals
    np.testing.assert_allclose(synops[4:], printed[4:], rtol=3e-2, atol=3e-2)
    assert round(published["events_sparsity"], 2) == 11.55
    assert round(published["synops_sparsity"], 2) == 12.18


def test_report_fits_a_terminal_and_holds_both_ways_of_counting(network):
    activity = activity_of([1] * 8, [1] * 9, [1] * 8)
    geometry = layer_geometries(network)
    exact, published = (count(geometry, activity, ENERGY) for count in (exact_operations, published_operations))
    report = operations_report(geometry, exact, exact, published, "# Operations: test")
    assert max(map(len, report.splitlines())) <= 80
    assert "| layer-1 | ( 49, 16, 24) |" in report
    assert "5375238" in report and "7306062" in report
    assert "Synops p95" in report and "microjoules a frame" in report


def test_a_running_camera_counts_its_start_and_the_restarted_protocol_does_not(network):
    activity = activity_of([0, 7] + [0] * 6, [0] * 9, [0, 70] + [0] * 6)
    geometry = layer_geometries(network)
    running = exact_operations(geometry, activity, ENERGY)["layers"]
    restarted = exact_operations(geometry, activity, ENERGY, starts_count=False)["layers"]
    assert running["layer-1"]["events"] == (10_000 + 7 + 7) / 3 and restarted["layer-1"]["events"] == 7
    assert running["layer-2"]["synops_worst"] == 10_000 and restarted["layer-2"]["synops_worst"] == 70
    assert running["layer-2"]["synops_first"] == restarted["layer-2"]["synops_first"] == 10_000


def test_percentile_worst_and_first_frame_by_hand(network):
    """Of 21 sequences of two frames: layer-1 sends 0, 1, ... 20 events in the second ones, 500 in the first."""
    is_start = np.array([True, False] * 21)
    activity = Activity(np.zeros(42), *(np.zeros((42, layers), int) for layers in (8, 9, 8)), is_start)
    for counts in (activity.events, activity.positive):
        counts[::2, 1], counts[1::2, 1] = 500, np.arange(21)
    activity.synops[::2, 1], activity.synops[1::2, 1] = 5000, 10 * np.arange(21)
    geometry = layer_geometries(network)
    exact = exact_operations(geometry, activity, ENERGY, starts_count=False)
    published = published_operations(geometry, activity, ENERGY)
    for comparison in (exact, published):
        sent = {name: comparison["layers"]["layer-1"][name] for name in EVENTS}
        assert sent == dict(zip(EVENTS, (10, 19, 20, 500), strict=True))
        assert {name: comparison["total"][name] for name in EVENTS} == sent
    assert [exact["layers"]["layer-2"][name] for name in SYNOPS] == [100, 190, 200, 5000]
    fan_out = 36 * 9 / 4  # channels * kernel / stride, as published
    assert [published["total"][name] for name in SYNOPS] == [count * fan_out for count in (10, 19, 20, 500)]


def test_energy_by_hand():
    """1,000 synops of 5 pJ and 4 additions of 0.5 pJ in each of 100 neurons, against 20,000 MACs."""
    synops = {"synops": 1000.0, "synops_worst": 2000.0, "synops_first": 4000.0}
    estimated = energies(synops, neurons=100, macs=20_000, energy=Energy(mac=5.0, add=0.5))
    expected = {"sdnn": 0.0052, "sdnn_worst": 0.0102, "sdnn_first": 0.0202, "ann": 0.1, "ratio": 0.1 / 0.0052}
    assert estimated == pytest.approx(expected)
