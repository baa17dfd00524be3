"""The layouts of drives: which one a zip or a folder has, and the labels in it.

| layout | labels file |
|---|---|
| Sully Chen 2017 | `data.txt`, lines `N.jpg degrees` |
| Sully Chen 2018 | `data.txt`, lines `N.jpg degrees,date time`; the frames may be in `data/` |
| Udacity simulator | `driving_log.csv`, steering from -1 to 1, frames `IMG/center_*.jpg` |
| csv | any other csv, with the columns named by `csv_columns` |
"""

import math
import re
from collections.abc import Iterator

from pilotnet_sdnn.drive.archives import Archive, quoted
from pilotnet_sdnn.drive.csv_layouts import SIMULATOR_LOG, read_csv, read_simulator
from pilotnet_sdnn.drive.drive_zip import FOLDER
from pilotnet_sdnn.drive.labels import BadLabels, decode_text, parse_labels
from pilotnet_sdnn.drive.reading import Drive, Reading
from pilotnet_sdnn.drive.tables import angle_columns, open_table
from pilotnet_sdnn.errors import UserError

SULLY_CHEN = ("Sully Chen 2017", "Sully Chen 2018")
MAX_FOLDERS = 1000  # in which labels are looked for


def read_layout(archive: Archive, reading: Reading, table: str | None = None) -> Drive:
    """Detect the layout of a drive and read its labels.

    Args:
        archive: the zip or folder.
        reading: how to read it.
        table: name of the file with the labels, if known.

    Raises:
        UserError: there are no labels, or they are invalid.
    """
    if table and table.lower().endswith(".txt") and (reading.csv_columns["angle"] is None or "data.txt" in table):
        return checked(_sully_chen(archive, table, reading), reading)
    places = [table.rpartition("/")[0] + "/" * ("/" in table)] if table else _folders(archive)
    for folder in places:
        drive = _in_folder(archive, folder, table and table.rpartition("/")[2], reading)
        if drive:
            return checked(drive, reading)
    raise UserError(_nothing_found(archive))


def _in_folder(archive: Archive, folder: str, table: str | None, reading: Reading) -> Drive | None:
    """The drive whose labels are in a folder; None if there are none."""
    csvs = [name for name in archive.children(folder) if name.lower().endswith(".csv")]
    tables = [name for name in ([table] if table else csvs) if archive.contains(folder + name)]
    if tables and reading.csv_columns["angle"] is not None:
        return read_csv(archive, folder, tables, reading)
    if not table and archive.contains(f"{folder}data.txt"):
        return _sully_chen(archive, f"{folder}data.txt", reading)
    if SIMULATOR_LOG in tables:
        return read_simulator(archive, folder, reading)
    if tables:
        head = open_table(archive, folder + tables[0]).head
        angles = angle_columns(head)
        candidates = f" (of the angle perhaps {' or '.join(map(quoted, angles[:4]))})" if angles else ""
        raise UserError(
            f"{archive.where}: {folder}{tables[0]} has no known layout; name its columns{candidates}: "
            f"-S csv_columns.frame=... -S csv_columns.angle=...; its first line is {quoted(', '.join(head))}"
        )
    return None


def _folders(archive: Archive) -> Iterator[str]:
    """Folders that may hold the labels: the top, driving_dataset/, or the only folder around everything."""
    folder = ""
    for _ in range(3):
        yield folder
        if archive.contains(f"{folder}{FOLDER}/data.txt"):
            yield f"{folder}{FOLDER}/"
        around = [name for name in archive.children(folder) if name.endswith("/") and name[0] not in "._"]
        if len(around) != 1:
            break
        folder += around[0]
    below = _with_labels(archive)
    if len(below) == 1:
        yield below[0]
    elif below:
        raise UserError(
            f"{archive.where}: {len(below)} folders in it have labels ({', '.join(map(quoted, below[:5]))}); give "
            "each as a source of its own: source: [path/of/first, path/of/second]"
        )


def _with_labels(archive: Archive) -> list[str]:
    """The folders, at most three deep, that hold a data.txt or a csv."""
    found, folders = [], [""]
    for folder in folders:
        names = archive.children(folder)
        if any(name == "data.txt" or name.lower().endswith(".csv") for name in names):
            found.append(folder)
        if folder.count("/") < 3 and len(folders) < MAX_FOLDERS:
            folders += [folder + name for name in names if name.endswith("/") and name[0] not in "._"]
    return found


def _nothing_found(archive: Archive) -> str:
    names = archive.children("")
    for folder in ("", f"{FOLDER}/"):
        for name in ("data.txt", SIMULATOR_LOG, *(name for name in names if name.lower().endswith(".csv"))):
            if reason := archive.why_absent(folder + name):
                return f"{archive.where}{reason}"
    found = ", ".join(map(quoted, names[:5])) or "nothing"
    return (
        f"{archive.where}: no data.txt, no {FOLDER}/data.txt, no {SIMULATOR_LOG} and no other csv file; found {found}"
    )


def _sully_chen(archive: Archive, name: str, reading: Reading) -> Drive:
    folder = name[: name.rfind("/") + 1]
    where = f"{archive.where}: {name}"
    bad = BadLabels(where, reading.on_bad_frame)
    text = decode_text(archive.read(name), where)
    labels = parse_labels(text, where, bad)
    layout = SULLY_CHEN[any(label.time is not None for label in labels)]
    if not archive.contains(folder + labels[0].frame) and archive.contains(f"{folder}data/{labels[0].frame}"):
        folder += "data/"
    for at, label in enumerate(labels):
        if not math.isnan(label.degrees) and not archive.contains(folder + label.frame):
            reason = archive.why_absent(folder + label.frame)
            labels[at] = bad.leave_out(label, f"no frame {quoted(folder + label.frame)}{reason}")
    detected = ["decimal commas"] if re.search(r"^\s*\S+\s+[+-]?\d*,\d+\s*(,|$)", text, re.MULTILINE) else []
    return Drive(layout, folder, labels, bad, detected, as_stored=True)


def checked(drive: Drive, reading: Reading) -> Drive:
    """The drive with `label_sign` applied, if it has a usable label."""
    drive.bad.check()
    degrees = {label.degrees for label in drive.labels if not math.isnan(label.degrees)}
    if not degrees:
        reason = f"; {drive.bad}" if drive.bad.count else ""
        raise UserError(f"{drive.bad.where}: no line is a valid label with a frame{reason}")
    if reading.label_sign == 1:
        return drive
    labels = [label._replace(degrees=-label.degrees) for label in drive.labels]
    return drive._replace(labels=labels, detected=[*drive.detected, "sign reversed (label_sign)"], as_stored=False)
