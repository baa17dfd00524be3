"""A training run step by step, in one process."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import drifting_noise
from drives import one_drive

from pilotnet_sdnn.dataset.batches import Batch, Batches
from pilotnet_sdnn.dataset.road import CHUNK, Dataset
from pilotnet_sdnn.dataset.split import Split, Stretch
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, normalise
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.training import (
    Statistics,
    Training,
    learning_rate,
    measure_batches,
    measure_streams,
    train_epoch,
)


@pytest.fixture
def drive() -> tuple[np.ndarray, np.ndarray]:
    """(6, 4, 33, 100, 3) uint8 videos of noise that drifts, and (6, 4) angles that its brightness tells."""
    random = np.random.default_rng(0)
    videos = random.integers(0, 180, (6, 1, 33, 100, 3)) + random.integers(0, 15, (6, 4, 33, 100, 3)).cumsum(1)
    return videos.astype(np.uint8), videos.mean((2, 3, 4), dtype=np.float32) / 100 - 1


def start() -> Training:
    torch.manual_seed(0)
    network = Network()
    return Training(network, FlatRAdam(network.trainable_parameters(), lr=0.01, weight_decay=1e-5))


def forward(training: Training) -> Callable[[Batch], NetworkOutput]:
    """lava-dl's own blocks, by way of the network."""
    return lambda batch: training.network(normalise(batch.frames))


def train(training: Training, drive, order: range, lam: float = 0.01) -> None:
    data = Batches(*drive, np.array(order), 2, torch.device("cpu"))
    train_epoch(training, data, forward(training), lambda rates: lam * event_rate_loss(rates, 0.01), lambda _: None)


def test_learning_rate_falls_as_the_tutorials():
    rate, published = 0.001, []
    for epoch in range(200):
        if epoch in (60, 120, 160):
            rate /= 10 / 3
        published.append(rate)
    assert [learning_rate(0.001, epoch, 200) for epoch in range(200)] == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_short_runs_start_with_the_full_learning_rate(epochs):
    assert learning_rate(0.001, 0, epochs) == 0.001


def test_flat_optimizer_takes_the_same_steps_as_torchs(drive):
    """Bit for bit, before and after RAdam's variance is tractable, from the sixth step on."""
    flat = start()
    for _ in range(4):
        train(flat, drive, range(6))
    torchs = start()
    torchs.optimizer = torch.optim.RAdam(torchs.network.parameters(), lr=0.01, weight_decay=1e-5)
    for _ in range(4):
        train(torchs, drive, range(6))
    for name, tensor in torchs.network.state_dict().items():
        assert torch.equal(flat.network.state_dict()[name], tensor), name


def train_on_streams(training: Training, drive, steps: range) -> None:
    """Two lanes of three sequences."""
    order, streams = np.array([0, 3, 1, 4, 2, 5]), np.array([0, 3, 0, 3, 0, 3])
    data = Batches(*drive, order[: 2 * steps.stop], 2, torch.device("cpu"), streams=streams).after(steps.start)

    def forward(batch: Batch) -> NetworkOutput:
        before = kernels.continued(training.network, training.lanes, batch.continues)
        output, _, training.lanes = kernels.stream(training.network, batch.frames, "torch", before)
        return output

    train_epoch(training, data, forward, lambda rates: 0.01 * event_rate_loss(rates, 0.01), lambda _: None)


def test_restored_between_two_steps_it_trains_to_the_same_bits(drive, tmp_path):
    """In the middle of streams, with the dropout that they began with."""
    through = start()
    train_on_streams(through, drive, range(3))

    stopped = start()
    train_on_streams(stopped, drive, range(1))
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    restored = start()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train_on_streams(restored, drive, range(1, 3))

    assert restored.statistics == through.statistics
    assert restored.gradients == through.gradients
    for name, tensor in through.network.state_dict().items():
        assert torch.equal(restored.network.state_dict()[name], tensor), name


def test_statistics_weigh_the_frames_of_a_short_batch_like_the_others():
    statistics = Statistics()
    statistics.add(1.0, NetworkOutput(torch.zeros(3, 4), torch.zeros(9), torch.full((8,), 9)))
    statistics.add(5.0, NetworkOutput(torch.zeros(1, 4), torch.zeros(9), torch.full((8,), 3)))
    assert statistics.mse == (3 * 1.0 + 1 * 5.0) / 4
    assert statistics.events_per_frame == (8 * 9 + 8 * 3) / (3 * 3 + 1 * 3)


