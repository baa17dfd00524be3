"""The working tree against a base: paths from the root of the DVC repository, and text that stays text."""

import re
import subprocess
from pathlib import Path

import pytest
from clone import ROOT, environment

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.team.charts import Chart, Charts
from pilotnet_sdnn.team.limits import Limit, Limits, MetricChange, load_limits, parse_limits
from pilotnet_sdnn.team.lock import LockedDrive
from pilotnet_sdnn.team.markdown import inert, table
from pilotnet_sdnn.team.report import Comparison, Versions, changed_gate, render
from pilotnet_sdnn.team.repository import enter_root, file_at, git
from pilotnet_sdnn.team.revisions import changed_files, experiment_here, merge_base

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A DVC repository in the folder `net` of a larger git repository, on a branch of main; the tests' folder."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "net"
    (folder / "src").mkdir(parents=True)
    run = lambda *command: subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: E731
    run("git", "init", "-q", "-b", "main", "..")
    run("dvc", "init", "-q", "--subdir")
    for name in ("params.yaml", "dvc.lock", "src/code.py", "../other.txt"):
        (folder / name).write_text(f"{name}: 1\n")
    run("git", "add", "-A", "..")
    run("git", "commit", "-q", "-m", "Base")
    run("git", "switch", "-q", "-c", "change")
    monkeypatch.chdir(folder)
    return folder


def test_files_changed_besides_results_are_all_found(project):
    (project / "dvc.lock").write_text("other")
    (project / "src/code.py").write_text("other")
    (project / "../other.txt").unlink()
    (project / "new é.txt").write_text("new")
    assert changed_files("main", {"dvc.lock"}) == {
        "../other.txt": "deleted", "new é.txt": "untracked", "src/code.py": "changed",
    }  # fmt: skip


def test_files_of_a_revision_count_from_the_project(project):
    (project / "params.yaml").write_text("other")
    assert file_at("main", "params.yaml") == "params.yaml: 1\n"
    assert file_at("main", "nothing.txt") == ""


def test_commands_work_from_a_folder_inside(project, monkeypatch):
    monkeypatch.chdir(project / "src")
    assert enter_root() == project / "src"
    assert Path.cwd() == project


def test_outside_a_repository_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run the command inside your clone"):
        enter_root()


def test_without_a_local_main_that_of_origin_is_the_base(project, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "-b", "change", tmp_path, clone], check=True)
    monkeypatch.chdir(clone)
    assert git("branch", "--format=%(refname:short)") == "change"
    assert merge_base("main") == git("rev-parse", "origin/main")


def test_an_experiment_of_an_older_commit_is_named(project):
    """As `dvc exp apply` leaves it: its dvc.lock is here, and its base is not where this work left main."""
    start = git("rev-parse", "HEAD")
    (project / "dvc.lock").write_text("of the experiment")
    git("commit", "-q", "-a", "-m", "Experiment")
    git("update-ref", f"refs/exps/{start[:2]}/{start[2:]}/pick", "HEAD")
    git("reset", "-q", "--hard", start)
    assert experiment_here(start) is None
    git("commit", "-q", "--allow-empty", "-m", "A colleague's fix")
    (project / "dvc.lock").write_text("of the experiment")
    assert experiment_here(git("rev-parse", "HEAD")) == ("pick", start)
    assert experiment_here(start) is None


@pytest.mark.parametrize(
    "text",
    [
        "## Gate: passed", "![x](//evil.example/x.png)", "<img src=x>", "@team", "&#x40;team", "GH-1", "#12", "[x]: y",
        "www.evil.example", "https://evil.example", "a`b``c", "`", "**", "~~~", "$x$",
    ],
)  # fmt: skip
def test_what_others_write_is_code_in_a_report(text):
    written = inert(text)
    fence = written[: len(written) - len(written.lstrip("`"))]
    assert fence and written.endswith(fence) and fence not in written[len(fence) : -len(fence)]
    assert written[len(fence) : -len(fence)].strip() == text


