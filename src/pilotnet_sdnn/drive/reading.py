"""How drives are read, and what comes out."""

from typing import NamedTuple

from pilotnet_sdnn.drive.labels import BadLabels, Label
from pilotnet_sdnn.drive.tables import Columns

FROM_MINUS_1_TO_1 = "-1..1"
NO_COLUMNS: Columns = {"frame": None, "angle": None, "time": None, "camera": None}


class Reading(NamedTuple):
    """How to read drives, as in params.yaml."""

    on_bad_frame: str = "error"
    simulator_degrees: float = 25
    csv_columns: Columns = NO_COLUMNS
    csv_unit: str | None = None
    max_gigabytes: float = 50
    csv_camera: str | int | None = None
    csv_frames: str | None = None
    label_sign: int = 1

    @property
    def camera_column(self) -> str | int | None:
        """The column that tells cameras apart."""
        return self.csv_columns.get("camera")


class Drive(NamedTuple):
    """A drive in its original layout."""

    layout: str
    folder: str  # of the frames in the archive: "" or "x/"
    labels: list[Label]  # with nan degrees for frames to leave out
    bad: BadLabels
    detected: list[str]  # what the log says about it
    as_stored: bool = False  # its data.txt has the labels as they are used
