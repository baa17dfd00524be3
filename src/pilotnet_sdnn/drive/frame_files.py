"""Find the frames that a table names: by foreign paths, without their ending, in another folder."""

import re
from collections import defaultdict

from pilotnet_sdnn.drive.archives import Archive, inside, quoted
from pilotnet_sdnn.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".JPG", ".JPEG", ".PNG", ".BMP", ".WEBP")
MAX_DEPTH = 20  # folders of a path to look into


class FrameFiles:
    """The frames of an archive."""

    def __init__(self, archive: Archive, folder: str, frames_folder: str | None = None) -> None:
        """
        Args:
            archive: the zip or folder.
            folder: of the table: "" or "x/".
            frames_folder: of the frames, in the archive; None: that of the table, its IMG/, or the only place.
        """
        self.archive = archive
        self._near = [folder, f"{folder}IMG/"] if frames_folder is None else [frames_folder]
        self._above = "" if frames_folder is None else frames_folder
        self._ending = ""
        self._by_stem: dict[str, list[str]] | None = None
        self._folders: set[str] = set()  # names of those that hold images

    def find(self, path: str) -> str:
        """The name, in the archive, of the frame that a table calls `path`. Foreign paths match by suffix.

        Raises:
            ValueError: there is none, or several; with the message to show.
        """
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")][-MAX_DEPTH:]
        if not parts:
            raise ValueError(f"no frame {quoted(path)}")
        suffixes = ["/".join(parts[start:]) for start in range(len(parts))]
        for ending in dict.fromkeys(("", self._ending)):
            for folder in self._near:
                for suffix in suffixes if folder == self._near[0] else suffixes[-1:]:
                    if inside(suffix) and self.archive.contains(folder + suffix + ending):
                        return folder + suffix + ending
        return self._search(path, parts)

    def names_one(self, path: str) -> bool:
        """Whether there is a frame that a table calls `path`."""
        try:
            self.find(path)
        except ValueError:
            return False
        return True

    def _search(self, path: str, parts: list[str]) -> str:
        """The frame of this name anywhere, with any ending; of several, the one whose folders match best.

        If the folder that the table names holds other frames, it is not looked for elsewhere: that would be the frame
        of another camera.
        """
        found = self.by_stem().get(_stem(parts[-1]), [])
        if len(parts) > 1 and parts[-2] in self._folders:
            found = [name for name in found if _folder(name) == parts[-2]]
        matching = [_matching(name, parts) for name in found]
        best = [name for name, count in zip(found, matching, strict=True) if count == max(matching)]
        if len(best) == 1:
            self._ending = best[0][best[0].rfind(".") :]
            return best[0]
        if best:
            raise ValueError(
                f"{quoted(path)} may be {quoted(best[0])} or {quoted(best[1])}; set csv_frames to the folder of the "
                "frames, or name the file as in the folder"
            )
        raise ValueError(f"no frame {quoted(path)}{self.archive.why_absent(self._near[0] + '/'.join(parts))}")

    def named_by_times(self) -> dict[str, str]:
        """The frames whose names end in a number, in its order, to this number as text.

        Raises:
            UserError: there are none, or they are in several folders.
        """
        names = [name for found in self.by_stem().values() for name in found]
        stamps = {name: stamp[1] for name in names if (stamp := re.search(r"(\d+(?:\.\d+)?)\.\w+$", name))}
        folders = {name.rpartition("/")[0] for name in stamps}
        if len(folders) != 1:
            found = ", ".join(map(quoted, sorted(folders)[:5])) or "none"
            raise UserError(
                f"{self.archive.where}: expected frames whose names are times in one folder, found {found}; set "
                "csv_frames to the folder, or csv_columns.frame to the column of the frames"
            )
        return dict(sorted(stamps.items(), key=lambda item: float(item[1])))

    def by_stem(self) -> dict[str, list[str]]:
        """The images below the folder of the frames, by their name without folder, ending and leading zeros."""
        if self._by_stem is None:
            self._by_stem = defaultdict(list)
            for name in self.archive.files(self._above):
                if name.endswith(ENDINGS):
                    self._by_stem[_stem(name.rpartition("/")[2])].append(name)
                    self._folders.add(_folder(name))
        return self._by_stem


def _stem(name: str) -> str:
    stem = name[: name.rfind(".")] if name.endswith(ENDINGS) else name
    return stem.lstrip("0") or "0" if stem.isdigit() else stem


def _folder(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]


def _matching(name: str, parts: list[str]) -> int:
    """How many folders of a file, from the last, are those of a path."""
    count = 0
    for ours, theirs in zip(reversed(name.split("/")[:-1]), reversed(parts[:-1]), strict=False):
        if ours != theirs:
            break
        count += 1
    return count
