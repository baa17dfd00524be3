"""README and docs: links lead somewhere, figures are those of metrics/, and every command works.

Generated parts are written by docs/generated.py: `uv run cog -r -I docs README.md docs/*.md` renews them.
"""

import json
import re
import shlex
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from clone import ROOT, Clone

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()

# Commands that other tests run, where they need a real server, a real drive or the whole suite.
RUN_BY = {
    r"dvc remote add -d team ssh://.*": "test_share.py::test_colleague_executes_nothing_of_what_the_team_has_run",
    r"dvc remote add -d team s3://.*": "test_share.py::test_colleague_executes_nothing_of_what_the_team_has_run",
    r"dvc remote modify .*(keyfile|endpointurl|key_id|secret_access_key) .*": (
        "test_share.py::test_colleague_executes_nothing_of_what_the_team_has_run"
    ),
    r"sdnn-onnx": "test_onnx_step.py::test_command",  # needs the group benchmark
    r"sdnn-sweep --hosts .*": "test_sweep_clusters.py::test_hosts_over_ssh",
    r"sdnn-sweep --slurm .*": "test_sweep_clusters.py::test_slurm",
    r"sdnn-sweep .*": "test_sweep.py::test_sweep_on_this_machine",
    r"dask (scheduler|worker) .*": "test_sweep_clusters.py::test_worker_killed_midway",
    r"torchrun .*|dvc commit -f train": (
        "test_processes.py::test_two_nodes_train_to_the_bits_of_two_processes_of_one_machine"
    ),
    r"dvc remote (add|modify) --global .*": (
        "test_sweep_clusters.py::test_remote_on_s3_with_credentials_that_stay_where_they_are"
    ),
}
NOT_RUN = {
    r"uv sync --extra sweep": "changes the environment that the tests run in",
    r"dvc exp run -S source=pilotnet .*": "downloads 2.2 GB and trains for half an hour",
    r"dvc exp run (-n real )?-S source=PATH/udacity.*": "trains minutes to hours on a drive that is not in here",
    r"python benchmarks/\w+\.py": "takes minutes and measures an idle machine",
    r"pytest.*|bash \.ci/run": "runs this test",
}

SMALLER = {  # what a page says -> what the test does instead
    "/mnt/team/pilotnet-sdnn": "../team",
    "https://git.example/team/pilotnet-sdnn": ".",
    "--rev v1.0.0": "--rev v1.0.0 -o ../released.pt",
    "network --stage car": "network --stage car -o ../car.pt",
    "'lam=0.002,0.01,0.05,0.2' -S 'threshold=0.03,0.1,0.3'": "'lam=0.002,0.2'",
    "epochs=60": "epochs=1",
    "git merge sparser": "! git merge sparser",  # with conflicts, left to `dvc repro`
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.M | re.S)


def commands(page: Path) -> list[str]:
    """Every command of a page's `sh` blocks, without its comment and `uv run`."""
    text = "".join(blocks(page, "sh")).replace("\\\n", " ")
    lines = [" ".join(shlex.split(line, comments=True, posix=False)) for line in text.splitlines()]
    return [re.sub("^uv run (--group benchmark )?", "", part) for line in lines if line for part in line.split(" && ")]


def first_match(command: str, patterns: dict[str, str]) -> str | None:
    return next((pattern for pattern in patterns if re.fullmatch(pattern, command)), None)


ALL_COMMANDS = [(page, command) for page in PAGES for command in commands(page)]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(page), flags=re.M)}


