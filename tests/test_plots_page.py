"""`dvc plots show` and `dvc plots diff` draw their charts without a network."""

import shutil
import subprocess
import sys

import pytest
from clone import ROOT, environment
from PIL import Image

sys.path.insert(0, str(ROOT / "docs"))
from plots_page import PAGE, page


def test_the_page_is_the_one_that_its_script_writes():
    """After an upgrade of vl-convert: `uv run python docs/plots_page.py`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_dvc_fills_the_page_and_nothing_in_it_loads_from_the_web(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    subprocess.run(["dvc", "plots", "show", "-q"], cwd=clone, env=environment(clone), check=True)
    text = (clone / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "vegaEmbed('#" in text and "{plot_divs}" not in text
    assert "<script src" not in text and "<link" not in text


@pytest.mark.slow
def test_a_browser_draws_the_page_without_a_network(tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not on PATH")
    chart = '{"data": {"values": [{"a": 1}]}, "mark": "bar", "encoding": {"x": {"field": "a"}}}'
    file = tmp_path / "page.html"
    file.write_text(page().replace("{plot_divs}", f"<div id='c'></div><script>vegaEmbed('#c', {chart})</script>"))
    picture = tmp_path / "page.png"
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--virtual-time-budget=20000", f"--screenshot={picture}", file.as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    colours = {colour for _, colour in Image.open(picture).convert("RGB").getcolors(1 << 24)}
    assert (76, 120, 168) in colours  # Vega's blue of a bar
