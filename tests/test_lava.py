"""The door to lava: the stack reproduces what lava-dl's authors shipped, and no process of it is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn.lava import simulate_fixed_point

PROCESSES = 20  # a simulation has more of them
SECONDS = 120  # that they may take to end, on a busy machine
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.sdnn.lava import netx, simulate_fixed_point

with exit_on_error():
    folder = Path(sys.argv[1])
    network = netx.hdf5.Network(net_config=str(folder / "network.net"))
    for _ in simulate_fixed_point(folder / "network.net", np.load(folder / "input.npy"), steps=10**6):
        print(len(network.layers), flush=True)
"""


def test_the_network_starts_without_torchvision_and_leaves_object_detection_to_others():
    """It is a third of the start of every stage, and nothing here uses it."""
    script = """
import sys
import pilotnet_sdnn.sdnn.network
assert not {"torchvision", "torch._dynamo"} & sys.modules.keys()
from lava.lib.dl.slayer.object_detection import boundingbox
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_netx_reproduces_the_shipped_pilotnet_exactly(ground_truth):
    frame, expected = np.load(ground_truth / "input.npy"), np.load(ground_truth / "output.npy")
    steps = simulate_fixed_point(ground_truth / "network.net", frame, steps=expected.shape[-1])
    assert np.array_equal(np.stack([layers[-1] for layers in steps], -1), expected)


def test_a_simulation_that_is_left_early_leaves_no_process(ground_truth):
    steps = simulate_fixed_point(ground_truth / "network.net", np.load(ground_truth / "input.npy"), steps=100)
    next(steps)
    assert len(multiprocessing.active_children()) > PROCESSES
    steps.close()
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_is_noticed(ground_truth):
    """For example by a system that ran out of memory; the others would wait for it for ever."""
    steps = simulate_fixed_point(ground_truth / "network.net", np.load(ground_truth / "input.npy"), steps=10**6)
    next(steps)
    os.kill(multiprocessing.active_children()[PROCESSES].pid, signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the simulation waits for a process that is gone"))
    signal.alarm(SECONDS)
    with pytest.raises(UserError, match=r"^netx: a process of the simulation ended early, .*; try again$"):
        for _ in steps:
            pass
    signal.alarm(0)
    assert multiprocessing.active_children() == []


@pytest.fixture
def simulation(ground_truth):
    """A user's own script in a process group of its own, in the middle of a simulation."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, ground_truth],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout and int(process.stdout.readline()) > 1
    yield process
    process.kill()
    process.communicate()


def test_processes_end_with_the_one_that_started_them(simulation):
    """Also when it is killed; there is no shared memory with a name that would outlive them all."""
    children = psutil.Process(simulation.pid).children(recursive=True)
    assert len(children) > PROCESSES
    assert not any("/dev/shm/psm_" in mapped.path for mapped in children[-1].memory_maps())
    simulation.kill()
    _, alive = psutil.wait_procs(children, SECONDS)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def test_ctrl_c_is_one_line(simulation):
    """A terminal sends it to every process of the group."""
    children = psutil.Process(simulation.pid).children(recursive=True)
    os.killpg(simulation.pid, signal.SIGINT)
    _, printed = simulation.communicate(timeout=SECONDS)
    assert (simulation.returncode, printed) == (1, "stopped\n")
    assert psutil.wait_procs(children, SECONDS)[1] == []
