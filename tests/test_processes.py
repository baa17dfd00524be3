"""One training over several processes: what one process does with the whole batch."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from clone import Clone, clone_of_working_tree, wait_for
from conftest import drifting_noise
from ranks import in_processes

from pilotnet_sdnn.dataset.augmentation import Augmentation
from pilotnet_sdnn.dataset.batches import Batches, following, training_batches
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn import kernels, processes
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, normalise
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.statistics import Statistics
from pilotnet_sdnn.sdnn.training import StateSaver, Training, train_epoch
from pilotnet_sdnn.stages import train

TRAIN = (sys.executable, "-m", "pilotnet_sdnn.stages.train")
LENGTH = 4


def recipe(kind: str) -> tuple[Network, Batches, partial]:
    """A network, ten augmented sequences in lanes of three, the last batch short, and the network's output for one."""
    frames = drifting_noise(10, LENGTH).numpy()
    angles = frames.mean((2, 3, 4), dtype=np.float32) / 100 - 1
    in_order = Batches(frames, angles, np.arange(10), 3, torch.device("cpu"))
    follows = following(np.arange(10) * LENGTH, LENGTH, np.zeros(10 * LENGTH))
    data = training_batches(in_order, follows, 3, Augmentation(0.5, 0.1, 0.3, 8, 1), seed=0, epoch=0)
    torch.manual_seed(0)
    network = Network(dropout=0.3, corrected=True)
    return network, replace(data, part=processes.part()), partial(forward, network, kind)


def forward(network: Network, kind: str, training: Training, batch) -> NetworkOutput:
    before = kernels.continued(network, training.lanes, batch.continues, batch.sequences)
    output, _, training.lanes = kernels.stream(network, batch.frames, kind, before, batch.sequences)
    return output


def penalty(rates: torch.Tensor) -> torch.Tensor:
    """It is no linear function of the rates, so the mean of the processes' penalties is not that of the batch."""
    return 0.5 * event_rate_loss(rates, 0.001)


def epoch(kind: str, lr: float) -> tuple[list[Statistics], list[dict], dict]:
    """Statistics and gradients after each step, and the weights after the last."""
    network, data, output = recipe(kind)
    training = Training(network, FlatRAdam(network.trainable_parameters(), lr=lr, weight_decay=0))
    statistics, gradients = [], []

    def on_step(so_far: Statistics) -> None:
        statistics.append(replace(so_far))
        named = network.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    train_epoch(training, data, partial(output, training), penalty, on_step)
    return statistics, gradients, network.state_dict()


@pytest.fixture(scope="module", params=["native", "torch"])
def kind(request) -> str:
    if request.param == "native":
        kernels.choose("native", torch.device("cpu"))  # it compiles here, not in all processes
    return request.param


