"""dvc.yaml names every module and parameter a stage uses, and no other."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
PACKAGE = "pilotnet_sdnn"
PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
CHANGE_NO_OUTPUT = {"checkpoint_minutes"}  # so changing them must not run a stage again


def module_file(name: str) -> str | None:
    path = Path("src", *name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).exists():
            return candidate.as_posix()
    return None


def imports(file: str) -> set[str]:
    """The modules of the package that a file imports, wherever in the file it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        files = [module_file(name) for name in names if name and name.split(".")[0] == PACKAGE]
        found |= {file for file in files if file}
    return found - {f"src/{PACKAGE}/__init__.py"}


def used_modules(stage_file: str) -> set[str]:
    seen: set[str] = set()
    waiting = {stage_file}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        waiting |= imports(file) - seen
    return seen


def stage_file(stage: str) -> str:
    return f"src/{PACKAGE}/stages/{stage}.py"


def used_params(stage: str) -> set[str]:
    """The `params.name` a stage's module reads, those apart that change no output."""
    tree = ast.parse((ROOT / stage_file(stage)).read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    return read - CHANGE_NO_OUTPUT


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_modules_it_imports(stage):
    code = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}
    native = {dep for dep in code if not dep.endswith(".py")}
    assert code - native == used_modules(stage_file(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_parameters_it_reads(stage):
    assert set(STAGES[stage].get("params", [])) == used_params(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_runs_the_module_of_its_name_and_says_what_it_does(stage):
    assert STAGES[stage]["cmd"] == f"PYTHONPATH=src python -m {PACKAGE}.stages.{stage}"
    assert STAGES[stage]["desc"]


def test_stages_import_no_other_stage():
    for stage in STAGES:
        assert [m for m in imports(stage_file(stage)) if "/stages/" in m] == []


def test_only_one_module_imports_lava():
    importers = {
        file.name
        for file in (ROOT / "src" / PACKAGE).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "lava" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lava")
    }
    assert importers == {"lava.py"}


def test_every_parameter_is_used_by_a_stage():
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    assert set(params) - CHANGE_NO_OUTPUT == set().union(*(used_params(stage) for stage in STAGES))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_enters_the_run_cache(stage):
    """DVC leaves out one with `persist`, or with a `cache: false` that is neither a metric nor a plot."""
    options = [options for out in STAGES[stage].get("outs", []) if isinstance(out, dict) for options in out.values()]
    assert all(option.get("cache", True) and not option.get("persist") for option in options)
