"""dvc.lock: what the stages read and wrote when they last ran."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.params import check_aliases, drive_name
from pilotnet_sdnn.paths import LOCK, PARAMS


class LockedDrive(NamedTuple):
    """The drive that a dvc.lock was made from."""

    origin: str
    files: dict[str, str]  # path -> md5


def locked_stages(text: str) -> dict[str, dict]:
    """The stages of a dvc.lock, given as text; none of an empty one.

    Raises:
        UserError: it is damaged, or has unresolved conflict markers.
    """
    if not text.strip():
        return {}
    try:
        check_aliases(LOCK, text)
        return COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe", pure=True).load(text)).get("stages", {})
    except UserError:
        raise
    except Exception as error:  # YAML and DVC's schema each raise exceptions of their own
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{LOCK} is damaged{place}: `git checkout HEAD -- {LOCK}` brings back the last commit's, "
            "then `dvc repro` completes it"
        ) from None


def stage_params(stage: dict) -> dict[str, Any]:
    """The parameters with which a stage ran."""
    return stage.get("params", {}).get(PARAMS.name, {})


def locked_drive(stages: dict[str, dict]) -> LockedDrive:
    """The source of the frames, and the hashes of the files made from them."""
    download = stages.get("download", {})
    outs = [out for stage in (download, stages.get("resize", {})) for out in stage.get("outs", [])]
    return LockedDrive(drive_name(stage_params(download)), {out["path"]: out.get("md5", "") for out in outs})


def mismatched_inputs(stages: dict[str, dict]) -> Iterator[tuple[str, str]]:
    """Each stage and input whose content is not what the stage before it wrote."""
    written = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    for name, stage in stages.items():
        for dep in stage.get("deps", []):
            if dep["path"] in written and dep.get("md5") != written[dep["path"]]:
                yield name, dep["path"]
