"""Every source file is short, and every package and module says what it holds."""

import ast

import pytest
from clone import ROOT

PACKAGE = ROOT / "src/pilotnet_sdnn"
PYTHON = sorted(PACKAGE.rglob("*.py"))
NATIVE = sorted(file for file in PACKAGE.rglob("*") if file.suffix in (".cpp", ".h", ".hpp"))


def name(file) -> str:
    return file.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("file", PYTHON + NATIVE, ids=name)
def test_a_file_is_short_or_says_why_not(file):
    lines = file.read_text().splitlines()
    assert len(lines) <= 300 or "300 lines" in "\n".join(lines[:10])


@pytest.mark.parametrize("file", PYTHON, ids=name)
def test_a_module_says_what_it_holds(file):
    assert ast.get_docstring(ast.parse(file.read_text()))
