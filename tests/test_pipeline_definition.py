"""dvc.yaml names the code, parameters and libraries that each stage uses, and no others.

Which packages may import which is a contract in pyproject.toml: `uv run lint-imports` checks it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pilotnet_sdnn.stages.environment import LIBRARIES

ROOT = Path(__file__).parent.parent
PACKAGE = Path("src/pilotnet_sdnn")
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
ENVIRONMENT = "data/environment.yaml"

COMMON = ("__init__", "drive_files", "errors", "interrupts", "params", "paths", "progress")
CHANGE_NO_OUTPUT = {f"{name}.py" for name in COMMON}
PARAMS_THAT_CHANGE_NO_OUTPUT = {"checkpoint_minutes"}
TRAINING = {"pretrain", "train", "calibrate"}
MEASURING = {"export", "evaluate", "compare_ops", "simulate_loihi"}
IMPORTED_AS = {"PIL": "pillow", "cv2": "opencv-python-headless", "lava": "lava-dl"}


def module_file(name: str) -> Path | None:
    path = Path("src", *name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if (ROOT / file).exists()), None)


def imported_names(file: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def used_files(stage: str) -> set[Path]:
    """The modules of the package that a stage runs, directly or through others."""
    seen: set[Path] = set()
    waiting = {PACKAGE / "stages" / f"{stage}.py"}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        found = {module_file(name) for name in imported_names(file) if name.startswith("pilotnet_sdnn")}
        waiting |= {file for file in found if file} - seen
    return seen - {PACKAGE / name for name in CHANGE_NO_OUTPUT}


def code_deps(stage: str) -> set[Path]:
    return {Path(dep) for dep in STAGES[stage]["deps"] if dep.startswith("src/")}


def declared_params(stage: str, file: str) -> set[str]:
    return {name for group in STAGES[stage].get("params", []) for name in group.get(file, [])}


def used_params(stage: str) -> set[str]:
    """The `params.name` that a stage's module reads, except those that change no output."""
    tree = ast.parse((ROOT / PACKAGE / "stages" / f"{stage}.py").read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    return read - PARAMS_THAT_CHANGE_NO_OUTPUT


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_module_lies_under_a_declared_dependency(stage):
    deps = code_deps(stage)
    undeclared = [file for file in used_files(stage) if file.name != "__init__.py" and not deps & {file, *file.parents}]
    assert undeclared == []


@pytest.mark.parametrize("stage", STAGES)
def test_every_declared_package_is_imported(stage):
    files = used_files(stage)
    unused = [dep for dep in code_deps(stage) if not any(dep in (file, *file.parents) for file in files)]
    assert unused == []


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_parameters_it_reads(stage):
    assert declared_params(stage, "params.yaml") == used_params(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_only_on_libraries_it_imports(stage):
    imported = {name.split(".")[0] for file in used_files(stage) for name in imported_names(file)}
    packages = {IMPORTED_AS.get(name, name) for name in imported}
    packages |= {"lava-nc"} & ({"lava-nc"} if "lava-dl" in packages else set())  # lava-dl's simulator
    assert declared_params(stage, ENVIRONMENT) <= packages


def test_every_library_of_the_environment_is_used_by_a_stage():
    assert set(LIBRARIES) == set().union(*(declared_params(stage, ENVIRONMENT) for stage in STAGES))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_runs_the_module_of_its_name_and_says_what_it_does(stage):
    assert STAGES[stage]["cmd"] == f"PYTHONPATH=src python -m pilotnet_sdnn.stages.{stage}"
    assert STAGES[stage]["desc"]


def test_dvc_lock_names_only_stages_of_dvc_yaml():
    """DVC keeps the entry of a stage that was renamed, and what reads dvc.lock then calls it stale."""
    lock = YAML(typ="safe").load((ROOT / "dvc.lock").read_text())["stages"]
    assert set(lock) <= set(STAGES)


def test_only_one_module_imports_lava():
    importers = {
        file.relative_to(ROOT / PACKAGE).as_posix()
        for file in (ROOT / PACKAGE).rglob("*.py")
        if any(name.split(".")[0] == "lava" for name in imported_names(file))
    }
    assert importers == {"sdnn/lava.py"}


def test_every_parameter_is_used_by_a_stage():
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    assert set(params) - PARAMS_THAT_CHANGE_NO_OUTPUT == set().union(*(used_params(stage) for stage in STAGES))


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "environment"])
def test_stage_enters_the_run_cache(stage):
    """DVC leaves out a stage with `persist`, or with a `cache: false` that is neither a metric nor a plot."""
    options = [options for out in STAGES[stage].get("outs", []) if isinstance(out, dict) for options in out.values()]
    assert all(option.get("cache", True) and not option.get("persist") for option in options)


@pytest.fixture
def clone(tiny_pipeline, tmp_path):
    """A copy of the tiny pipeline, which has run, to change at will."""
    return tiny_pipeline.copy(tmp_path / "repository")


def stale(clone) -> set[str]:
    """The stages that `dvc status` names for a changed dependency, of themselves or of a stage before them."""
    return {line.removesuffix(":") for line in clone.run("dvc", "status").splitlines() if line.endswith(":")} & set(
        STAGES
    )


@pytest.mark.parametrize(
    ("library", "stages"),
    [
        (
            "torch",
            {"pretrain", "train", "calibrate", "train_ann", "export", "evaluate", "compare_ops", "simulate_loihi"},
        ),
        ("lava-dl", {"pretrain", "train", "calibrate", "export", "evaluate", "compare_ops", "simulate_loihi"}),
        ("h5py", {"resize", "export", "simulate_loihi"}),
        ("pillow", {"download", "resize"}),
        ("ruff", set()),
    ],
)
def test_an_upgrade_in_the_lock_runs_the_stages_whose_results_it_may_change(clone, library, stages):
    lock = clone.path / "uv.lock"
    before, _, after = lock.read_text().rpartition(f'name = "{library}"\nversion = "')
    lock.write_text(f'{before}name = "{library}"\nversion = "99.{after}')
    assert stale(clone) == {"environment"}
    clone.run("dvc", "repro", "environment")
    assert stale(clone) == stages


def test_an_edit_runs_the_stages_it_touches(clone):
    """Parameters' validation, reports, commands and the video change no output."""
    for file in ("params.py", "team/report.py", "commands/report.py", "video/scenes.py"):
        path = clone.path / PACKAGE / file
        path.write_text(path.read_text() + "\n# an edit\n")
    assert stale(clone) == set()
    path = clone.path / PACKAGE / "measure/steering.py"
    path.write_text(path.read_text() + "\n# an edit\n")
    assert "train" not in stale(clone) and {"evaluate", "compare_ops"} <= stale(clone)


def test_dvc_started_without_the_environment_says_how_to_start_it(tiny_pipeline):
    """`.venv/bin/dvc` without activation: `python` is one that has nothing installed."""
    bare = subprocess.run(
        [sys.executable, "-S", "-m", "pilotnet_sdnn.stages.train"],  # -S: without site-packages
        cwd=tiny_pipeline.path, env=tiny_pipeline.env, capture_output=True, text=True,
    )  # fmt: skip
    assert bare.returncode == 1
    assert len(bare.stderr.splitlines()) == 1 and "uv run dvc" in bare.stderr
