"""Bring the drive that `source` names to data/raw/driving_dataset.zip."""

from pilotnet_sdnn.drive import open_drive, origin, read_labels
from pilotnet_sdnn.errors import reported
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import DRIVE
from pilotnet_sdnn.sources import fetch


def main() -> None:
    params = load_params()
    fetch(params.source, DRIVE, params.synthetic_frames, params.seed)
    with open_drive(DRIVE) as drive:
        print(f"{DRIVE}: {origin(drive)}, {len(read_labels(drive))} labelled frames")


if __name__ == "__main__":
    with reported():
        main()