@pytest.mark.parametrize("count", [2, 3])
def test_an_epoch_over_several_processes_is_that_of_one(kind, count):
    """With augmentation, dropout and carried state. In the last of the four steps, one sequence is left for all.

    Forward, sums are exact: losses and events are the same bits until weights differ in theirs.
    """
    ((statistics, gradients, _),) = in_processes(1, epoch, kind, 1e-4)
    shared = in_processes(count, epoch, kind, 1e-4)
    for of_process in shared:
        assert [(s.frames, s.events, s.event_frames) for s in of_process[0]] == [
            (s.frames, s.events, s.event_frames) for s in statistics
        ]
        assert [s.squared_error for s in of_process[0]] == pytest.approx([s.squared_error for s in statistics], 1e-6)
    for own, whole in zip(shared[0][1], gradients, strict=True):
        assert own.keys() == whole.keys()
        for name, gradient in whole.items():
            assert (own[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name
    for other in shared[1:]:  # all processes have the same weights, to the bit
        assert all(torch.equal(tensor, shared[0][2][name]) for name, tensor in other[2].items())


def test_an_epoch_over_two_processes_is_repeated_to_the_bit():
    kernels.choose("native", torch.device("cpu"))
    first, second = (in_processes(2, epoch, "native", 0.01)[0] for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(tensor, second[2][name]) for name, tensor in first[2].items())


def gradients_of(kind: str, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """With batch-norm means over the sequences of all processes."""
    torch.manual_seed(0)
    network = Network(dropout=0)
    output = kernels.run(network, frames[processes.part()], kind, len(frames))
    error, rates = processes.totals((output.angles**2).sum() / frames[..., 0, 0, 0].numel(), output.rates)
    (error + penalty(rates)).backward()
    processes.average_gradients(network.parameters())
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_gradients_through_batch_norm_means_are_those_of_lava_dl(kind):
    """Against autograd through lava-dl's own blocks on the whole batch, which is not split evenly."""
    frames = drifting_noise(3, 6)
    torch.manual_seed(0)
    stock = Network(dropout=0)
    output = stock(normalise(frames))
    (F.mse_loss(output.angles, torch.zeros(3, 6)) + penalty(output.rates)).backward()
    shared = in_processes(2, gradients_of, kind, frames)[0]
    for name, parameter in stock.named_parameters():
        if parameter.grad is not None and name in shared:
            assert (shared[name] - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-9, name


def total_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
    own = torch.tensor([1.0, 10.0]) * (processes.rank() + 1)
    own.requires_grad_()
    (total,) = processes.totals(own)
    ((processes.rank() + 1) * total**2).sum().backward()
    return total.detach(), own.grad


def test_what_each_process_makes_of_a_total_reaches_all_gradients():
    """1 + 2 and 10 + 20; the losses x^2 and 2 x^2 of the two processes have the slopes 2 x and 4 x."""
    for total, gradient in in_processes(2, total_and_gradient):
        assert total.tolist() == [3, 30]
        assert gradient.tolist() == [6 * 3, 6 * 30]


def saved_lanes() -> tuple:
    state = [kernels.LayerState(*(torch.arange(7.0)[processes.part()] + 10 * n for n in range(3)), gain=None)]
    saved = kernels.all_lanes(state)
    return saved, [tuple(layer) for layer in kernels.own_lanes(saved)], [tuple(layer) for layer in state]


@pytest.mark.parametrize("count", [1, 3])
def test_lanes_are_saved_in_their_order_whatever_the_number_of_processes(count):
    for saved, restored, own in in_processes(count, saved_lanes):
        assert [memory.tolist() for memory in saved[0][:3]] == [[lane + 10 * n for lane in range(7)] for n in range(3)]
        assert all(torch.equal(a, b) for a, b in zip(restored[0][:3], own[0][:3], strict=True))


def silent_second_process() -> str:
    if processes.rank():
        time.sleep(4)
        return ""
    with pytest.raises(UserError) as problem:
        processes.anywhere(True)
    return str(problem.value)


def test_a_process_that_no_longer_answers_is_one_line():
    said, _ = in_processes(2, silent_second_process, patience=timedelta(seconds=1))
    assert said.startswith("process 0 of the training lost another one (") and "resumes" in said and "\n" not in said


def test_a_process_that_never_appears_is_one_line(monkeypatch, tmp_path):
    store = f"file://{tmp_path}/store"
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", processes.STORE: store}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=1))
    with pytest.raises(UserError, match=r"process 0 of the training did not find all 2 within 1 s: "):
        processes.started(2, main=lambda: None)


def test_another_number_of_processes_than_the_parameter_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"params.yaml: processes: expected 4, as many as were started, found 2"):
        processes.started(2, main=lambda: None)


@pytest.fixture
def clone(tiny_pipelines, tmp_path) -> Clone:
    """The tiny pipeline before its training, which now takes two processes."""
    clone = Clone(tiny_pipelines / "untrained").copy(tmp_path / "clone")
    clone.set(processes=2)
    return clone


def outputs(clone: Clone) -> list[bytes]:
    return [(clone.path / name).read_bytes() for name in ("models/trained.pt", "models/training.csv")]


def helpers(process: subprocess.Popen) -> list[psutil.Process]:
    """The two processes that a stage has started."""
    return sorted(psutil.Process(process.pid).children(), key=lambda child: child.pid)


def ended(process: subprocess.Popen, others: list[psutil.Process], seconds: float) -> list[str]:
    """The lines, progress left out, that a failed stage has printed, after it and its processes have ended in time."""
    printed, _ = process.communicate(timeout=seconds)
    assert process.returncode == 1
    assert psutil.wait_procs(others, timeout=1)[1] == []
    return [line for line in printed.splitlines() if not line.startswith(("train: ", "epoch "))]


@pytest.fixture(scope="module")
def undisturbed(tiny_pipelines, tmp_path_factory) -> Clone:
    """Pretraining and training over two processes by DVC."""
    clone = Clone(tiny_pipelines / "untrained").copy(tmp_path_factory.mktemp("undisturbed") / "clone")
    clone.set(processes=2)
    clone.run("dvc", "repro", "train")
    return clone


def start_as(undisturbed: Clone, clone: Clone) -> None:
    """Start the training from the same pretrained weights."""
    shutil.copy(undisturbed.path / "models/pretrained.pt", clone.path / "models")


def test_repro_over_two_processes_ends_near_that_over_one(tiny_pipeline, undisturbed):
    pretrained, pretrained_by_one = (
        torch.load(c.path / "models/pretrained.pt", weights_only=True) for c in (undisturbed, tiny_pipeline)
    )
    for name, tensor in pretrained_by_one.items():
        torch.testing.assert_close(pretrained[name], tensor, rtol=1e-4, atol=1e-5)
    log, log_of_one = (
        np.loadtxt(c.path / "models/training.csv", delimiter=",", skiprows=1) for c in (undisturbed, tiny_pipeline)
    )
    assert len(log) == len(log_of_one)
    np.testing.assert_allclose(log[0, :6], log_of_one[0, :6], rtol=1e-3)
    assert [path.suffix for path in (undisturbed.path / "models/checkpoints").iterdir()] == [".finished"] * 2


def test_a_killed_process_ends_all_in_one_line_and_the_same_command_resumes(clone, undisturbed):
    """The state has the lanes of both processes: it is saved after nearly every step. It ends with the same bits."""
    start_as(undisturbed, clone)
    process = clone.start(*TRAIN)
    wait_for(process, "epoch   3")
    others = helpers(process)
    others[1].kill()
    (line,) = ended(process, others, seconds=10)
    assert line == (
        "error: process 1 of the training was ended by SIGKILL, so the other ones were, too; the same command resumes "
        "from the last checkpoint"
    )
    assert "resuming at epoch" in clone.run(*TRAIN)
    assert outputs(clone) == outputs(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_the_stage_stops_all_processes_after_a_step(clone, number):
    process = clone.start(*TRAIN)
    wait_for(process, "epoch   1")
    others = helpers(process)
    process.send_signal(number)
    (line,) = ended(process, others, seconds=10)
    assert line.startswith(f"stopped by {number.name}; the same command resumes from ")


def test_a_second_trainer_is_refused_and_the_end_of_the_first_one_leaves_no_process(clone):
    clone.set(epochs=5000)
    first = clone.start(*TRAIN)
    wait_for(first, "epoch   1")
    others = helpers(first)
    (line,) = [line for line in clone.run(*TRAIN, code=1).splitlines() if line.startswith("error")]
    assert f"process {others[0].pid} is already training this run" in line
    first.kill()
    first.communicate()
    assert psutil.wait_procs(others, timeout=10)[1] == []


def test_an_error_of_all_processes_is_one_line(clone):
    (clone.path / "models/pretrained.pt").unlink()
    (line,) = [line for line in clone.run(*TRAIN, code=1).splitlines() if "error" in line]
    assert line.startswith("error: models/pretrained.pt is not in this clone")


def test_torchrun_trains_to_the_bits_of_the_parameter(clone, undisturbed):
    start_as(undisturbed, clone)
    clone.run("torchrun", "--standalone", "--nproc-per-node", "2", *TRAIN[1:])
    assert outputs(clone) == outputs(undisturbed)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start_two_nodes(clones: list[Clone]) -> list[subprocess.Popen]:
    """Two torchruns with a process each, in two clones."""
    meeting = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", free_port())
    return [clone.start("torchrun", *meeting, "--node-rank", str(n), *TRAIN[1:]) for n, clone in enumerate(clones)]


def on_two_nodes(clones: list[Clone]) -> list[tuple[int, str]]:
    """Exit codes and what is printed by two torchruns with a process each, in two clones."""
    nodes = start_two_nodes(clones)
    printed = [node.communicate()[0] for node in nodes]
    return [(node.returncode, said) for node, said in zip(nodes, printed, strict=True)]


@pytest.mark.slow
def test_two_nodes_train_to_the_bits_of_two_processes_of_one_machine(clone, undisturbed, tmp_path):
    """Each with its own clone and its own data; the first one has the outputs."""
    start_as(undisturbed, clone)
    nodes = [clone, clone.copy(tmp_path / "other")]
    assert [code for code, _ in on_two_nodes(nodes)] == [0, 0]
    assert outputs(nodes[0]) == outputs(undisturbed)
    assert not (nodes[1].path / "models/trained.pt").exists()


@pytest.mark.slow
def test_a_node_with_other_parameters_is_refused(clone, tmp_path):
    nodes = [clone, clone.copy(tmp_path / "other")]
    nodes[1].set(lam=0.5)
    (_, _), (code, printed) = on_two_nodes(nodes)
    assert code == 1
    assert "error: process 1 of the training has other code, data, packages or parameters than process 0" in printed


@pytest.mark.slow
def test_the_loss_of_a_node_ends_the_other_one_in_one_line_of_ours(clone, tmp_path):
    clone.set(epochs=5000)
    first, second = start_two_nodes([clone, clone.copy(tmp_path / "other")])
    wait_for(first, "epoch   1")
    for process in [*psutil.Process(second.pid).children(), second]:
        process.kill()
    printed, _ = first.communicate(timeout=30)
    second.communicate()
    assert first.returncode == 1
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: process 0 of the training lost another one (") and line.endswith("last checkpoint")


class EnoughError(Exception):
    """A training has taken the steps that a test looks at."""


def first_losses(steps: int) -> list[float]:
    """The squared error of each step of stage train, which stops after so many."""
    losses: list[float] = []
    before = Statistics()

    def after_step(self: StateSaver) -> None:
        nonlocal before
        now = replace(self.training.statistics)
        start = before if self.training.step > 1 else Statistics()  # of an epoch
        losses.append((now.squared_error - start.squared_error) / (now.frames - start.frames))
        before = now
        if len(losses) == steps:
            raise EnoughError

    StateSaver.after_step = after_step  # type: ignore[method-assign]
    train.started = lambda *_: False  # type: ignore[attr-defined]
    with contextlib.suppress(EnoughError):
        train.main()
    return losses


@pytest.mark.slow
def test_fifty_steps_of_the_default_training_have_the_losses_of_one_process(tmp_path, monkeypatch):
    clone = clone_of_working_tree(tmp_path / "clone", threads=1)
    clone.run("dvc", "repro", "pretrain")
    monkeypatch.chdir(clone.path)
    (alone,) = in_processes(1, first_losses, 50)
    clone.set(processes=2)
    shared, again = (in_processes(2, first_losses, 50) for _ in range(2))
    assert len(alone) == 50 and shared == again
    np.testing.assert_allclose(shared[0], alone, rtol=0, atol=1e-5)
