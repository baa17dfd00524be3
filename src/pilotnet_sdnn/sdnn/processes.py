"""One training over several processes: each computes its sequences of every batch, and all take the same steps.

They compute what one process does with the whole batch, up to the rounding of gradients: sums over the batch are sums
over all processes, forward and backward. The parameter `processes` starts them on this machine, torchrun on several.
Process 0 writes, prints and shows progress.
"""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import active_children
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from pilotnet_sdnn.errors import PROBLEM_LENGTH, UserError, exit_on_error, one_line, shortened
from pilotnet_sdnn.interrupts import interrupts_handled

PATIENCE = timedelta(minutes=10)  # with a process that does not appear or answer
GRACE = 20  # seconds for the other processes to end by themselves, and for process 0 to save, once one has ended
LOSS_SECONDS = 1  # between the end of a process and that of those that miss it, so that its reason is the one told
STORE = "SDNN_PROCESSES_STORE"  # where the processes of one machine meet: a file, so that nothing listens
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

Content = TypeVar("Content")


def started(processes: int, main: Callable[[], None]) -> bool:
    """Run a stage in so many processes and wait for them, or be one of them.

    Args:
        processes: the parameter; 1 starts none.
        main: the stage, which calls this before it uses a device.

    Returns:
        Whether they have done the stage's work. If not, it is for this process to do.

    Raises:
        UserError: one of them was killed.
        SystemExit: one of them failed; with its message.
    """
    if "WORLD_SIZE" in os.environ:
        _join(processes)
        return False
    if processes > 1:
        _start(processes, main)
    return processes > 1


def rank() -> int:
    """The number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def part() -> slice:
    """The sequences of a batch, lanes and stretches of road that this process has: every n-th, of n processes."""
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
    """Replace each gradient by its mean over the processes.

    All n processes compute the same loss, and `totals` hand on the gradients of all of them. So what a process has is
    the gradient of n times the loss, through its own sequences.
    """
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


@contextmanager
def _contact() -> Iterator[None]:
    """Report the loss of another process, a little later than whoever started both sees its end."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(LOSS_SECONDS)
        raise UserError(
            f"process {rank()} of the training lost another one ({_short(error)}); the same command resumes from "
            "the last checkpoint"
        ) from None


def _short(error: Exception) -> str:
    return shortened(one_line(error), PROBLEM_LENGTH)


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
            f"process {number} of the training did not find all {size} within {PATIENCE.seconds} s: {_short(error)}"
        ) from None
    if number:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        logging.disable(logging.WARNING)


def _start(processes: int, main: Callable[[], None]) -> None:
    """Run `main` in processes of this machine. Forks have all imports done, but cannot use GPUs."""
    logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # our line says it
    method = "fork" if sys.platform == "linux" and not torch.cuda.is_available() else "spawn"

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in active_children():
            os.kill(int(process.pid), number)  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory(prefix="sdnn-processes-") as name, interrupts_handled(pass_on):
        folder = Path(name)
        context = start_processes(_run, (processes, folder, main), processes, join=False, start_method=method)
        try:
            while not context.join(grace_period=GRACE):
                pass
        except ProcessExitedException as end:
            _report(end, folder)


def _run(number: int, processes: int, folder: Path, main: Callable[[], None]) -> None:
    """Be one of the processes. Instead of printing an error, leave it to the process that started this one."""
    os.setsid()  # Ctrl-C reaches that process alone, which passes it on
    interface = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), LOOPBACK)
    ranks = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(processes)}
    os.environ.update({**interface, **ranks, STORE: f"file://{folder}/store"})
    try:
        with exit_on_error():
            main()
    except SystemExit as end:
        (folder / f"{number}.error").write_text(str(end.code))
        sys.exit(1)


def _report(end: ProcessExitedException, folder: Path) -> None:
    """End the stage with the message of the process that ended first, or with the signal that killed it."""
    message = folder / f"{end.error_index}.error"
    if message.exists():
        sys.exit(message.read_text())
    raise UserError(
        f"process {end.error_index} of the training was ended by {end.signal_name or f'exit code {end.exit_code}'}, so "
        "the other ones were, too; the same command resumes from the last checkpoint"
    )
