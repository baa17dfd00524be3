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
import warnings
from pathlib import Path
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


def simulate_fixed_point(network_file: Path, events: np.ndarray, steps: int) -> np.ndarray:
    """Run an exported network in lava's bit-accurate Loihi 2 simulation on the CPU.

    Args:
        network_file: HDF5 network as `export_hdf5` writes it.
        events: (W, H, C, T) integer input to the neurons of the first layer, one slice per step.
        steps: time steps to run. Every layer adds one step of latency.

    Returns:
        (outputs, steps) integer output of the last layer.
    """
    _import_lava_nc()
    from lava.lib.dl import netx
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc import io as ports

    network = netx.hdf5.Network(net_config=str(network_file))
    source = ports.source.RingBuffer(data=events)
    sink = ports.sink.RingBuffer(shape=network.out_layer.shape, buffer=steps)
    source.s_out.connect(network.in_layer.neuron.a_in)
    network.out_layer.out.connect(sink.a_in)
    try:
        network.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
        return sink.data.get()
    finally:
        network.stop()
