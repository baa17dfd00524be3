"""The only door to lava-dl, lava-nc and netx.

Both libraries are archived and were written for Python 3.10. They work on later versions once two import traps are
out of the way. Both traps are in lava-nc, which only netx needs and which takes seconds to import. So `slayer` is
imported here, and `netx` on demand: `from pilotnet_sdnn.sdnn.lava import netx`. `slayer` comes without its object
detection: that would import torchvision and torch's compiler, over a third of the start of every stage.
"""

import contextlib
import dataclasses
import functools
import logging
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.interrupts import interrupts_held

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its CUDA extensions are optional
_object_detection = ModuleType("lava.lib.dl.slayer.object_detection")
sys.modules.setdefault(_object_detection.__name__, _object_detection)
from lava.lib.dl import slayer  # noqa: E402

if sys.modules[_object_detection.__name__] is _object_detection:  # whoever wants it may still import it
    del sys.modules[_object_detection.__name__], slayer.obd

if TYPE_CHECKING:
    from lava.lib.dl import netx

warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)

__all__ = ["netx", "simulate_fixed_point", "slayer"]


def __getattr__(name: str) -> Any:
    if name != "netx":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _import_lava_nc()
    from lava.lib.dl import netx

    return netx


def _import_lava_nc() -> None:
    """Import the parts of lava-nc that Python 3.11 and later refuse, after removing what they object to.

    `var_model` has dataclass instances as field defaults: they are accepted once they are hashable. The multiprocessing
    module sets the start method at import, which raises if anything has used multiprocessing before; here it is forced.
    """
    hashable = functools.partial(dataclasses.dataclass, unsafe_hash=True)
    with mock.patch.object(dataclasses, "dataclass", hashable):
        import lava.magma.compiler.var_model
    again = functools.partial(multiprocessing.set_start_method, force=True)
    with mock.patch.object(multiprocessing, "set_start_method", again):
        import lava.magma.runtime.message_infrastructure.multiprocessing  # noqa: F401


def simulate_fixed_point(
    network_file: Path, inputs: np.ndarray, steps: int, corrected: bool = False
) -> Iterator[list[np.ndarray]]:
    """Run an exported network in lava's bit-accurate Loihi 2 simulation on the CPU.

    Args:
        network_file: HDF5 network as `export_hdf5` writes it.
        inputs: (W, H, C, T) integer input to the neurons of the first layer, one slice per step; after the
            last one the first follows again.
        steps: time steps to run. Every layer after the first adds one step of latency.
        corrected: neurons as later versions of lava have them, see `_corrected_neurons`; else those of lava-nc 0.10.

    Yields:
        what each layer sends in one step after another: integers (W, H, C), or (C,) of dense layers.

    Raises:
        UserError: a process of the simulation was killed.
    """
    _import_lava_nc()
    from lava.lib.dl import netx
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
    from lava.proc.io.source import RingBuffer

    with mock.patch.object(netx.hdf5, "optimize_weight_bits", _weights_as_they_fit(netx.hdf5.optimize_weight_bits)):
        network = netx.hdf5.Network(net_config=str(network_file))
    source = RingBuffer(data=inputs)
    source.s_out.connect(network.in_layer.neuron.a_in)
    extractors = [Extractor(shape=layer.shape) for layer in network.layers]  # a sink would be read out number by number
    for layer, extractor in zip(network.layers, extractors, strict=True):
        layer.out.connect(extractor.in_port)
    models = {Extractor: PyLoihiExtractorModel, **(_corrected_neurons() if corrected else {})}
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    with _supervised(network):
        network.run(RunSteps(num_steps=steps, blocking=False), config)
        for _ in range(steps):
            yield [extractor.receive().astype(np.int32) for extractor in extractors]
        network.wait()


def _corrected_neurons() -> dict[type, type]:
    """Sigma-delta neurons that remember what they have sent, not what they wanted to send, as models for lava-nc.

    The rule is that of `PySigmaDeltaModelFixedCorrected`, which came to lava after its last release. layer-0 has other
    neurons, of which rounding takes nothing: its input has no bits below a message's.
    """
    from lava.magma.core.decorator import implements, requires, tag
    from lava.magma.core.resources import CPU
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
    from lava.proc.sdn.models import PySigmaDeltaModelFixed
    from lava.proc.sdn.process import SigmaDelta

    @implements(proc=SigmaDelta, protocol=LoihiProtocol)
    @requires(CPU)
    @tag("fixed_pt")
    class Corrected(PySigmaDeltaModelFixed):
        def run_spk(self) -> None:
            self.sigma = self.sigma_dynamics(self.a_in.recv())
            change = self.activation_dynamics(self.sigma) - self.act
            message = np.where(np.abs(change) >= self.vth, change, 0) >> self.state_exp
            self.act += message << self.state_exp
            self.s_out.send(message)

    return {SigmaDelta: Corrected}


def _weights_as_they_fit(optimize: Callable) -> Callable:
    """netx scales dense weights up to eight bits and fails, with a division by zero, where all of them are zero."""
    return lambda weight: optimize(weight) if weight.any() else (weight, 8, 0, None)


@contextlib.contextmanager
def _supervised(network: Any) -> Iterator[None]:
    """Run the thirty processes of a simulation in the block, and end them with it, however it ends.

    They wait for each other, and this process waits for them: lava never notices when one of them dies.

    Raises:
        UserError: one of them was killed.
    """
    from lava.magma.runtime.message_infrastructure import multiprocessing as infrastructure

    actors: list[Any] = []  # running
    exit_codes: set[int | None] = {None}  # allowed at present; None while a process runs

    class Actor(infrastructure.SystemProcess):
        def start(self) -> None:
            with interrupts_held():  # Ctrl-C is for this process, which ends them
                super().start()
                actors.append(self)
            refuse_to_wait()

        def run(self) -> None:
            threading.Thread(target=_end_with_parent, daemon=True).start()
            super().run()

        def join(self) -> None:
            if self in actors:
                actors.remove(self)
            super().join()

    def refuse_to_wait(*signal: object) -> None:
        if not exit_codes.issuperset(actor.exitcode for actor in actors):
            raise UserError("netx: a process of the simulation ended early, perhaps because memory ran out; try again")

    before = signal.signal(signal.SIGCHLD, refuse_to_wait)
    try:
        with mock.patch.multiple(infrastructure, SystemProcess=Actor, SharedMemoryManager=_AnonymousMemory):
            yield
        exit_codes.add(0)
        network.stop()
    finally:
        signal.signal(signal.SIGCHLD, before)
        for actor in tuple(actors):  # left over after an error only; lava's `stop` would wait for their answers
            actor.kill()
            actor.join()
        if network.runtime:
            network.runtime._is_started = False


def _end_with_parent() -> None:
    """End this process when its parent has ended."""
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(1)


class _AnonymousMemory:
    """Memory shared by inheritance instead of lava's manager: it has no name, so a killed run leaves no file."""

    def start(self) -> None: ...

    def shutdown(self) -> None: ...

    def create_shared_memory(self, size: int) -> SimpleNamespace:
        return SimpleNamespace(buf=memoryview(mmap.mmap(-1, size)))
