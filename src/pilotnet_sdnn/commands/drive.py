"""Steer by a video, a folder of frames or a camera, through the exported network: sdnn-drive"""

import argparse
import csv
import json
import os
import sys
import time
from array import array
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from itertools import chain
from math import degrees, prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.dataset.resizing import resize
from pilotnet_sdnn.dataset.store import FRAME_SHAPE
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.errors import UserError, counted, exit_on_error
from pilotnet_sdnn.interrupts import StopRequest, stop_on_request
from pilotnet_sdnn.loihi.runtime import Network
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import EXPORTED_NETWORK
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.video.footage import Footage, Frame, open_footage
from pilotnet_sdnn.video.scenes import KINDS, MAPS, Moment, Scene, pictures, write_video


class Answer(NamedTuple):
    """What the network says to a frame: a row of the csv, a line of --follow."""

    frame: int
    seconds: float  # since the first frame
    angle: float  # radians, + to the right
    degrees: float
    events: int
    synops: int
    milliseconds: float  # from the frame, decoded, to the angle: resized and run


class Drive:
    """The network behind a camera, and what is known of the drive so far."""

    def __init__(self, network: Network, footage: Footage, realtime: bool, watched: bool) -> None:
        """Args:
        network: the exported network.
        footage: what to drive by.
        realtime: wait until a frame is due, by its own time.
        watched: keep the events of each frame, for a video.
        """
        self.network, self.footage, self.realtime, self.watched = network, footage, realtime, watched
        self.stream = network.stream()
        self.milliseconds, self.microseconds = array("d"), array("d")  # of each answer, and of the network alone
        self.events = self.synops = self.late = 0
        self.problem: UserError | None = None  # that ended the drive
        self.took = 0.0  # seconds

    def answers(self, stop: StopRequest) -> Generator[tuple[Answer, Frame, Moment], None, None]:
        """Answer frame after frame, to the end, until there is a problem or somebody stops it.

        Raises:
            UserError: the first frame cannot be read.
        """
        first = next(self.footage.frames, None)
        if first is None:
            raise UserError(f"{self.footage.name}: no frames in it")
        began = time.perf_counter()
        try:
            for number, frame in enumerate(chain([first], self.footage.frames)):
                if stop:
                    break
                due = began + frame.seconds if self.realtime else time.perf_counter()
                time.sleep(max(0.0, due - time.perf_counter()))
                yield self._answer(number, frame, due)
                self.took = time.perf_counter() - began
        except UserError as problem:
            self.problem = problem

    def _answer(self, number: int, frame: Frame, due: float) -> tuple[Answer, Frame, Moment]:
        start = time.perf_counter()
        small = resize(frame.image)
        resized = time.perf_counter()
        signs = []
        if self.watched:
            signs = [np.sign(sent).astype(np.int8) for sent in self.stream.messages(small)[: len(MAPS)]]
            angle = self.stream.angle
        else:
            angle = self.stream.step(small)
        end = time.perf_counter()
        events, synops = int(self.stream.events[:-1].sum()), int(self.stream.synops.sum())
        self.events += events
        self.synops += synops
        self.late += end - due > 1 / self.footage.rate
        self.microseconds.append((end - resized) * 1e6)
        self.milliseconds.append((end - start) * 1e3)
        shown = round(degrees(angle), 3), events, synops, round(self.milliseconds[-1], 3)
        return Answer(number, round(frame.seconds, 6), angle, *shown), frame, Moment(angle, signs, synops)

    def summary(self) -> str:
        """What happened, for the end of the drive."""
        count = len(self.milliseconds)
        events, synops = self.events / count, self.synops / count
        fewer = f", {self.network.macs / synops:.1f}x fewer operations than the ANN baseline" if synops else ""
        lines = [
            f"{self.footage.name}: {counted(count, 'frame')} in {self.took:.1f} s, {count / self.took:.1f} frames/s",
            f"from frame to angle: {percentiles(self.milliseconds, 'ms')}; the network alone: "
            f"{percentiles(self.microseconds, 'us')}",
            f"a frame: {events:,.0f} events, {synops:,.0f} synops{fewer}",
        ]
        if self.realtime or self.footage.live:
            lines.append(f"late, after the next frame: {self.late:,} of {counted(count, 'frame')}")
        return "\n".join(lines)


