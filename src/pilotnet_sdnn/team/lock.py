"""dvc.lock: what the stages read and wrote when they last ran."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from pilotnet_sdnn.params import drive_name
from pilotnet_sdnn.paths import PARAMS


class LockedDrive(NamedTuple):
    """The data of a dvc.lock."""

    origin: str
    files: dict[str, str]  # path -> md5


def locked_stages(text: str) -> dict[str, dict]:
    """The stages of a dvc.lock, given as text; none of an empty one."""
    return (YAML(typ="safe", pure=True).load(text) or {}).get("stages", {})


def stage_params(stage: dict) -> dict[str, Any]:
    """The parameters with which a stage ran."""
    return stage.get("params", {}).get(PARAMS.name, {})


def locked_drive(stages: dict[str, dict]) -> LockedDrive:
    """Where the frames come from, and the fingerprints of what was made of them."""
    download = stages.get("download", {})
    outs = [out for stage in (download, stages.get("resize", {})) for out in stage.get("outs", [])]
    return LockedDrive(drive_name(stage_params(download)), {out["path"]: out.get("md5", "") for out in outs})


def mismatched_inputs(stages: dict[str, dict]) -> Iterator[tuple[str, str]]:
    """The stages and inputs where the input is another than the stage before it left."""
    written = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    for name, stage in stages.items():
        for dep in stage.get("deps", []):
            if dep["path"] in written and dep.get("md5") != written[dep["path"]]:
                yield name, dep["path"]
