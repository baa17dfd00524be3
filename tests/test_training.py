"""A training run step by step, in one process."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pilotnet_sdnn.dataset.batches import Batches
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, normalise
from pilotnet_sdnn.sdnn.training import FlatRAdam, Statistics, Training, learning_rate, measure_epoch, train_epoch


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


def forward(training: Training) -> Callable[[Tensor], NetworkOutput]:
    """lava-dl's own blocks, by way of the network."""
    return lambda frames: training.network(normalise(frames))


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


def test_restored_between_two_steps_it_trains_to_the_same_bits(drive, tmp_path):
    through = start()
    train(through, drive, range(6))

    stopped = start()
    train(stopped, drive, range(2))
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    restored = start()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(restored, drive, range(2, 6))

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


def test_best_weights_are_those_of_the_best_epoch(drive):
    training = start()
    kept = []
    for mse in (3.0, 1.0, 2.0):
        train(training, drive, range(4))
        kept.append(copy.deepcopy(training.network.state_dict()))
        training.end_epoch(0.01, Statistics(squared_error=mse, frames=1, event_frames=1))
    assert training.best_mse == 1.0
    assert all(torch.equal(training.best_weights[name], tensor) for name, tensor in kept[1].items())
    assert not all(torch.equal(training.best_weights[name], tensor) for name, tensor in kept[2].items())


def test_larger_lam_makes_fewer_events(drive):
    events = {}
    for lam in (0.0, 100.0):
        training = start()
        for _ in range(6):
            train(training, drive, range(6), lam)
        data = Batches(*drive, np.arange(6), 6, torch.device("cpu"))
        events[lam] = measure_epoch(training.network, data, forward(training), lambda _: None).events_per_frame
    assert events[100.0] < 0.9 * events[0.0]


def test_loss_that_is_no_number_stops_with_epoch_and_step(drive):
    training = start()
    train(training, drive, range(2))
    with pytest.raises(UserError, match="the loss is nan at epoch 1, step 2"):
        train(training, (drive[0], np.full_like(drive[1], np.nan)), range(2))
