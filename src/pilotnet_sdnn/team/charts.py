"""The charts of dvc.yaml as pictures: `dvc plots diff` shows them in a page that needs a network, these need none."""

import hashlib
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert
from PIL import Image, ImageDraw

from pilotnet_sdnn.team.revisions import dvc_json

VEGA_LITE = "5.21"  # the templates in .dvc/plots are for version 5
SCALE = 1.5  # pixels of a picture for one of the template


class Chart(NamedTuple):
    name: str
    png: bytes

    @property
    def file_name(self) -> str:
        """Of the chart and its bytes: another picture never has the name of this one."""
        return f"{re.sub('[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{hashlib.md5(self.png).hexdigest()[:8]}.png"


def changed_charts(base: str) -> tuple[list[Chart], list[str]]:
    """A picture of each chart that differs between a base revision and here, and the names of the others."""
    changed, same = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, parts in dvc_json("plots", "diff", base, "--out", folder).get("data", {}).items():
            if not parts:  # its stage ran neither here nor at the base
                continue
            draw = _draw_images if parts[0]["type"] == "image" else _draw_vega
            png = draw(parts)
            if png:
                changed.append(Chart(name, png))
            else:
                same.append(name)
    return changed, same


def _side(revision: str) -> str:
    return "here" if revision == "workspace" else "base"


def _draw_vega(parts: list[dict]) -> bytes | None:
    """The chart, with both revisions in it, as PNG; None if they are the same."""
    (part,) = parts
    spec = json.loads(part["content"]) if isinstance(part["content"], str) else part["content"]
    for row in spec["data"]["values"]:
        row["rev"] = _side(row["rev"])
    if scale := spec["encoding"].get("color", {}).get("scale"):  # DVC's own templates give colours to revisions
        scale["domain"] = [_side(revision) for revision in scale["domain"]]
    here, base = (_drawn(spec, side) for side in ("here", "base"))
    if here == base:
        return None
    return vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=SCALE)


def _drawn(spec: dict, side: str) -> list[tuple]:
    """What a side's rows show in the chart; they have more columns than it draws."""
    fields = [spec["encoding"][axis]["field"] for axis in ("x", "y")] + ["field"]
    return [tuple(row.get(field) for field in fields) for row in spec["data"]["values"] if row["rev"] == side]


def _draw_images(parts: list[dict[str, Any]]) -> bytes | None:
    """The base's image and the one here side by side as PNG; None if they are the same."""
    files = {_side(part["revisions"][0]): Path(part["url"]).read_bytes() for part in parts}
    if files.get("base") == files.get("here"):
        return None
    images = {side: Image.open(io.BytesIO(files[side])).convert("RGB") for side in ("base", "here") if side in files}
    margin = 20
    width = sum(image.width + margin for image in images.values())
    sheet = Image.new("RGB", (width, max(image.height for image in images.values()) + margin), "white")
    left = 0
    for side, image in images.items():
        ImageDraw.Draw(sheet).text((left, 4), side, fill="black")
        sheet.paste(image, (left, margin))
        left += image.width + margin
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()
