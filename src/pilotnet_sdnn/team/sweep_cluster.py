"""The Dask clusters that a sweep can run on: this machine, machines over SSH, SLURM, or one that runs already."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask.config
from distributed import Client, LocalCluster, Security, SSHCluster
from distributed.comm import connect

from pilotnet_sdnn.errors import UserError, one_line, shown, without_password
from pilotnet_sdnn.interrupts import interrupts_held
from pilotnet_sdnn.params import read_mapping
from pilotnet_sdnn.team import sweep_worker

CORES = 2  # of a run
DASHBOARD = {"dashboard_address": "127.0.0.1:8787"}  # by default Dask's listens on all addresses
PATIENCE = 20  # seconds until a scheduler must have answered

logging.getLogger("distributed").setLevel(logging.CRITICAL)  # the driver says what matters


@contextmanager
def on_this_machine(runs: int, jobs: int | None) -> Iterator[Client]:
    """Workers of this machine, which listen on loopback only.

    Args:
        runs: how many there are to run.
        jobs: at a time; by default one for each two cores.
    """
    with interrupts_held():
        cluster = LocalCluster(
            n_workers=min(jobs or max(1, (os.cpu_count() or 1) // CORES), runs), threads_per_worker=1, memory_limit=0,
            host="127.0.0.1", dashboard_address=None, worker_dashboard_address=None,
            silence_logs=logging.CRITICAL, preload=[sweep_worker.__name__],
        )  # fmt: skip
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def of_scheduler(address: str) -> Iterator[Client]:
    """The workers of a scheduler that runs already, by TLS if Dask's configuration says so.

    Raises:
        UserError: it does not answer.
    """
    try:
        asyncio.run(_answers(address))  # a Client that does not connect blocks for a while when it is deleted
    except Exception as error:  # a wrong address, nobody there, or no certificates: each part of Dask raises its own
        raise UserError(f"no Dask scheduler answers at {without_password(address)}: {one_line(error)}") from None
    with Client(address, timeout=PATIENCE, set_as_default=False) as client:
        yield client


async def _answers(address: str) -> None:
    connection = await connect(address, timeout=PATIENCE, **Security().get_connection_args("client"))
    await connection.close()


@contextmanager
def over_ssh(hosts: list[str], jobs: int | None, python: str | None) -> Iterator[Client]:
    """Workers that are started over SSH, as ~/.ssh says; the scheduler runs on the first host.

    Args:
        jobs: workers on each host; by default one.
        python: the program on the hosts; by default at the same path as here.

    Raises:
        UserError: a host cannot be reached, or Dask does not start there.
    """
    try:
        cluster = SSHCluster(
            [hosts[0], *hosts], scheduler_options=DASHBOARD,
            worker_options={"nthreads": 1, "n_workers": jobs or 1}, remote_python=python,
        )  # fmt: skip
    except Exception as error:  # of asyncssh, of Dask, or of the remote Python
        raise UserError(f"--hosts {','.join(hosts)}: {one_line(error)}") from None
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def on_slurm(runs: int, jobs: int | None, file: Path | None) -> Iterator[Client]:
    """Workers that are jobs of SLURM; the scheduler runs here.

    Args:
        runs: how many there are to run.
        jobs: at a time; by default one for each run.
        file: YAML with arguments of `dask_jobqueue.SLURMCluster`; Dask's configuration has the others.

    Raises:
        UserError: the file is wrong, or SLURM is not there.
    """
    from dask_jobqueue import SLURMCluster

    scheduler = {**DASHBOARD, **(dask.config.get("jobqueue.slurm.scheduler-options", None) or {})}
    options = {"cores": CORES, "processes": 1, "memory": "4GB", "scheduler_options": scheduler}
    options |= read_mapping(file) if file else {}
    try:
        cluster = SLURMCluster(**options)
        cluster.scale(jobs=min(jobs or runs, runs))
    except Exception as error:
        raise UserError(f"SLURM with {shown(options)}: {one_line(error)}") from None
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client
