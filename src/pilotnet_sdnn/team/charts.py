"""The charts of dvc.yaml as pictures, for a report."""

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert
from dvc.repo import Repo
from dvc.repo.plots import infer_data_sources, onerror_collect
from PIL import Image, ImageDraw

from pilotnet_sdnn.team.revisions import dvc_json

VEGA_LITE = "6.4"  # that of .dvc/plots_page.html; with 5, vl-convert ignores tickMinStep
SCALE = 1.5  # pixels of a picture for one of the template
MAX_BYTES = 2**20  # of a file that is drawn: DVC and Vega take hundreds of bytes of memory for each
MAX_PIXELS = 10_000_000  # of an image
PAIRS = [  # Vega's scheme tableau20: a dark and a light colour of one hue
    ("#4c78a8", "#9ecae9"), ("#f58518", "#ffbf79"), ("#54a24b", "#88d27a"), ("#b79a20", "#f2cf5b"),
    ("#439894", "#83bcb6"), ("#e45756", "#ff9d98"), ("#79706e", "#bab0ac"), ("#d67195", "#fcbfd2"),
    ("#b279a2", "#d6a5c9"), ("#9e765f", "#d8b5a5"),
]  # fmt: skip

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is lower


class Chart(NamedTuple):
    name: str
    png: bytes

    @property
    def file_name(self) -> str:
        """From the chart's name and bytes: no other picture has this file name."""
        return f"{re.sub('[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{hashlib.md5(self.png).hexdigest()[:8]}.png"


class Charts(NamedTuple):
    """The charts of a base revision and of here."""

    changed: list[Chart]
    same: list[str]
    left_out: list[str]  # to draw them would take minutes and gigabytes


def find_charts(base: str) -> Charts:
    """A picture of each chart that differs between a base revision and here, and the names of the others."""
    drawable, left_out = _by_size(base)
    found = Charts([], [], left_out)
    with tempfile.TemporaryDirectory() as folder:
        targets = [re.sub(r"[^\w/-]", ".", name) + "$" for name in drawable]  # DVC takes regular expressions
        content = dvc_json("plots", "diff", base, "--out", folder, "--targets", *targets) if targets else {}
        for name, parts in content.get("data", {}).items():
            if not parts:  # its stage ran neither here nor at the base
                continue
            draw = _draw_images if parts[0]["type"] == "image" else _draw_vega
            try:
                png = draw(parts)
            except _TooLargeError:
                found.left_out.append(name)
                continue
            if png:
                found.changed.append(Chart(name, png))
            else:
                found.same.append(name)
    return found


class _TooLargeError(Exception):
    """A picture of more pixels than are shown."""


def _by_size(base: str) -> tuple[list[str], list[str]]:
    """The names of the charts whose files are small enough on both sides, and those of the others."""
    fits: dict[str, bool] = {}
    with Repo() as repo:
        for state in repo.plots.collect(revs=[base, "workspace"], onerror=onerror_collect):  # repo now shows that state
            for name, file in _files(state):
                small = not repo.dvcfs.exists(file) or repo.dvcfs.size(file) <= MAX_BYTES
                fits[name] = fits.get(name, True) and small
    return [name for name, small in fits.items() if small], [name for name, small in fits.items() if not small]


def _files(state: dict) -> Iterator[tuple[str, str]]:
    """Each chart of a revision, as DVC describes them, with each file that it is drawn from."""
    for revision in state.values():
        for origin in revision["definitions"].get("data", {}).values():
            for name, properties in origin.get("data", {}).items():
                for file in infer_data_sources(name, properties):
                    yield name, file


def _side(revision: str) -> str:
    return "here" if revision == "workspace" else "base"


def _draw_vega(parts: list[dict]) -> bytes | None:
    """The chart, with both revisions in it, as PNG; None if they are the same.

    A series has one colour, light at the base and dark here. One that has not changed, such as labels, is drawn once.
    """
    (part,) = parts
    spec = json.loads(part["content"]) if isinstance(part["content"], str) else part["content"]
    encoding = spec["encoding"]
    series: dict[str, dict[str, list[dict]]] = {}  # name -> side -> rows
    for row in spec["data"]["values"]:
        series.setdefault(row.get("field", ""), {}).setdefault(_side(row["rev"]), []).append(row)
    drawn = [encoding[axis]["field"] for axis in ("x", "y")]  # rows have more columns
    same = {name for name, sides in series.items() if _points(sides, "here", drawn) == _points(sides, "base", drawn)}
    if same == series.keys():
        return None
    rows, colours = [], {}
    for (name, sides), (dark, light) in zip(series.items(), cycle(PAIRS)):
        for side, colour in (("base", light), ("here", dark)):
            if side in sides and (side == "here" or name not in same):
                called = name if name in same else f"{name}, {side}".removeprefix(", ")
                colours[called] = colour
                rows += [{**row, "drawn": called} for row in sides[side]]
    if any(len(points) == 1 for sides in series.values() for points in sides.values()):
        spec["mark"] = {**spec["mark"], "point": True}  # a line through one point is none
    spec["data"]["values"] = rows
    scale = {"domain": list(colours), "range": list(colours.values())}
    encoding["color"] = {"field": "drawn", "type": "nominal", "title": None, "scale": scale}
    encoding.pop("strokeDash", None)
    if "xOffset" in encoding:
        encoding["xOffset"] = {"field": "drawn", "sort": list(colours)}
    return vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=SCALE)


def _points(sides: dict[str, list[dict]], side: str, fields: list[str]) -> list[tuple]:
    return [tuple(row.get(field) for field in fields) for row in sides.get(side, [])]


def _draw_images(parts: list[dict[str, Any]]) -> bytes | None:
    """The base's image and the one here side by side as PNG; None if they are the same."""
    files = {_side(part["revisions"][0]): Path(part["url"]).read_bytes() for part in parts}
    if files.get("base") == files.get("here"):
        return None
    images = {side: Image.open(io.BytesIO(files[side])) for side in ("base", "here") if side in files}
    if any(image.width * image.height > MAX_PIXELS for image in images.values()):
        raise _TooLargeError
    margin = 20
    width = sum(image.width + margin for image in images.values())
    sheet = Image.new("RGB", (width, max(image.height for image in images.values()) + margin), "white")
    left = 0
    for side, image in images.items():
        ImageDraw.Draw(sheet).text((left, 4), side, fill="black")
        sheet.paste(image.convert("RGB"), (left, margin))
        left += image.width + margin
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()
