"""Damaged files of a repository: every command that reads one says so in one short line, in bounded time and memory."""

import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clone import Clone
from small_pipeline import small_pipeline
from test_revisions import BOMB

from pilotnet_sdnn.commands import doctor, pareto, report, runs, share

REPORT, DOCTOR, RUNS, SHARE, PARETO = report.main, doctor.main, runs.main, share.main, pareto.main
DEEP = b"[" * 5_000
DAMAGED: list[tuple[str, bytes, Callable[[], None], str]] = [
    ("uv.lock", b"\xff", REPORT, "uv.lock is damaged"),
    ("uv.lock", b"package = 1", REPORT, "uv.lock is damaged"),
    ("uv.lock", b"[[package]]\nversion = 1", REPORT, "uv.lock is damaged"),
    ("uv.lock", b"a = " + DEEP, REPORT, "uv.lock is damaged"),
    ("dvc.lock", b"\xff\xfe", REPORT, "dvc.lock is damaged"),
    ("dvc.lock", b"schema: '2.0'\nstages: 1\0", REPORT, "dvc.lock is damaged"),
    ("dvc.lock", b"<<<<<<< ours\nstages:\n", REPORT, "dvc.lock is damaged"),
    ("dvc.lock", DEEP, REPORT, "dvc.lock is damaged"),
    ("dvc.lock", DEEP, DOCTOR, "nested too deeply"),
    ("dvc.lock", DEEP, SHARE, "nested too deeply"),
    *(
        (name, BOMB.encode(), command, f"{name}: YAML aliases")
        for name in ("params.yaml", "dvc.lock", "data/environment.yaml")
        for command in (REPORT, DOCTOR, RUNS, SHARE, PARETO)
    ),
    ("params.yaml", b"\xff", REPORT, "params.yaml: not valid YAML"),
    ("limits.yaml", BOMB.encode(), REPORT, "limits.yaml: YAML aliases"),
    ("metrics/count.json", b"\xff", RUNS, "no finished runs"),
    (".dvc/tmp/rwlock", b'{"read": 1}', REPORT, "rwlock"),
    (".dvc/config", b"\xff[\x1b[2J", SHARE, "config file error"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Clone:
    clone = small_pipeline(tmp_path_factory.mktemp("small"))
    (clone.path / "limits.yaml").write_text("gate: {}\n")
    clone.commit("Limits")
    clone.run("git", "branch", "-M", "main")
    return clone


@pytest.fixture
def damage(small, monkeypatch) -> Iterator[Callable[[str, bytes], None]]:
    """Writes a damaged file into the repository, the tests' folder, and takes it back at the end."""
    monkeypatch.chdir(small.path)
    for name, value in small.env.items():
        monkeypatch.setenv(name, value)
    before: dict[Path, bytes | None] = {}

    def write(name: str, content: bytes) -> None:
        path = small.path / name
        before[path] = path.read_bytes() if path.exists() else None
        path.write_bytes(content)

    yield write
    for path, content in before.items():
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)


@pytest.mark.parametrize(("name", "content", "command", "expected"), DAMAGED)
def test_damaged_file_is_one_short_line(damage, monkeypatch, name, content, command, expected):
    damage(name, content)
    monkeypatch.setattr(sys, "argv", ["command", *(["pull"] if command is SHARE else [])])
    memory, time = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, os.times().user
    with pytest.raises(SystemExit) as left:
        command()
    line = str(left.value)
    assert line.startswith("error: ") and expected in line and line.isprintable() and len(line) <= 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KB
    assert os.times().user - time < 10
    assert not Path("report.md").exists()
