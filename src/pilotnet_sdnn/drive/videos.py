"""Videos of a camera: which frames one has, and those frames as ffmpeg gives them, upright.

A frame is known by its number, from 0, in the order in which it is shown. With the times of mp4, mov and mkv, decoding
may start at any keyframe; other files are decoded from their beginning, and their frames counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pilotnet_sdnn.errors import UserError, one_line, shortened

FORMATS = {
    ".mp4": "mov", ".mov": "mov", ".mkv": "matroska", ".avi": "avi", ".h264": "h264", ".hevc": "hevc"
}  # fmt: skip
TIMED = ("mov", "matroska")


class Video(NamedTuple):
    """A video in a file, perhaps in a part of a zip."""

    url: str  # as libavformat takes it
    format: str
    where: str  # for messages


class Index(NamedTuple):
    """The N frames of a video."""

    total: int  # N
    pts: np.ndarray | None  # (N,) int64, ascending; None if frames are only counted
    seconds: np.ndarray | None  # (N,) since the first frame; None if the file has no times
    keyframes: list[int]  # numbers of frames at which decoding may start
    problem: str  # why the file ends early; empty if it does not


def is_video(name: str) -> bool:
    return Path(name).suffix.lower() in FORMATS


def video_in_file(path: Path) -> Video:
    return Video(str(path), FORMATS[path.suffix.lower()], str(path))


def video_in_zip(path: str, start: int, size: int, name: str) -> Video:
    """A video that a zip holds uncompressed, `size` bytes from `start`."""
    url = f"subfile,,start,{start},end,{start + size},,:{path}"
    return Video(url, FORMATS[Path(name).suffix.lower()], f"{path}: {name}")


@contextmanager
def _opened(video: Video, threads: int = 1) -> Iterator[Any]:
    """The container of a video; its first video stream will be decoded."""
    import av  # takes 100 MB of address space, which most drives do not need

    try:
        container: Any = av.open(video.url, format=video.format)
    except av.error.FFmpegError as error:
        reason = shortened(one_line(error.strerror or error), 80)  # type: ignore[arg-type]
        raise UserError(
            f"{video.where}: not a readable video, or cut off before its index ({reason}); record or copy it again"
        ) from None
    with container:
        if not container.streams.video:
            raise UserError(f"{video.where}: no video in it")
        context = container.streams.video[0].codec_context
        context.thread_count = threads
        context.thread_type = "AUTO"
        yield container


def index(video: Video) -> Index:
    """The frames that a video has, found without decoding them.

    Raises:
        UserError: it is not a readable video, or has no frame.
    """
    from av.error import FFmpegError

    packets: list[tuple[int | None, bool]] = []
    problem = ""
    with _opened(video) as container:
        stream = container.streams.video[0]
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    packets.append((packet.pts, packet.is_keyframe))
        except FFmpegError as error:
            problem = one_line(error.strerror or error)  # type: ignore[arg-type]
        base, rate = stream.time_base, stream.average_rate
    if not packets:
        raise UserError(f"{video.where}: no frame in it")
    times = [pts for pts, _ in packets if pts is not None]
    if video.format not in TIMED or len(set(times)) < len(packets):
        seconds = np.arange(len(packets)) / float(rate) if video.format == "avi" and rate else None
        return Index(len(packets), None, seconds, [0], problem)
    order = np.argsort(times)
    pts = np.array(times, np.int64)[order]
    keyframes = np.flatnonzero(np.array([is_keyframe for _, is_keyframe in packets])[order])
    return Index(len(pts), pts, (pts - pts[0]) * float(base), sorted({0, *keyframes.tolist()}), problem)


def frames(video: Video, known: Index, first: int, stop: int, threads: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """The frames with numbers from `first` to before `stop` that can be decoded, in order.

    Args:
        video: the video.
        known: its index.
        first: number of a keyframe.
        stop: number after that of the last frame.
        threads: of the decoder.
    """
    expected = first
    for number, frame in _decoded(video, known, first, threads):
        if number >= stop:
            return
        if number > expected == first and first > 0:  # the file's index led past the keyframe
            for earlier, image in frames(video, known, 0, stop, threads):
                if earlier >= first:
                    yield earlier, image
            return
        if number >= first:
            expected = number + 1
            if not frame.is_corrupt:
                yield number, upright(frame)


def _decoded(video: Video, known: Index, first: int, threads: int) -> Iterator[tuple[int, Any]]:
    """The frames from a keyframe on with their numbers; what is damaged is left out."""
    with _opened(video, threads) as container:
        stream = container.streams.video[0]
        if first and known.pts is not None:
            container.seek(int(known.pts[first]), stream=stream)
        for count, frame in enumerate(_intact(container, stream)):
            number = count if known.pts is None else _number(known.pts, frame.pts)
            if number is not None and number < known.total:
                yield number, frame


def _intact(container: Any, stream: Any) -> Iterator[Any]:
    """The decoded frames of a stream, without those whose data are damaged."""
    from av.error import FFmpegError

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        try:
            decoded = packet.decode()
        except FFmpegError:
            continue
        yield from decoded


def _number(pts: np.ndarray, time: int | None) -> int | None:
    """The number of the frame that is shown at a time."""
    at = int(np.searchsorted(pts, -1 if time is None else time))
    return at if at < len(pts) and pts[at] == time else None


def upright(frame: Any) -> Image.Image:
    """A decoded frame as RGB, turned as the camera was held."""
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels)
