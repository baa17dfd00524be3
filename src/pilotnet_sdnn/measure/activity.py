"""What a network did, frame by frame: angles, events, synaptic operations.

An event is a non-zero message, of either sign. A synaptic operation is one event arriving at one synapse: an event
costs as many as its neuron has outgoing synapses, which at the borders of an image are fewer. Layers count what
arrives: layer-1's synaptic operations are those of layer-0's events.
"""

import zipfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pilotnet_sdnn.errors import check_present, damaged
from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.geometry import fan_out, layer_geometries
from pilotnet_sdnn.sdnn.network import Network

TUTORIAL_SEQUENCE = 16  # frames, after which the tutorial restarts the network


class Activity(NamedTuple):
    """What a network did in F frames, of one stream after another or one sequence after another."""

    angles: np.ndarray  # (F,) float32, predicted, radians
    events: np.ndarray  # (F, 8) int64, sent by layer-0 to layer-7; layer-8 is read out, it sends none
    positive: np.ndarray  # (F, 9) int64, messages > 0 of layer-0 to layer-8, which the tutorial counts
    synops: np.ndarray  # (F, 8) int64, synaptic operations in layer-1 to layer-8
    is_start: np.ndarray  # (F,) bool, the frames that the network sees from rest


class EventCounter:
    """Counts a network's events and, by the fan-outs of its neurons, the synaptic operations they cause."""

    def __init__(self, network: Network, kernel: str) -> None:
        """Args:
        network: is put into evaluation mode.
        kernel: "native" or "torch"; both send the same messages.
        """
        self.network, self.kernel = network.eval(), kernel
        geometry = layer_geometries(network)
        self.fan_outs = [fan_out(source, target).double().flatten() for source, target in pairwise(geometry)]

    def stream(self, chunks: Iterable[np.ndarray]) -> Activity:
        """One stream from rest, state carried from chunk to chunk: (T, 33, 100, 3) uint8 each, of any T."""
        state, counted = None, []
        for chunk in chunks:
            activity, state = self._count(chunk[None], state)
            counted.append(activity)
        whole = concatenated(counted)
        return whole._replace(is_start=np.arange(len(whole.angles)) == 0)

    def sequences(self, frames: np.ndarray) -> Activity:
        """(S, T, 33, 100, 3) uint8 sequences, each from rest."""
        return self._count(frames, None)[0]

    @torch.no_grad()
    def _count(self, frames: np.ndarray, state: kernels.State | None) -> tuple[Activity, kernels.State]:
        output, messages, after = kernels.stream(self.network, torch.from_numpy(frames), self.kernel, state)
        sent = [(message != 0).flatten(2) for message in messages]  # (S, T, neurons)
        positive = [(message > 0).flatten(2) for message in (*messages, output.angles[..., None])]
        synops = [(s.double() @ fans).long() for s, fans in zip(sent, self.fan_outs, strict=True)]
        is_start = np.zeros(output.angles.shape, bool)
        is_start[:, 0] = True
        return Activity(
            angles=output.angles.numpy().ravel(),
            events=_by_frame([s.sum(2) for s in sent]),
            positive=_by_frame([p.sum(2) for p in positive]),
            synops=_by_frame(synops),
            is_start=is_start.ravel(),
        ), after


def _by_frame(layer_counts: list[Tensor]) -> np.ndarray:
    """(S * T, layers) from (S, T) of each layer."""
    return torch.stack(layer_counts, -1).flatten(0, 1).numpy()


def concatenated(activities: list[Activity]) -> Activity:
    """The activities joined in order."""
    return Activity(*map(np.concatenate, zip(*activities, strict=True)))


class HeldOutActivity(NamedTuple):
    """The content of data/activity.npz: what the best network did on held-out road."""

    origin: str  # name of the drive
    frames: np.ndarray  # (F,) index of each frame of the streams in the drive
    labels: np.ndarray  # (F,) float32 radians
    running: Activity  # of the streams
    restarted: Activity  # of the tutorial's sequences on the same road


def write_activity(path: Path, held_out: HeldOutActivity) -> None:
    """Write data/activity.npz."""
    parts = {"": held_out.running, "restarted_": held_out.restarted}
    counts = {prefix + name: value for prefix, part in parts.items() for name, value in part._asdict().items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, origin=held_out.origin, frames=held_out.frames, labels=held_out.labels, **counts)


def read_activity(path: Path) -> HeldOutActivity:
    """Read data/activity.npz.

    Raises:
        UserError: it is missing or damaged.
    """
    check_present(path, "evaluate")
    try:
        with zipfile.ZipFile(path) as file:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                raise ValueError("it is compressed")  # so it might expand to any size
        with np.load(path) as stored:
            content = {name: stored[name] for name in stored.files}
        running, restarted = (_checked(content, prefix) for prefix in ("", "restarted_"))
        frames, labels = content["frames"], content["labels"]
        if not len(frames) == len(labels) == len(running.angles) or frames.dtype.kind != "i":
            raise ValueError("its frames, labels and angles do not match")
        if not np.isfinite(labels).all():
            raise ValueError("labels are not finite numbers")
        return HeldOutActivity(str(content["origin"]), frames, labels, running, restarted)
    except Exception as error:  # damaged bytes make numpy raise any of a dozen exceptions
        raise damaged(path, error, "evaluate") from None


def _checked(content: dict[str, np.ndarray], prefix: str) -> Activity:
    activity = Activity(*(content[prefix + name] for name in Activity._fields))
    frames = len(activity.angles)
    kinds = [("f", ()), ("i", (8,)), ("i", (9,)), ("i", (8,)), ("b", ())]  # of the fields of Activity
    for name, values, (kind, shape) in zip(Activity._fields, activity, kinds, strict=True):
        if values.dtype.kind != kind or values.shape != (frames, *shape) or not frames:
            raise ValueError(f"{prefix}{name} is {values.dtype} {values.shape}")
    if not np.isfinite(activity.angles).all() or not activity.is_start[0]:
        raise ValueError(f"{prefix}angles are not finite numbers, or the first frame is no start")
    return activity