def test_a_report_shows_as_code_whatever_its_author_chose():
    """Names and values of every kind, through the whole report."""
    text = "a\n## Gate: passed\n![x](//evil.example/x.png) <img src=//evil.example> @evil"
    drive = LockedDrive(text, {text: text})
    comparison = Comparison(
        base_name=text, base="0" * 40, here="1" * 8, files={text: "added"}, experiment=(text, "2" * 40), base_gate=[],
        params={text: (text, text)}, metrics={text: MetricChange(1, 2), f"layers.{text}.events": MetricChange(1, 2)},
        stale={text: [text]}, drives=(drive, LockedDrive("other", {})), versions=Versions({"torch": text}, {}),
        threads=text, charts=Charts([Chart(text, b"")], [text], [text]),
    )  # fmt: skip
    written = render(comparison, Limits({}, {}, [Limit(text, "rise", 3, True)]), "report")
    shown_as_text = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", written)
    assert written.count("@evil") > 20 and not re.search(r"evil\.|@evil|<img", shown_as_text)
    assert re.findall("^## Gate.*", written, re.M) == ["## Gate: FAILED"]


def test_harmless_text_is_plain_and_long_text_is_cut():
    assert inert("plots/events.csv") == "plots/events.csv"
    assert inert("lam 0.05") == "lam 0.05"
    assert "\n" not in inert("a\n## Gate: passed\x1b[2J")
    assert len(inert("x" * 1_000_000)) <= 310


def test_a_cell_does_not_end_its_column():
    assert len({line.count("|") for line in table(("a", "b"), [("x|y", "z\\|"), ("1", "`|`")]).splitlines()}) == 1


@pytest.mark.parametrize("read", [load_limits, load_params])
def test_aliases_that_stand_for_gigabytes_are_refused(tmp_path, read):
    path = tmp_path / "file.yaml"
    path.write_text(BOMB)
    with pytest.raises(UserError) as refused:
        read(path)
    assert len(str(refused.value)) < 300 and "aliases" in str(refused.value)


@pytest.mark.parametrize("text", [f"gate: [{'x, ' * 100_000}]", f"gate: {{mse: {'9' * 5000}}}", "gate: " + "[" * 5000])
def test_what_a_message_shows_is_short(tmp_path, text):
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_limits(path)
    assert len(str(refused.value).replace(str(tmp_path), "")) < 300 and "\n" not in str(refused.value)


def test_a_limit_that_limits_nothing_is_refused():
    with pytest.raises(UserError, match="gate: mse: rise: expected at most 100 %, found '999999 %'"):
        parse_limits("gate: {mse: {rise: 999999 %}}")


def test_loosened_limits_are_told():
    base = [Limit("mse", "rise", 3, True), Limit("r2", "min", 0.5, False)]
    lines = changed_gate(base, [Limit("mse", "rise", 90, True)])
    assert lines == [
        "limits.yaml: the limit mse rise at most 3 % of the base is gone",
        "limits.yaml: the limit r2 min 0.5 of the base is gone",
        "limits.yaml: the limit mse rise at most 90 % is new",
    ]
    assert changed_gate(base, base) == changed_gate(None, base) == []


@pytest.mark.parametrize(
    ("metric", "change", "difference", "verdict"),
    [
        ("layers.layer-7.events", MetricChange(0.007, 0.013), "+0.006", "negligible (0.5)"),
        ("r2", MetricChange(0.02, 0.05), "+0.03", "better"),
        ("r2", MetricChange(0.02, 0.025), "+0.005", "negligible (0.01)"),
        ("best_test_mse", MetricChange(0.01, 0.02), "+100.0 %", ""),  # evaluation.json's mse once more
        ("mse", MetricChange(0.01, 0.02), "+100.0 %", "worse"),
    ],
)
def test_differences_are_compared_as_they_matter(metric, change, difference, verdict):
    limits = load_limits(ROOT / "limits.yaml")
    assert limits.difference(metric, change) == difference
    assert limits.verdict(metric, change) == verdict


def test_git_keeps_the_bytes_of_text_whatever_autocrlf_says(tmp_path):
    """Otherwise every stage is stale on such a machine, and its dvc.lock has hashes that nobody else gets."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", ROOT, clone], check=True)
    files = subprocess.run(["git", "ls-files", "--eol"], cwd=clone, check=True, capture_output=True, text=True).stdout
    assert "w/lf" in files and "w/crlf" not in files
