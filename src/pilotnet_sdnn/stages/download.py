"""Write the drives named by `source` to data/raw/driving_dataset.zip."""

from pilotnet_sdnn.drive.drive_zip import labels_name, odd_shapes, open_drive, origin, read_labels
from pilotnet_sdnn.drive.labels import BadLabels
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.drive.sources import fetch
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import DRIVE


def main() -> None:
    params = load_params()
    reading = Reading(
        on_bad_frame=params.on_bad_frame,
        simulator_degrees=params.simulator_degrees,
        csv_columns=params.csv_columns,
        csv_unit=params.csv_unit,
        max_gigabytes=params.max_gigabytes,
        csv_camera=params.csv_camera,
        csv_frames=params.csv_frames,
        label_sign=params.label_sign,
    )
    fetch(params.source, DRIVE, params.synthetic_frames, params.seed, reading)
    with open_drive(DRIVE) as drive:
        labels = read_labels(drive, BadLabels(labels_name(drive), params.on_bad_frame))
        drives = len({label.drive for label in labels})
        print(
            f"{DRIVE}: {origin(drive)}, {counted(len(labels), 'labelled frame')}"
            + f" of {drives} drives" * (drives > 1)
        )
        for warning in odd_shapes(drive, labels):
            print(f"warning: {warning}")


if __name__ == "__main__":
    with exit_on_error():
        main()
