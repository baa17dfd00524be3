"""What the last of many drives costs: time and disk.

    uv run python benchmarks/drive_list.py [--drives 20] [--frames 2000] [--rounds 5]

All drives but one are packed in a clone of this repository, by `dvc repro resize`. Then, in turns, the last one is
added to the list, and packed alone in a clone that has packed nothing. Each round has another drive. The ratio of the
medians should be under 1.2.

Disk is what the first clone's cache and data/ take when the list is full: at most 1.1 times the drives, and 10 kB for
each frame.
"""

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pilotnet_sdnn.drive import synthetic

ROOT = Path(__file__).parent.parent
PICTURES = 100  # different ones in a drive; bytes behind the end of a JPEG make each frame another file


def write_drive(folder: Path, number: int, frames: int, pictures: list[bytes]) -> None:
    """A folder with JPEGs and data.txt."""
    folder.mkdir()
    for frame in range(frames):
        (folder / f"{frame}.jpg").write_bytes(pictures[(frame + number) % len(pictures)] + f"{number} {frame}".encode())
    angles = 20 * np.sin(np.arange(frames) / 40 + number)
    (folder / "data.txt").write_text("".join(f"{frame}.jpg {angle:.3f}\n" for frame, angle in enumerate(angles)))


def clone(path: Path) -> Path:
    """A clone of this repository, with what is not committed yet."""
    subprocess.run(["git", "clone", "-q", ROOT, path], check=True)
    changed = subprocess.check_output(["git", "ls-files", "-mo", "--exclude-standard"], cwd=ROOT, text=True)
    for name in changed.splitlines():
        if (ROOT / name).is_file() and not (ROOT / name).is_relative_to(path.parent):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
    return path


def pack(repository: Path, drives: list[Path]) -> float:
    """Set `source` and run the stages that pack drives; the seconds it took."""
    params = repository / "params.yaml"
    source = f"source: [{', '.join(map(str, drives))}]"
    lines = [source if line.startswith("source:") else line for line in params.read_text().splitlines()]
    params.write_text("\n".join(lines) + "\n")
    start = time.perf_counter()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["dvc", "repro", "resize"]
    done = subprocess.run(command, cwd=repository, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - start


def bytes_on_disk(*folders: Path) -> int:
    """Of the files in folders, without counting again what is linked."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum({(status := path.stat()).st_ino: status.st_size for path in files}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drives", type=int, default=20)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    pictures = []
    for image, _ in synthetic.drive(min(PICTURES, arguments.frames), seed=0):
        Image.fromarray(image).save(jpeg := io.BytesIO(), "JPEG", quality=90)
        pictures.append(jpeg.getvalue())
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        drives = [folder / f"drive{number}" for number in range(arguments.drives - 1 + arguments.rounds)]
        for number, drive in enumerate(drives):
            write_drive(drive, number, arguments.frames, pictures)
        before, last = drives[: arguments.drives - 1], drives[arguments.drives - 1 :]
        together = clone(folder / "together")
        first = pack(together, before)
        added, alone = [], []
        for number, drive in enumerate(last):
            alone.append(pack(clone(folder / f"alone{number}"), [drive]))
            added.append(pack(together, [*before, drive]))
            if number == 0:
                used, originals = (
                    bytes_on_disk(together / ".dvc/cache", together / "data"),
                    bytes_on_disk(*before, drive),
                )
    more, only = statistics.median(added), statistics.median(alone)
    ratio = more / only
    limit = 1.1 * originals + 10_000 * arguments.frames * arguments.drives
    print(f"{len(before)} drives of {arguments.frames} frames: {first:.1f} s; one more: {more:.1f} s")
    print(f"that one alone: {only:.1f} s; ratio {ratio:.2f}, at most 1.2: {'reached' if ratio <= 1.2 else 'MISSED'}")
    print(
        f"disk: {used / 1e6:,.0f} MB for {originals / 1e6:,.0f} MB of drives; at most {limit / 1e6:,.0f}: "
        f"{'reached' if used <= limit else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
