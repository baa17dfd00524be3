"""Measure the calibrated network on held-out road, as a running camera and restarted, and summarise its training."""

import logging

import numpy as np
import torch

from pilotnet_sdnn.dataset.road import CHUNK, Dataset, open_dataset
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.files import write_csv, write_metrics, write_text
from pilotnet_sdnn.measure.activity import (
    TUTORIAL_SEQUENCE,
    Activity,
    EventCounter,
    HeldOutActivity,
    concatenated,
    write_activity,
)
from pilotnet_sdnn.measure.following import by_tenth, following_metrics
from pilotnet_sdnn.measure.steering import PLOTTED_FRAMES, event_metrics, training_metrics
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import (
    ACTIVITY,
    DRIFT_PLOT,
    EVALUATION_METRICS,
    EVENTS_PLOT,
    FRAMES,
    NETWORK,
    STEERING_PLOT,
    TRAIN_METRICS,
    TRAINING_LOG,
    TRAINING_PLOT,
)
from pilotnet_sdnn.progress import advancing, progress
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.accuracy import steering_metrics
from pilotnet_sdnn.sdnn.network import load_network


def main() -> None:
    params = load_params()
    torch.set_num_threads(params.threads)
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    network = load_network(NETWORK, corrected=params.corrected_neurons)
    counter = EventCounter(network, kernels.choose(params.kernels, torch.device("cpu")))

    # held-out road under both protocols
    running = run_streams(counter, dataset)
    frames = np.concatenate([np.arange(*stretch) for stretch in dataset.split.test])
    labels = dataset.angles[frames]
    restarted, restarted_frames = run_restarted(counter, dataset)
    write_activity(ACTIVITY, HeldOutActivity(dataset.drive.origin, frames, labels, running, restarted))

    # metrics
    steering, events = steering_metrics(labels, running.angles), event_metrics(running)
    restarted_steering = steering_metrics(dataset.angles[restarted_frames], restarted.angles)
    following = following_metrics(labels, running.angles, running.is_start, params.sequence)
    write_metrics(EVALUATION_METRICS, {**steering, **events, "following": following, "restarted": restarted_steering})
    write_metrics(TRAIN_METRICS, training_metrics(TRAINING_LOG))

    # plots
    write_text(TRAINING_PLOT, TRAINING_LOG.read_text(encoding="utf-8"))
    write_csv(EVENTS_PLOT, ("layer", "events_per_frame"), events["events"].items())
    tenths = by_tenth((running.angles.astype(float) - labels) ** 2, running.is_start)
    write_csv(DRIFT_PLOT, ("tenth", "mse"), enumerate(tenths.round(6), 1))
    shown = longest_stream(running.is_start)[:PLOTTED_FRAMES]
    degrees = np.degrees([labels[shown], running.angles[shown]]).round(2)
    columns = ("frame", "name", "label_degrees", "predicted_degrees")
    write_csv(STEERING_PLOT, columns, zip(*dataset.drive.named(frames[shown]), *degrees, strict=True))

    print(
        f"{dataset.drive.origin}: {counted(len(dataset.split.test), 'held-out stretch')}, "
        f"{counted(len(frames), 'frame')}\n"
        f"as a running camera: mse {steering['mse']:.5f} sq. radians, mae {steering['mae_degrees']:.2f} degrees, "
        f"r2 {steering['r2']:.3f}; {events['events_per_frame']:.1f} events/frame\n"
        f"restarted every {TUTORIAL_SEQUENCE} frames: mse {restarted_steering['mse']:.5f}; holding each answer for "
        f"{counted(params.sequence, 'frame')}: mse {following['held_mse']:.5f}"
    )


def run_streams(counter: EventCounter, dataset: Dataset) -> Activity:
    """Every held-out stretch as one stream."""
    streams = dataset.split.test
    with progress(total=sum(stream.frames for stream in streams), desc="streams", unit="frame") as bar:
        return concatenated([counter.stream(advancing(bar, dataset.chunks(stream))) for stream in streams])


def run_restarted(counter: EventCounter, dataset: Dataset) -> tuple[Activity, np.ndarray]:
    """The same road in the tutorial's sequences, and the numbers of their frames."""
    videos, _ = dataset.sequences(dataset.split.test, TUTORIAL_SEQUENCE)
    batch = CHUNK // TUTORIAL_SEQUENCE
    starts = progress(range(0, len(videos), batch), desc="restarted", unit="batch")
    return concatenated([counter.sequences(videos[start : start + batch]) for start in starts]), videos.frame_numbers()


def longest_stream(is_start: np.ndarray) -> np.ndarray:
    """The indices of the frames of the longest stream, the first one if several are equally long."""
    streams = np.split(np.arange(len(is_start)), np.flatnonzero(is_start)[1:])
    return max(streams, key=len)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with exit_on_error():
        main()