def test_generated_parts_are_current():
    pages = [str(page) for page in PAGES]
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "-I", "docs", *pages], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run: uv run cog -r -I docs README.md docs/*.md"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_names_every_page():
    linked = set(re.findall(r"\]\((docs/\w+\.md)", (ROOT / "README.md").read_text()))
    assert linked == {str(page.relative_to(ROOT)) for page in PAGES if page.parent.name == "docs"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    """`dataset/split.py`, `limits.yaml` and the like are paths of the repository or ends of them."""
    for name in re.findall(r"`([\w./-]+\.(?:py|cpp|yaml|toml|md|lock))`", prose(page)):
        written = name in ("report.md", "plots/operations.md")  # by a command or a stage
        assert written or any(f"/{path}".endswith(f"/{name}") for path in TRACKED), name


def test_scripts_that_a_page_runs_exist():
    scripts = [command.split()[1] for _, command in ALL_COMMANDS if command.startswith("python ")]
    assert scripts and all((ROOT / script).exists() for script in scripts)


def test_every_command_of_the_code_is_documented():
    scripts = set(re.findall(r"^(sdnn-\w+) = ", (ROOT / "pyproject.toml").read_text(), flags=re.M))
    assert scripts == {command.split()[0] for _, command in ALL_COMMANDS if command.startswith("sdnn-")}


def test_figures_of_the_default_run_in_printed_output_are_those_of_metrics():
    """Its rows in what sdnn-runs, sdnn-pareto and sdnn-report print; generated parts are checked as such."""
    metrics = {name: json.loads((ROOT / f"metrics/{name}.json").read_text()) for name in ("evaluation", "operations")}
    mse, synops = metrics["evaluation"]["mse"], round(metrics["operations"]["synops_per_frame"])
    sparsity = f"{metrics['operations']['synops_sparsity']:.1f}x"
    for page, row in {
        "experiments.md": rf"^main +{mse:.5f} .* {synops} +{sparsity} ",
        "team.md": rf"^mse +{mse:.6g} ",
    }.items():
        assert re.search(row, (ROOT / "docs" / page).read_text(), flags=re.M), row


def test_no_reason_is_left_over():
    """Every pattern is of a command that is still there, and every test that is named still exists."""
    for pattern in RUN_BY | NOT_RUN:
        assert any(re.fullmatch(pattern, command) for _, command in ALL_COMMANDS), pattern
    for test in RUN_BY.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test


@pytest.fixture
def clone(tiny_pipeline, tmp_path) -> Clone:
    """The tiny pipeline with what the pages take for granted: a git server, a shared folder, drives, a branch."""
    clone = tiny_pipeline.copy(tmp_path / "repository")
    clone.run("git", "clone", "-q", "--bare", ".", "../origin.git")
    clone.run("git", "remote", "set-url", "origin", "../origin.git")
    return clone


VERDICTS = r"\b(better|worse|mixed|same|noise|negligible|unchanged|passed|FAILED)\b"


def skeleton(line: str) -> str:
    """What is left of a line of output without figures, hashes, rulers and verdicts: it begins with the same words."""
    words = re.split(rf"\b[0-9a-f]{{7,}}\b|[-+]?\d|--+|{VERDICTS}", line)[0].split()
    return " ".join(words)  # figures also decide how wide the columns of a table are


def add_drives(clone: Clone, drive: Path) -> None:
    """A zip, a folder, and a folder with a csv of its own."""
    drives = clone.path / "drives"
    for name in ("tuesday", "own"):
        zipfile.ZipFile(drive).extractall(drives / name)
    (drives / "monday.zip").write_bytes(drive.read_bytes())
    (labels,) = (drives / "own").rglob("data.txt")
    rows = [line.split() for line in labels.read_text().splitlines()]
    labels.with_name("labels.csv").write_text(
        "\n".join(["image,steering", *(f"{name},{float(degrees) / 60}" for name, degrees in rows)])
    )
    labels.unlink()


def add_branch(clone: Clone) -> None:
    """A branch `sparser` that ran, and a main that ran something else since."""
    clone.run("git", "switch", "-q", "-c", "sparser")
    clone.set(lam=0.5)
    clone.run("dvc", "repro")
    clone.commit("Sparser")
    clone.run("git", "switch", "-q", "main")
    clone.run("dvc", "checkout")
    clone.set(energy_add_pj=0.1)
    clone.run("dvc", "repro")
    clone.commit("Cheaper additions")


def wait_for_queue(clone: Clone) -> None:
    deadline = time.monotonic() + 600
    while re.search("Running|Queued", clone.run("dvc", "queue", "status")):
        assert time.monotonic() < deadline
        time.sleep(2)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_one_after_another(page, clone, tiny_drive):
    add_drives(clone, tiny_drive)
    if page.name == "team.md":
        add_branch(clone)
    printed = ""
    for command in commands(page):
        if first_match(command, RUN_BY | NOT_RUN):
            continue
        for part, instead in SMALLER.items():
            command = command.replace(part, instead)
        if (page.name, command) == ("README.md", "dvc repro"):  # it has run
            command = "dvc repro -f -s evaluate"
        printed += clone.run("bash", "-c", command)
        if command.startswith("dvc queue start"):
            wait_for_queue(clone)
    for text in blocks(page, "python"):
        clone.run("python", "-c", text)
    seen = {skeleton(line) for line in printed.splitlines()}
    shown = {skeleton(line) for text in blocks(page, "text") for line in text.splitlines() if line != "..."}
    assert shown - seen == set()