@pytest.mark.parametrize(("keep_best", "epoch"), [(True, 1), (False, 2)])
def test_kept_weights_are_those_of_the_best_epoch_or_the_last(drive, keep_best, epoch):
    training = start()
    kept = []
    for mse in (3.0, 1.0, 2.0):
        train(training, drive, range(4))
        kept.append(copy.deepcopy(training.network.state_dict()))
        training.end_epoch(0.01, Statistics(squared_error=mse, frames=1, event_frames=1), keep_best)
    assert training.kept_mse == (3.0, 1.0, 2.0)[epoch]
    equal = [all(torch.equal(training.kept_weights[name], tensor) for name, tensor in k.items()) for k in kept]
    assert equal == [number == epoch for number in range(3)]


def test_streams_are_measured_from_one_start_with_every_frame_counted():
    """Against lava-dl's own blocks on the whole stretch at once; it is longer than what is computed at a time."""
    road = drifting_noise(sequences=1, frames=CHUNK + 16)[0]
    stretch, angles = Stretch(3, 3 + CHUNK + 10), np.linspace(-1, 1, CHUNK + 16, dtype=np.float32)
    network = start().network.eval()
    dataset = Dataset(one_drive(angles, road.numpy()), angles, Split([], [stretch]))
    measured = measure_streams(network, "torch", dataset, torch.device("cpu"))

    with torch.no_grad():
        *messages, predicted = network.messages(normalise(road[None, stretch.start : stretch.stop]))
    assert measured.events == sum(int(message.count_nonzero()) for message in messages)
    assert measured.frames == measured.event_frames == CHUNK + 10
    error = predicted.flatten().numpy() - angles[stretch.start : stretch.stop]
    assert measured.mse == pytest.approx(np.mean(error**2), rel=1e-5)


def test_layers_without_a_threshold_send_every_change_and_learn_none(drive):
    torch.manual_seed(0)
    network = Network(threshold=[0.1, 0.2, 0.3, 0.4, 0.5], dense_threshold=0)
    training = Training(network, FlatRAdam(network.trainable_parameters(), lr=0.01, weight_decay=0.1))
    before = network.thresholds.detach().clone()
    assert before.tolist() == [*(steps / 64 for steps in (6, 12, 19, 25, 32)), 2**-12, 2**-12, 2**-12]
    train(training, drive, range(6))
    assert ((network.thresholds != before).tolist()) == [True] * 5 + [False] * 3


def test_training_starts_from_pretrained_weights_with_thresholds_of_its_own(drive):
    """Batch-norm means stay those of the pretraining. Much weight decay has made v short, which a start undoes."""
    pretrained = Network(threshold=0, dense_threshold=0)
    optimizer = FlatRAdam(pretrained.trainable_parameters(), lr=0.01, weight_decay=0)
    train(Training(pretrained, optimizer), drive, range(6))
    for block in pretrained.layers[1:]:
        block.synapse.weight_v.data.mul_(0.02)
    network = Network()
    network.start_from(pretrained.state_dict())
    started = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train(Training(network, FlatRAdam(network.trainable_parameters(), lr=0.01, weight_decay=0)), drive, range(6))
    for name, tensor in pretrained.state_dict().items():
        if "weight_v" not in name and "threshold" not in name:
            assert torch.equal(started[name], tensor), name
        if name.endswith("running_mean"):
            assert torch.equal(network.state_dict()[name], tensor), name
        if name.endswith("weight_v"):
            short, length = tensor.flatten(1), started[name].flatten(1).norm(dim=1)
            torch.testing.assert_close(length, pretrained.state_dict()[name.replace("_v", "_g")].flatten().abs())
            direction = short / short.norm(dim=1, keepdim=True)
            torch.testing.assert_close(started[name].flatten(1), direction * length[:, None])
    assert pretrained.state_dict()["blocks.1.neuron.norm.running_mean"].all()  # they had moved
    assert [started[name].item() for name in started if "threshold" in name][:8] == [6 / 64] * 8


def test_larger_lam_makes_fewer_events(drive):
    events = {}
    for lam in (0.0, 100.0):
        training = start()
        for _ in range(6):
            train(training, drive, range(6), lam)
        data = Batches(*drive, np.arange(6), 6, torch.device("cpu"))
        events[lam] = measure_batches(training.network, forward(training), data).events_per_frame
    assert events[100.0] < 0.9 * events[0.0]


def test_loss_that_is_no_number_stops_with_epoch_and_step(drive):
    training = start()
    train(training, drive, range(2))
    with pytest.raises(UserError, match="the loss is nan at epoch 1, step 2"):
        train(training, (drive[0], np.full_like(drive[1], np.nan)), range(2))
