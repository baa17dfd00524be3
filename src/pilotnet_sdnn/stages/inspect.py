"""Inspect the drive: do its labels match its frames?"""

import numpy as np

from pilotnet_sdnn.dataset.sequences import said_of_zeros
from pilotnet_sdnn.dataset.store import read_frames
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.files import write_csv, write_metrics
from pilotnet_sdnn.inspection.alignment import align, inconclusive, turning
from pilotnet_sdnn.inspection.checks import (
    check_parts,
    conclusive,
    drive_name,
    drop_outs,
    equal_labels,
    found_warnings,
    said_of_drop_outs,
)
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

    checks = check_parts(drive, turns)

    write_metrics(DRIVE_METRICS, drive_metrics(drive, alignment, jumped, checks))
    columns = [values.round(3) if values.dtype.kind == "f" else values for values in chart.values()]
    write_csv(DRIVE_PLOT, tuple(chart), zip(*columns, strict=True))
    draw(DRIVE_PICTURE, drive, alignment, chart, jumped, checks)

    found = found_warnings(drive, checks) + equal_labels(drive)
    for warning in found:
        print(f"WARNING: {warning}; see {DRIVE_PICTURE}")
    judged = conclusive(checks)
    if not judged:
        reason = inconclusive(alignment) or "no drive and no stretch is long enough by itself"
        print(f"{drive.origin}: inconclusive whether labels match frames: {reason}; see {DRIVE_PICTURE}")
    elif not found:
        lowest = min(check.alignment.best for check in judged)
        print(
            f"{drive.origin}: labels match frames, correlation {alignment.at_zero:.2f} "
            f"(best {alignment.best:.2f} at lag {alignment.best_lag}; lowest of {counted(len(judged), 'part')} "
            f"{lowest:.2f}); see {DRIVE_PICTURE}"
        )
    if len(dropped := drop_outs(drive.angles, drive.segments)):
        print(said_of_drop_outs(drive, dropped))
    for part in drive.drives:
        zeros = int(np.count_nonzero(drive.angles[part.start : part.stop] == 0))
        print(f"{drive_name(drive, part)}: {said_of_zeros(zeros, part.repairs_zeros)}")


if __name__ == "__main__":
    with exit_on_error():
        main()
