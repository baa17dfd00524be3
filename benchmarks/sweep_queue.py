"""Does the queue of a sweep drain in linear time? Runs that do nothing, over two workers of this machine.

    uv run python benchmarks/sweep_queue.py

Half of the runs wait for a stage that they share with the one before them.
"""

import argparse
import logging
import time
from collections.abc import Iterator

from distributed import Client, LocalCluster

from pilotnet_sdnn.team.sweep import drive
from pilotnet_sdnn.team.sweep_plan import Run
from pilotnet_sdnn.team.sweep_progress import Ended
from pilotnet_sdnn.team.sweep_worker import Outcome


def runs(count: int) -> Iterator[Run]:
    for number in range(count):
        stages = dict.fromkeys(("data", f"pretrain-{number // 2}", f"train-{number}"), "")
        yield Run(f"{count}-{number}", "", "", stages=stages)


def nothing(run: Run, first: list[str]) -> Outcome:
    return Outcome()


def fits() -> str:
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[250, 500, 1000])
    queues = parser.parse_args().runs
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        list(drive(client, fits, nothing, runs(50), {"data"}))  # imports and connections
        for count in queues:
            started = time.perf_counter()
            events = drive(client, fits, nothing, runs(count), {"data"})
            ended = [event.run.name for event in events if isinstance(event, Ended)]
            seconds = time.perf_counter() - started
            assert len(set(ended)) == len(ended) == count
            print(f"{count:5} runs: {seconds:5.1f} s, {1000 * seconds / count:.1f} ms for each")


if __name__ == "__main__":
    main()
