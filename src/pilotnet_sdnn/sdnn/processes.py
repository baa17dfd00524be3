"""One training over several processes: each computes its sequences of every batch, and all take the same steps.

They compute what one process does with the whole batch, up to the rounding of gradients: sums over the batch are sums
over all processes, forward and backward. The parameter `processes` starts them on this machine, torchrun on several.
Process 0 writes, prints and shows progress.
"""

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std, start_processes
from torch.distributed.elastic.multiprocessing.api import RunProcsResult

from pilotnet_sdnn.errors import UserError, one_line
from pilotnet_sdnn.interrupts import interrupts_handled

PATIENCE = timedelta(minutes=10)  # with a process that does not appear or answer
POLL_SECONDS = 0.5  # so long processes that fail together may take to say so
STORE = "SDNN_PROCESSES_STORE"  # where the processes of one machine meet: a file, so that nothing listens
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

Content = TypeVar("Content")


def started(processes: int, module: str) -> bool:
    """Start so many processes of a stage and wait for them, or be one of them.

    Args:
        processes: the parameter; 1 starts none.
        module: the stage, which calls this before it uses a device.

    Returns:
        Whether they have done the stage's work. If not, it is for this process to do.

    Raises:
        UserError: one of them failed and process 0 could not say why.
    """
    if "WORLD_SIZE" in os.environ:
        _join(processes)
        return False
    if processes > 1:
        _start(processes, module)
    return processes > 1


def rank() -> int:
    """The number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def part() -> slice:
    """Which sequences of a batch, which stretches of road and which lanes this process has."""
    return slice(rank(), None, dist.get_world_size()) if dist.is_initialized() else slice(None)


def totals(*parts: Tensor) -> list[Tensor]:
    """The sums of tensors over all processes, differentiable; the same bits in all of them."""
    if not dist.is_initialized():
        return list(parts)
    flat = _Total.apply(torch.cat([tensor.flatten().double() for tensor in parts]))
    sums = flat.split([tensor.numel() for tensor in parts])
    return [total.view_as(tensor).to(tensor.dtype) for total, tensor in zip(sums, parts, strict=True)]


class _Total(torch.autograd.Function):
    """What depends on a sum does so in every process, so its gradient is a sum over processes, too."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor) -> Tensor:
        return _summed(parts.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient.clone())


def _summed(parts: Tensor) -> Tensor:
    """In place, over all processes."""
    with _contact():
        dist.all_reduce(parts)
    return parts


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Each process has the gradients of the losses of all, which are one loss, with respect to its own sequences."""
    if not dist.is_initialized():
        return
    learned = [parameter for parameter in parameters if parameter.grad is not None]
    flat = _summed(torch.cat([parameter.grad.flatten() for parameter in learned]))  # type: ignore[union-attr]
    parts = (flat / dist.get_world_size()).split([parameter.numel() for parameter in learned])
    for parameter, gradient in zip(learned, parts, strict=True):
        parameter.grad = gradient.view_as(parameter)


def anywhere(*questions: bool) -> list[bool]:
    """Which of them are true in any process."""
    (counts,) = totals(torch.tensor(questions, dtype=torch.float64))
    return [count > 0 for count in counts.tolist()]


def from_first(content: Content) -> Content:
    """What process 0 has."""
    if not dist.is_initialized():
        return content
    box = [content]
    with _contact():
        dist.broadcast_object_list(box)
    return box[0]


def joined(own: Content) -> list[Content]:
    """What each process has, in their order."""
    if not dist.is_initialized():
        return [own]
    all_of_them: list[Any] = [None] * dist.get_world_size()
    with _contact():
        dist.all_gather_object(all_of_them, own)
    return all_of_them


def abandoned() -> bool:
    """Whether the process that started this one, and would end it, is gone."""
    return dist.is_initialized() and os.getppid() != _starter


_starter = os.getppid()


@contextmanager
def _contact() -> Iterator[None]:
    """Wait to be ended where another process failed: whoever started both ends all. On other machines, say so."""
    try:
        yield
    except RuntimeError as error:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        time.sleep(4 * POLL_SECONDS)
        raise UserError(
            f"process {rank()} of the training lost another one ({one_line(error)}); the same command resumes from "
            "the last checkpoint"
        ) from None


def _join(processes: int) -> None:
    """Become the process that the environment says."""
    number, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    if size != processes:
        raise UserError(f"params.yaml: processes: expected {size}, as many as were started, found {processes}")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        local, devices = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= devices:
            raise UserError(
                f"params.yaml: processes: expected one for each GPU, found more than {devices} on this machine"
            )
        torch.cuda.set_device(local)
    try:
        meeting = os.environ.get(STORE, "env://")
        dist.init_process_group(backend, meeting, rank=number, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {number} of the training did not find all {size} within {PATIENCE.seconds} s: {one_line(error)}"
        ) from None
    if number:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        logging.disable(logging.WARNING)


def _start(processes: int, module: str) -> None:
    """Run the stage in processes of this machine.

    Process 0 has the terminal. What others say is shown only where process 0 cannot know it.
    """
    logging.disable()  # torch tells what it does
    with tempfile.TemporaryDirectory(prefix="sdnn-processes-") as folder:
        common = {
            "WORLD_SIZE": str(processes),
            STORE: f"file://{folder}/store",
            "GLOO_SOCKET_IFNAME": LOOPBACK,
            "NCCL_SOCKET_IFNAME": LOOPBACK,
        }
        numbers = range(processes)
        context = start_processes(
            "train",
            sys.executable,
            args=dict.fromkeys(numbers, ("-m", module)),
            envs={number: {**common, "RANK": str(number), "LOCAL_RANK": str(number)} for number in numbers},
            logs_specs=DefaultLogsSpecs(folder, redirects=dict.fromkeys(numbers[1:], Std.ALL)),
        )
        stopped = ""
        try:
            result = context.wait(period=POLL_SECONDS)
        except SignalException as signalled:
            stopped = signalled.sigval.name
            with interrupts_handled(lambda *_: None):  # once is enough
                context.close(signalled.sigval)
            result = context.wait(0)
        finally:
            context.close()
        if result and result.is_failed():
            _report(result, stopped)


def _report(result: RunProcsResult, stopped: str) -> None:
    """End the stage, in one line unless process 0 has printed it."""
    said = 0 in result.failures and result.failures[0].exitcode > 0
    if said:
        sys.exit(1)
    if stopped:
        raise KeyboardInterrupt(f"stopped by {stopped}")
    number, failure = next(iter(result.failures.items()))  # the first
    if failure.exitcode < 0:
        raise UserError(
            f"process {number} of the training was ended by {failure.signal_name()}, so the other ones were, too; the "
            "same command resumes from the last checkpoint"
        )
    lines = Path(result.stderrs[number]).read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it did not say why")
    raise UserError(f"process {number} of the training failed: {last.removeprefix('error: ')}")
