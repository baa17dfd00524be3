"""Videos with a csv of labels beside them: by the number of the frame, or by the time."""

import math
import shutil
import zipfile
from pathlib import Path

import numpy as np

from pilotnet_sdnn.drive.archives import FolderArchive, quoted
from pilotnet_sdnn.drive.csv_layouts import SIMULATOR_LOG, angles_in_degrees
from pilotnet_sdnn.drive.drive_zip import FOLDER, LABELS, ZEROS_ARE_LABELS, packed_name
from pilotnet_sdnn.drive.labels import NUMBER, BadLabels, Label, format_label
from pilotnet_sdnn.drive.reading import Drive, Reading
from pilotnet_sdnn.drive.tables import Columns, Row, Table, angle_columns, open_table, read_rows
from pilotnet_sdnn.drive.times import LABEL_GAP, interpolated, parse_times
from pilotnet_sdnn.drive.videos import FORMATS, Index, index, is_video, video_in_file
from pilotnet_sdnn.errors import UserError, counted


def find_videos(path: Path, reading: Reading) -> list[tuple[Path, Path]]:
    """The videos, each with its csv, that a source names; empty if it is another kind of drive.

    Args:
        path: a video, its csv, or a folder of videos.
        reading: with `csv_columns`, the only csv of a folder may be one of images.

    Raises:
        UserError: a video has no csv.
    """
    folder = path if path.is_dir() else path.parent
    names = sorted(folder.iterdir()) if path.is_dir() or path.suffix.lower() in (".csv", *FORMATS) else []
    if path.is_dir() and any((path / name).exists() for name in ("data.txt", FOLDER, SIMULATOR_LOG)):
        return []
    videos = [file for file in names if is_video(file.name) and file.is_file()]
    tables = [file for file in names if file.suffix.lower() == ".csv"]
    pairs = {video: [table for table in tables if table.stem == video.stem] for video in videos}
    if len(videos) == len(tables) == 1 and not (path.is_dir() and reading.csv_columns["angle"] is not None):
        pairs[videos[0]] = tables
    if path.suffix.lower() == ".csv":
        return [(video, path) for video in videos if video.stem == path.stem][:1]
    wanted = videos if path.is_dir() else [path] if is_video(path.name) else []
    if path.is_dir() and not any(pairs.values()) and any(file not in videos for file in names):
        return []
    if missing := [video for video in wanted if not pairs[video]]:
        raise UserError(
            f"{missing[0]}: no labels; expected {quoted(missing[0].stem + '.csv')} beside it, with columns frame,angle "
            "or time,angle"
        )
    return [(video, pairs[video][0]) for video in wanted]


def read_videos(videos: list[tuple[Path, Path]], reading: Reading) -> Drive:
    """The labels of videos, one after another. Frames are called `drive.mp4/17`, counted from 0.

    Raises:
        UserError: a video or its csv cannot be read, or has an invalid line that must not be left out.
    """
    bad = BadLabels(str(videos[0][1]), reading.on_bad_frame)
    labels: list[Label] = []
    said = []
    for video, table in videos:
        bad.where = str(table)
        known = index(video_in_file(video))
        if known.problem:
            said.append(f"{video.name} ends early ({known.problem}), {counted(known.total, 'frame')} found")
        found, detected = _labels(open_table(FolderArchive(table.parent), table.name), video.name, known, reading, bad)
        labels += sorted(found, key=lambda label: label.number)
        said += detected
    return Drive("video", "", labels, bad, said)


