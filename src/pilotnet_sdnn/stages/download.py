"""Write the drives named by `source` to data/raw, a zip each; those packed before come from DVC's cache."""

from pilotnet_sdnn.drive.collection import fetch_all
from pilotnet_sdnn.drive.drive_zip import labels_name, odd_shapes, open_drive, origin, read_labels
from pilotnet_sdnn.drive.labels import BadLabels
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.drive_files import drive_folder
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import DRIVES


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
    )
    sources = [params.source] if isinstance(params.source, str) else params.source
    with drive_folder(DRIVES) as folder:
        packed = fetch_all(sources, folder, params.synthetic_frames, params.seed, reading, params.label_sign)
    for path in packed:
        with open_drive(path) as drive:
            labels = read_labels(drive, BadLabels(labels_name(drive), params.on_bad_frame))
            print(f"{path}: {origin(drive)}, {counted(len(labels), 'labelled frame')}")
            for warning in odd_shapes(drive, labels):
                print(f"warning: {warning}")
    print(f"{DRIVES}: {counted(len(sources), 'drive')}, {len(packed)} packed now")


if __name__ == "__main__":
    with exit_on_error():
        main()
