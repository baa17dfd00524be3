"""Measure the best network on the test sequences, and sum up its training."""

import numpy as np
import torch

from pilotnet_sdnn.dataset.dataset import open_dataset
from pilotnet_sdnn.dataset.sequences import Sequences
from pilotnet_sdnn.dataset.split import stretch_with_most
from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import atomic_write, write_csv, write_metrics, write_text
from pilotnet_sdnn.measure.operations import Activity, count_activity
from pilotnet_sdnn.measure.steering import event_metrics, steering_metrics, training_metrics
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import (
    ACTIVITY,
    EVALUATION_METRICS,
    EVENTS_PLOT,
    FRAMES,
    NETWORK,
    STEERING_PLOT,
    TRAIN_METRICS,
    TRAINING_LOG,
    TRAINING_PLOT,
)
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.sdnn.network import load_network

BATCH = 8  # sequences at a time; the results do not depend on it
STRETCH = 600  # frames in the steering plot, 30 seconds of a 20 Hz camera


def main() -> None:
    params = load_params()
    network = load_network(NETWORK)
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    drive = dataset.drive

    def measure(videos: Sequences, desc: str) -> Activity:
        starts = progress(range(0, len(videos), BATCH), desc=desc, unit="batch")
        counted = [count_activity(network, torch.from_numpy(videos[i : i + BATCH])) for i in starts]
        return Activity(*map(np.concatenate, zip(*counted, strict=True)))

    videos, labels = dataset.sequences(dataset.split.test, params.sequence)
    activity = measure(videos, "test sequences")
    with atomic_write(ACTIVITY) as temporary, temporary.open("wb") as file:
        np.savez(file, origin=drive.origin, starts=videos.starts, labels=labels, **activity._asdict())

    steering, events = steering_metrics(labels, activity.angles), event_metrics(activity)
    write_metrics(EVALUATION_METRICS, {**steering, **events})
    write_metrics(TRAIN_METRICS, training_metrics(TRAINING_LOG))
    write_text(TRAINING_PLOT, TRAINING_LOG.read_text(encoding="utf-8"))
    write_csv(EVENTS_PLOT, ("layer", "events_per_frame"), events["events"].items())

    is_test = dataset.is_test()
    shown, shown_labels = dataset.sequences([stretch_with_most(is_test, drive.segments, STRETCH)], params.sequence)
    predicted = measure(shown, "steering plot").angles
    part = np.where(is_test[shown.frame_numbers()], "test", "train")
    degrees = np.degrees([shown_labels.ravel(), predicted.ravel()]).round(2)
    write_csv(
        STEERING_PLOT,
        ("frame", "label_degrees", "predicted_degrees", "part"),
        zip(shown.frame_numbers(), *degrees, part, strict=True),
    )

    print(
        f"{drive.origin}: mse {steering['mse']:.5f} sq. radians, mae {steering['mae_degrees']:.2f} degrees, "
        f"r2 {steering['r2']:.3f} on {steering['frames']} test frames; "
        f"{events['events_per_frame']:.1f} events/frame"
    )


if __name__ == "__main__":
    with exit_on_error():
        main()
