"""Run the exported network as Loihi 2 computes it: all held-out road in integers, the beginning of it in netx too."""

from functools import partial

import numpy as np

from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.errors import UserError, counted, damaged, exit_on_error
from pilotnet_sdnn.files import write_csv, write_metrics
from pilotnet_sdnn.loihi.comparison import (
    InitialState,
    agreement,
    first_difference,
    netx_messages,
    stream_angles,
)
from pilotnet_sdnn.loihi.fixed_point import encode, read_network, run, start_state, zero_state
from pilotnet_sdnn.measure.activity import read_activity
from pilotnet_sdnn.measure.steering import PLOTTED_FRAMES
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ACTIVITY, DEPLOYMENT_METRICS, DEPLOYMENT_PLOT, EXPORTED_NETWORK, FRAMES
from pilotnet_sdnn.progress import advancing, progress
from pilotnet_sdnn.sdnn.network import LAYERS

INPUT_SHAPE = (3, 33, 100)  # of layer-0
NEURONS = {True: "corrected", False: "lava_nc_0_10"}  # by `corrected_neurons`


def main() -> None:
    params = load_params()
    network = read_network(EXPORTED_NETWORK)
    if len(network) != len(LAYERS) or network[0].shape != INPUT_SHAPE or network[-1].shape != (1,):
        raise damaged(EXPORTED_NETWORK, "it is not a PilotNet", "export")
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    drive, streams = dataset.drive, dataset.split.test
    held_out = read_activity(ACTIVITY)
    frames, labels, floating = held_out.frames, held_out.labels, held_out.running.angles
    if not np.array_equal(frames, np.concatenate([np.arange(*stream) for stream in streams])):
        raise damaged(ACTIVITY, "its frames are not those of the held-out road", "evaluate")

    # netx and the integers send the same messages
    corrected = params.corrected_neurons
    longest = max(streams, key=lambda stretch: stretch.frames)
    beginning = drive.frames[longest.start : min(longest.start + params.deploy_frames, longest.stop)][None]
    messages = netx_messages(EXPORTED_NETWORK, beginning, corrected)
    integers, _ = run(network, encode(beginning), start_state(network, 1, corrected), corrected)
    if parted := first_difference(messages, integers):
        raise UserError(
            f"{EXPORTED_NETWORK}: netx and fixed_point.py differ from {parted} on; refusing to write metrics of "
            f"either; please report it with this file"
        )

    # so the integers stand for the hardware, on all held-out road
    def in_integers(start: InitialState, corrected: bool, desc: str) -> tuple[np.ndarray, np.ndarray]:
        with progress(total=len(labels), desc=desc, unit="frame") as bar:
            chunks = [advancing(bar, dataset.chunks(stream)) for stream in streams]
            runs = [stream_angles(network, stream, start, corrected) for stream in chunks]
        angles, events = map(np.concatenate, zip(*runs, strict=True))
        return angles, events

    compare = partial(agreement, labels, floating, is_start=held_out.running.is_start)
    kinds = {
        kind: in_integers(partial(start_state, corrected=kind), kind, f"{name} neurons")
        for kind, name in NEURONS.items()
    }
    fixed, events = kinds[corrected]
    deployment = compare(fixed=fixed)
    same_start = compare(fixed=in_integers(zero_state, corrected, "from the same start")[0])

    write_metrics(
        DEPLOYMENT_METRICS,
        {
            **deployment,
            "fixed_point_events_per_frame": float(events.sum(1).mean()),
            "netx": {"frames": beginning.shape[1], "identical": True},
            "same_start": short(same_start),
            **{NEURONS[kind]: short(compare(fixed=angles)) for kind, (angles, _) in kinds.items()},
        },
    )
    shown = np.flatnonzero((frames >= longest.start) & (frames < longest.stop))[:PLOTTED_FRAMES]
    degrees = np.degrees([labels[shown], floating[shown], fixed[shown]]).round(2)
    columns = ("frame", "name", "label_degrees", "float_degrees", "fixed_point_degrees")
    write_csv(DEPLOYMENT_PLOT, columns, zip(*drive.named(frames[shown]), *degrees, strict=True))
    print(
        f"{drive.origin}: {counted(len(labels), 'held-out frame')} as Loihi 2 computes them: mse "
        f"{deployment['fixed_point_mse']:.5f} sq. radians, as trained {deployment['float_mse']:.5f}; the two differ by "
        f"{deployment['rms_difference_degrees']:.2f} degrees (RMS), {deployment['max_abs_difference']:.2f} at most; "
        f"from the same start, by {same_start['max_abs_difference']:.2g}\n"
        f"netx and fixed_point.py agree in every message of every layer, over {counted(beginning.shape[1], 'frame')}"
    )


def short(agreement: dict) -> dict:
    """The figures of `agreement` that are also given for other neurons and another start."""
    return {name: agreement[name] for name in ("fixed_point_mse", "mse_ratio", "max_abs_difference")}


if __name__ == "__main__":
    with exit_on_error():
        main()
