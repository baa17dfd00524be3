"""`dvc plots show` and `dvc plots diff` draw their charts without a network."""

import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


def browse(file: Path, picture: Path, *options: str) -> None:
    """Open a page in a real browser and take a picture of it."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not on PATH")
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", *options,
         "--virtual-time-budget=20000", f"--screenshot={picture}", file.as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip


def colours(picture: Path) -> set[tuple]:
    return {colour for _, colour in Image.open(picture).convert("RGB").getcolors(1 << 24)}


@pytest.mark.slow
def test_a_browser_draws_the_page_without_a_network(tmp_path):
    chart = '{"data": {"values": [{"a": 1}]}, "mark": "bar", "encoding": {"x": {"field": "a"}}}'
    Image.new("RGB", (9, 9), (200, 30, 40)).save(tmp_path / "drive.png")
    file = tmp_path / "page.html"
    content = f"<div id='c'></div><script>vegaEmbed('#c', {chart})</script><img src='drive.png'>"
    file.write_text(page().replace("{plot_divs}", content))
    browse(file, tmp_path / "page.png", "--host-resolver-rules=MAP * ~NOTFOUND")
    assert {(76, 120, 168), (200, 30, 40)} <= colours(tmp_path / "page.png")  # Vega's blue of a bar, and the picture


@pytest.mark.slow
def test_scripts_among_the_rows_of_a_plot_reach_nobody(tmp_path):
    """DVC does not escape them, and who can write to the remote can write rows."""
    asked = []

    class Ear(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Ear) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        tries = f"new Image().src = '{url}image'; navigator.sendBeacon('{url}beacon'); fetch('{url}fetch')"
        loaded = (
            f"<script src='{url}script'></script><link rel='stylesheet' href='{url}style'><iframe src='{url}frame'>"
        )
        for name, text in (("ours", page()), ("open", "{plot_divs}")):
            file = tmp_path / f"{name}.html"
            file.write_text(text.replace("{plot_divs}", f"<script>{tries}</script>{loaded}"))
            browse(file, tmp_path / f"{name}.png")
            assert bool(asked) == (name == "open")
        server.shutdown()
