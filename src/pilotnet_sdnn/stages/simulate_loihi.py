"""Run the exported network as Loihi 2 computes it: a stretch in netx, every test sequence in fixed_point.py."""

import numpy as np
import torch

from pilotnet_sdnn.dataset.dataset import open_dataset
from pilotnet_sdnn.dataset.sequences import Sequences
from pilotnet_sdnn.dataset.split import stretch_with_most
from pilotnet_sdnn.errors import UserError, exit_on_error
from pilotnet_sdnn.files import write_csv, write_metrics
from pilotnet_sdnn.loihi.comparison import agreement, angles_and_events, first_difference, netx_messages, run_sequences
from pilotnet_sdnn.loihi.fixed_point import encode, read_network, run, start_state, zero_state
from pilotnet_sdnn.measure.operations import after_first_frame, count_activity
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import (
    ACTIVITY,
    DEPLOYMENT_METRICS,
    DEPLOYMENT_PLOT,
    EXPORTED_NETWORK,
    FRAMES,
    NETWORK,
)
from pilotnet_sdnn.sdnn.network import LAYERS, load_network


def main() -> None:
    params = load_params()
    network = read_network(EXPORTED_NETWORK)
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    drive = dataset.drive

    def compare(frames: np.ndarray | Sequences, labels: np.ndarray, floating: tuple, fixed: tuple) -> dict:
        """Of sequences, from the angles and events that both networks made of them."""
        events = [after_first_frame(events).tolist() for _, events in (floating, fixed)]
        same_start, _ = run_sequences(network, frames, zero_state)
        return {
            **agreement(labels, floating[0], fixed[0]),
            "same_start_max_abs_difference": agreement(labels, floating[0], same_start)["max_abs_difference"],
            "events": {
                name: {"float": of_float, "fixed_point": of_fixed}
                for name, of_float, of_fixed in zip(LAYERS[:-1], *events, strict=True)
            },
        }

    start, stop = stretch_with_most(dataset.is_test(), drive.segments, params.deploy_frames)
    in_test, stretch_labels = dataset.is_test()[start:stop], dataset.angles[None, start:stop]
    stretch = drive.frames[start:stop][None]
    trained = count_activity(load_network(NETWORK), torch.from_numpy(stretch))
    messages = netx_messages(EXPORTED_NETWORK, stretch)
    if parted := first_difference(messages, run(network, encode(stretch), start_state(network, 1))[0]):
        raise UserError(
            f"{EXPORTED_NETWORK}: netx and fixed_point.py differ from {parted} on; they must not, so the figures of "
            f"neither are written; please report it with this file"
        )
    fixed, events = angles_and_events(messages)
    deployment = compare(stretch, stretch_labels, (trained.angles, trained.events), (fixed, events))

    stored = np.load(ACTIVITY)
    test = Sequences(drive.frames, stored["starts"], params.sequence)
    test_set = compare(
        test, stored["labels"], (stored["angles"], stored["events"]), run_sequences(network, test, start_state)
    )
    share = {"first_frame": start, "test_frames": int(in_test.sum()), "netx_identical": True}
    write_metrics(DEPLOYMENT_METRICS, {**deployment, **share, "test_set": test_set})
    degrees = np.degrees([stretch_labels[0], trained.angles[0], fixed[0]]).round(2)
    write_csv(
        DEPLOYMENT_PLOT,
        ("frame", "label_degrees", "float_degrees", "fixed_point_degrees", "part"),
        zip(range(start, stop), *degrees, np.where(in_test, "test", "train"), strict=True),
    )
    print(_summary(drive.origin, deployment, share, test_set))


def _summary(origin: str, deployment: dict, share: dict, test_set: dict) -> str:
    return (
        f"{origin}: frames {share['first_frame']} to {share['first_frame'] + deployment['frames'] - 1}, "
        f"{share['test_frames']} of {deployment['frames']} of them test frames, as Loihi 2 computes them: "
        f"mse {deployment['fixed_point_mse']:.5f} sq. radians, as trained {deployment['float_mse']:.5f}; "
        f"the two differ by {deployment['rms_difference_degrees']:.2f} degrees (RMS), "
        f"{deployment['max_abs_difference']:.2f} at most, and from the same start by "
        f"{deployment['same_start_max_abs_difference']:.2g}. netx and fixed_point.py agree in every message of every "
        f"layer. All {test_set['frames']} test frames: mse {test_set['fixed_point_mse']:.5f}, "
        f"as trained {test_set['float_mse']:.5f}"
    )


if __name__ == "__main__":
    with exit_on_error():
        main()
