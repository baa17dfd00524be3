"""Turn the drive into data/frames.h5: every labelled frame as the network sees it, 33x100 RGB."""

from pilotnet_sdnn.drive import (
    BadLabels,
    labels_name,
    labels_sha256,
    open_drive,
    origin,
    radians,
    read_labels,
    resized_frames,
    segments,
)
from pilotnet_sdnn.errors import reported
from pilotnet_sdnn.frames import write_frames
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import DRIVE, FRAMES
from pilotnet_sdnn.progress import progress


def main() -> None:
    params = load_params()
    with open_drive(DRIVE) as drive:
        bad = BadLabels(labels_name(drive), params.on_bad_frame)
        labels = read_labels(drive, bad)
        frames = progress(resized_frames(drive, labels), total=len(labels), desc="resize", unit="frame")
        write_frames(FRAMES, frames, radians(labels), origin=origin(drive), labels_sha256=labels_sha256(drive))
    stretches = segments(labels, params.gap_frames, params.gap_seconds)[-1] + 1
    print(f"{FRAMES}: {len(labels)} frames, {stretches} stretches of road without a gap, {bad.count} frames left out")


if __name__ == "__main__":
    with reported():
        main()