def _labels(table: Table, video: str, known: Index, reading: Reading, bad: BadLabels) -> tuple[list[Label], list[str]]:
    """The labels of a video in its csv, and what the log says about them."""
    columns = _columns(table, reading)
    by_frame = columns["frame"] is not None
    rows = read_rows(table, columns, reading.csv_camera, lambda name: NUMBER.fullmatch(name) is not None)
    to_degrees, unit = angles_in_degrees(rows, table, str(columns["angle"]), reading)
    times = None if by_frame else parse_times([row.time for row in rows])
    keys = [_number(row.frame) for row in rows] if times is None else times.seconds.tolist()
    found: dict[float, tuple[float, Row]] = {}  # degrees by frame number or seconds
    for row, key in zip(rows, keys, strict=True):
        try:
            if row.problem:
                raise ValueError(row.problem)
            if by_frame and not (key.is_integer() and 0 <= key < known.total):
                raise ValueError(f"no frame {quoted(row.frame)} in {video}, which has 0 to {known.total - 1}")
            if math.isnan(key):
                raise ValueError(f"expected a time, found {quoted(row.time)}")
            if key in found:
                raise ValueError(f"{quoted(row.frame or row.time)} already has a label, on line {found[key][1].line}")
            found[key] = to_degrees(row.angle), row
        except ValueError as error:
            bad.add(row.line, str(error))
    said = [*table.detected, unit]
    if not found:
        return [], said
    if times is None:
        degrees = {int(frame): angle for frame, (angle, _) in found.items()}
        return [_label(video, frame, angle, known) for frame, angle in degrees.items()], said
    degrees = _at_frames(table, video, known, {time: angle for time, (angle, _) in found.items()})
    note = f"labels interpolated to {len(degrees):,} of {counted(known.total, 'frame')}, between labels at most"
    return [_label(video, frame, angle, known) for frame, angle in degrees.items()], [
        *said, times.said, f"{note} {LABEL_GAP:g} s apart"
    ]  # fmt: skip


def _columns(table: Table, reading: Reading) -> Columns:
    """Where frame or time, and angle, are: as `csv_columns` says, or as the header names them."""
    if reading.csv_columns["angle"] is not None:
        chosen = dict(reading.csv_columns)
        return {**chosen, "time": None if chosen["frame"] is not None else chosen["time"]}
    names = {name.lower(): name for name in table.head}
    angles = [names["angle"]] if "angle" in names else angle_columns(table.head)
    key = next((what for what in ("frame", "time") if what in names), None)
    if key is None or len(angles) != 1:
        raise UserError(
            f"{table.where}: expected columns frame,angle or time,angle, or their names in csv_columns; its first "
            f"line is {quoted(', '.join(table.head))}"
        )
    return {"frame": None, "time": None, "camera": reading.camera_column, key: names[key], "angle": angles[0]}


def _number(text: str) -> float:
    return float(text) if NUMBER.fullmatch(text) else math.nan


def _at_frames(table: Table, video: str, known: Index, found: dict[float, float]) -> dict[int, float]:
    """The angles at the times of the frames that lie between two labels.

    Args:
        table: for messages.
        video: for messages.
        known: the frames.
        found: angle by time in seconds since the first frame.
    """
    if known.seconds is None:
        raise UserError(
            f"{table.where}: {video} has no times; label it by frame,angle, or put it in an mp4 (ffmpeg -c copy)"
        )
    times, angles = np.array(list(found)), np.array(list(found.values()))
    values = interpolated(times, angles, known.seconds, LABEL_GAP)
    if np.isnan(values).all():
        raise UserError(
            f"{table.where}: no frame of {video} is between two labels: times in seconds since its first frame are "
            f"expected, from 0 to {known.seconds[-1]:.3f}; found {times.min():.3f} to {times.max():.3f}"
        )
    return {int(frame): float(values[frame]) for frame in np.flatnonzero(~np.isnan(values))}


def _label(video: str, frame: int, degrees: float, known: Index) -> Label:
    seconds = None if known.seconds is None else float(known.seconds[frame])
    return Label(f"{packed_name(video)}/{frame}", degrees, frame, seconds)


def pack_videos(path: Path, videos: list[Path], labels: list[Label], origin: str) -> None:
    """Write a drive of videos: the files as they are, and data.txt with a line for each labelled frame.

    The same files give the same bytes, as with `pack_drive`.
    """
    with zipfile.ZipFile(path, "w") as packed:
        packed.comment = origin.encode()
        for video in videos:
            entry = zipfile.ZipInfo(f"{FOLDER}/{packed_name(video.name)}")
            with video.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
        packed.writestr(zipfile.ZipInfo(LABELS), "".join(map(format_label, labels)) + f"{ZEROS_ARE_LABELS}\n")
