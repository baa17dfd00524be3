"""The GitHub workflows: valid, least privileged, and the comment they post is inert."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TOOLS = Path(sys.executable).parent
COMMIT = "1" * 40


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_workflows_follow_the_schema_of_github():
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_workflows_are_safe_to_zizmor():
    """Actions pinned by commit, no credentials kept, no injected text, least permissions."""
    run(TOOLS / "zizmor", "--offline", "--no-progress", *WORKFLOWS)


def test_workflows_are_right_to_actionlint():
    if not shutil.which("actionlint"):
        pytest.skip("actionlint is not on PATH")
    run("actionlint", *WORKFLOWS)


@pytest.fixture
def post(tmp_path):
    """The script of comment.yml, with a `gh` that answers from files and writes down what it is asked to post."""
    if not shutil.which("jq"):
        pytest.skip("comment.yml needs jq, which GitHub's runners have")
    (job,) = YAML(typ="safe").load(ROOT / ".github/workflows/comment.yml")["jobs"].values()
    (step,) = job["steps"]
    gh = tmp_path / "bin/gh"
    gh.parent.mkdir()
    gh.write_text(
        """#!/bin/sh
        case "$*" in
            *--method\\ GET*/pulls*) cat pulls.json ;;
            run\\ download*) test -d made && cp -R made artifact ;;
            *--paginate*) cat comments.json ;;
            *) echo "$*" > posted ;;
        esac
        """
    )
    gh.chmod(0o755)
    (tmp_path / "pulls.json").write_text(json.dumps([{"number": 7, "head": {"sha": COMMIT}}]))
    (tmp_path / "comments.json").write_text("[]")

    def post(report: str | None = None) -> tuple[str, str]:
        """The call that posts and the comment; empty if nothing is posted."""
        if report is not None:
            (tmp_path / "made").mkdir()
            (tmp_path / "made/report.md").write_text(report)
        env = {
            "PATH": f"{gh.parent}{os.pathsep}{os.environ['PATH']}", "GH_TOKEN": "none", "RUN": "3",
            "GH_REPO": "team/repo", "RUN_URL": "https://github.com/team/repo/actions/runs/3", "COMMIT": COMMIT,
            "HEAD": "stranger:branch",
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", step["run"]],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        posted, comment = tmp_path / "posted", tmp_path / "comment.md"
        return (posted.read_text(), comment.read_text()) if posted.exists() else ("", "")

    post.folder = tmp_path
    return post


def test_the_report_is_posted_once_and_then_renewed(post):
    call, comment = post("# What changes\n\n| metric | base |\n| --- | --- |\n")
    assert call == "api --method POST repos/team/repo/issues/7/comments -F body=@comment.md --silent\n"
    assert comment.startswith("<!-- sdnn-report -->\n") and COMMIT in comment
    assert "\n\n    # What changes\n    \n    | metric | base |\n    | --- | --- |\n" in comment

    ours = {"id": 5, "user": {"login": "github-actions[bot]"}, "body": comment}
    others = {"id": 4, "user": {"login": "stranger"}, "body": comment}
    (post.folder / "comments.json").write_text(json.dumps([others, ours]))
    shutil.rmtree(post.folder / "artifact")
    assert post()[0] == "api --method PATCH repos/team/repo/issues/comments/5 -F body=@comment.md --silent\n"


def test_what_a_stranger_writes_into_a_report_is_inert(post):
    """All of it is an indented block of code, whatever it is."""
    report = (
        "## Gate: passed\n\n![x](report/x.png)\n<img src=//evil.example/a.png>\n```\n</details>\n"
        "[click](https://evil.example)\n@team/all fixes #12, GH-1, &#x40;team, www.evil.example\n"
        "\r\x1b[2J\u202e\u2028x\n"
    )
    _, comment = post(report)
    _, body = comment.split(").\n\n")
    assert all(line.startswith("    ") for line in body.split("\n") if line)
    assert "    ## Gate: passed\n" in body and "    @team/all fixes #12" in body
    assert not any(mark in body for mark in "\r\x1b\u202e\u2028")


@pytest.mark.parametrize("tail", [b"\xe2\x82", b"\xff\xfe", "€".encode() * 50_000])
def test_a_report_that_ends_inside_a_character_is_posted(post, tail):
    (post.folder / "made").mkdir()
    (post.folder / "made/report.md").write_bytes(b"# What changes\n" + tail)
    call, comment = post()
    assert call and "    # What changes\n" in comment
    assert len(comment) < 65_536  # what GitHub takes


def test_nothing_is_posted_without_a_report_or_for_an_older_commit(post):
    assert post() == ("", "")
    (post.folder / "pulls.json").write_text(json.dumps([{"number": 7, "head": {"sha": "2" * 40}}]))
    assert post("# What changes\n") == ("", "")
