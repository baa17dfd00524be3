"""Inspect the drive: do its labels match its frames?"""

from pilotnet_sdnn.dataset.store import read_frames
from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import write_csv, write_metrics
from pilotnet_sdnn.inspection.alignment import align, inconclusive, turning, warnings
from pilotnet_sdnn.inspection.overview import curves, draw, drive_metrics, jumps
from pilotnet_sdnn.paths import DRIVE_METRICS, DRIVE_PICTURE, DRIVE_PLOT, FRAMES
from pilotnet_sdnn.progress import progress


def main() -> None:
    drive = read_frames(FRAMES)
    with progress(total=len(drive.angles), desc="movement", unit="frame") as bar:
        turns = turning(drive, bar.update)
    alignment = align(turns, drive.angles, drive.segments)
    jumped = jumps(drive.angles, drive.segments)
    chart = curves(drive, turns, jumped)

    write_metrics(DRIVE_METRICS, drive_metrics(drive, alignment, jumped))
    columns = [values.round(3) for values in chart.values()]
    write_csv(DRIVE_PLOT, tuple(chart), zip(*columns, strict=True))
    draw(DRIVE_PICTURE, drive, alignment, chart, jumped)

    found = warnings(alignment)
    for warning in found:
        print(f"WARNING: {warning}; see {DRIVE_PICTURE}")
    if reason := inconclusive(alignment):
        print(f"{drive.origin}: inconclusive whether labels match frames: {reason}; see {DRIVE_PICTURE}")
    elif not found:
        print(
            f"{drive.origin}: labels match frames, correlation {alignment.at_zero:.2f} "
            f"(best {alignment.best:.2f} at lag {alignment.best_lag}); see {DRIVE_PICTURE}"
        )


if __name__ == "__main__":
    with exit_on_error():
        main()
