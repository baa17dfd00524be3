"""The only door to lava-dl, lava-nc and netx.

Both libraries are archived and were written for Python 3.10. They work on later versions once two
import traps are out of the way; both are in lava-nc, which only netx needs, so `slayer` is imported
here and netx when it is asked for (it takes seconds, and most stages never need it).
"""

import contextlib
import dataclasses
import functools
import io
import logging
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its CUDA extensions are optional
with contextlib.redirect_stdout(io.StringIO()):  # it asks for a toolbox that only its DVS demo needs
    from lava.lib.dl import slayer

warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)

__all__ = ["simulate_fixed_point", "slayer"]


def _import_lava_nc() -> None:
    """Import the parts of lava-nc that Python >= 3.11 refuses, with the reason for it removed.

    `var_model` has dataclass instances as field defaults: accepted once they are hashable.
    Its multiprocessing module sets the start method at import, which raises if anything has used
    multiprocessing before: it must be allowed to set it again.
    """
    hashable = functools.partial(dataclasses.dataclass, unsafe_hash=True)
    with mock.patch.object(dataclasses, "dataclass", hashable):
        import lava.magma.compiler.var_model
    again = functools.partial(multiprocessing.set_start_method, force=True)
    with mock.patch.object(multiprocessing, "set_start_method", again):
        import lava.magma.runtime.message_infrastructure.multiprocessing  # noqa: F401


def _weights_as_they_fit(optimize: Callable) -> Callable:
    """netx scales dense weights up to eight bits and fails, with a division by zero, where all of them are zero."""
    return lambda weight: optimize(weight) if weight.any() else (weight, 8, 0, None)


@contextlib.contextmanager
def _stopped(network: Any) -> Iterator[None]:
    """End the thirty processes of a simulation, also when it is left early or by SIGTERM.

    lava's own `stop` waits then for an answer that never comes, and they for each other.
    """
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    except BaseException:
        if network.runtime:
            for actor in network.runtime._messaging_infrastructure.actors:
                actor.kill()
            network.runtime._is_started = False
        raise
    finally:
        network.stop()
        signal.signal(signal.SIGTERM, before)


def simulate_fixed_point(network_file: Path, inputs: np.ndarray, steps: int) -> Iterator[list[np.ndarray]]:
    """Run an exported network in lava's bit-accurate Loihi 2 simulation on the CPU.

    Args:
        network_file: HDF5 network as `export_hdf5` writes it.
        inputs: (W, H, C, T) integer input to the neurons of the first layer, one slice per step; after the
            last comes the first again.
        steps: time steps to run. Every layer after the first adds one step of latency.

    Yields:
        what each layer sends in one step after another: integers (W, H, C), or (C,) of dense layers.
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
    extractors = [Extractor(shape=layer.shape) for layer in network.layers]  # a sink is read out number by number
    for layer, extractor in zip(network.layers, extractors, strict=True):
        layer.out.connect(extractor.in_port)
    untagged = {Extractor: PyLoihiExtractorModel}
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=untagged)
    with _stopped(network):
        network.run(RunSteps(num_steps=steps, blocking=False), config)
        for _ in range(steps):
            yield [extractor.receive().astype(np.int32) for extractor in extractors]
        network.wait()