def percentiles(times: array, unit: str) -> str:
    """`median 2.1, p90 2.4, p99 3.0 ms`"""
    values = ", ".join(
        f"{name} {value:.1f}"
        for name, value in zip(("median", "p90", "p99"), np.percentile(times, (50, 90, 99)), strict=True)
    )
    return f"{values} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-drive", description=__doc__.partition(":")[0])
    parser.add_argument("source", help="a video file, a folder or zip of frames, or a camera such as /dev/video0")
    parser.add_argument(
        "--network", type=Path, default=EXPORTED_NETWORK, help=f"the exported network; default: {EXPORTED_NETWORK}"
    )
    parser.add_argument("--csv", type=Path, default=Path("angles.csv"), help="what to write; default: angles.csv")
    parser.add_argument("--follow", action="store_true", help="print each answer at once, as a line of JSON")
    parser.add_argument("--video", type=Path, help="write a video of the drive, too: .mp4 or .gif")
    parser.add_argument("--realtime", action="store_true", help="pace a file by its own clock; count late answers")
    arguments = parser.parse_args()
    with exit_on_error():
        if arguments.video and arguments.video.suffix not in KINDS:
            raise UserError(f"{arguments.video}: expected a file name that ends with {' or '.join(KINDS)}")
        params = load_params()
        reading = Reading(
            csv_columns=params.csv_columns,
            csv_unit="degrees",  # no angle is used
            max_gigabytes=params.max_gigabytes,
            csv_camera=params.csv_camera,
            csv_frames=params.csv_frames,
        )
        network = load_pilotnet(arguments.network, params.corrected_neurons)
        footage = open_footage(arguments.source, reading)
        drive = Drive(network, footage, arguments.realtime and not footage.live, bool(arguments.video))
        with stop_on_request() as stop, closing(drive.answers(stop)) as answers:
            scenes = written(answers, footage, arguments.csv, arguments.follow, stop)
            if arguments.video:
                film = pictures(scenes, network.macs, footage.name, "as Loihi 2 computes it")
                write_video(arguments.video, film, footage.rate)
            for _ in scenes:
                pass
        print(drive.summary(), file=sys.stderr if arguments.follow else sys.stdout)
        print("written:", *filter(None, (arguments.csv, arguments.video)), file=sys.stderr)
        if drive.problem:
            raise drive.problem


def load_pilotnet(path: Path, corrected: bool) -> Network:
    """The network in a file.

    Raises:
        UserError: it is damaged, takes other images, or gives more than an angle.
    """
    network = Network(path, corrected)
    if network.frame_shape != FRAME_SHAPE or network.shapes[-1] != (1, 1, 1) or len(network.shapes) <= len(MAPS):
        images, expected = ("x".join(map(str, shape)) for shape in (network.frame_shape, FRAME_SHAPE))
        raise UserError(
            f"{path}: expected a PilotNet, from images of {expected} to one angle; found "
            f"{counted(len(network.shapes), 'layer')} from images of {images} to "
            f"{counted(prod(network.shapes[-1]), 'number')}"
        )
    return network


def written(
    answers: Iterator[tuple[Answer, Frame, Moment]], footage: Footage, table: Path, follow: bool, stop: StopRequest
) -> Iterator[Scene]:
    """Write each answer at once, and pass on what a video of it shows.

    Files are opened when the first answer is there, and whole after every line.
    """
    with ExitStack() as opened:
        for number, (answer, frame, moment) in enumerate(answers):
            if number == 0:
                table.parent.mkdir(parents=True, exist_ok=True)
                file = opened.enter_context(table.open("w", encoding="utf-8", newline="", buffering=1))
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(Answer._fields)
                bar = opened.enter_context(progress(total=footage.total, desc=footage.name, unit="frame"))
            writer.writerow(answer)
            if follow and not printed(json.dumps(answer._asdict())):
                stop.name = "the end of a pipe"
            bar.update()
            yield Scene(frame.image, None, None, f"{frame.seconds:.2f} s", moment)


def printed(line: str) -> bool:
    """Whether somebody still reads what is printed."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor complain at the end
        return False
    return True


if __name__ == "__main__":
    main()
