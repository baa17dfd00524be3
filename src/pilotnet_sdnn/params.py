"""params.yaml as one frozen, validated, typed object."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from pilotnet_sdnn.errors import UserError, one_line, shown, without_password
from pilotnet_sdnn.paths import PARAMS

MAX_NAMES = 8  # of drives that are named


def _allowed(expected: str, allows: Callable[[Any], bool]) -> Any:
    return field(metadata={"expected": expected, "allows": allows})


def _integer(low: int, high: int = 10**6) -> Any:
    return _allowed(
        f"a whole number >= {low} and <= {high:,}", lambda value: type(value) is int and low <= value <= high
    )


def _is_number(value: Any) -> bool:
    """A number small enough that nothing overflows."""
    return type(value) in (int, float) and abs(value) <= 10**12  # false for NaN


def _number(expected: str, allows: Callable[[float], bool]) -> Any:
    return _allowed(expected, lambda value: _is_number(value) and allows(value))


def _positive() -> Any:
    return _number("a number > 0", lambda value: value > 0)


def _not_negative() -> Any:
    return _number("a number >= 0", lambda value: value >= 0)


def _text_or_null() -> Any:
    return _allowed("a text or null", lambda value: value is None or (isinstance(value, str) and value != ""))


def _one_of(*choices: str) -> Any:
    return _allowed("one of " + ", ".join(choices), lambda value: value in choices)


def _are_sources(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return len(names) > 0 and all(isinstance(name, str) and name != "" for name in names)


def _are_thresholds(value: Any) -> bool:
    values = value if isinstance(value, list) else [value] * 5
    return len(values) == 5 and all(_is_number(number) and number > 0 for number in values)


def _are_signs(value: Any) -> bool:
    signs = value if isinstance(value, list) else [value]
    return len(signs) > 0 and all(type(sign) is int and abs(sign) == 1 for sign in signs)


def _are_columns(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) - {"camera"} != {"frame", "angle", "time"}:
        return False
    named = {what: column for what, column in value.items() if column is not None}
    if not all(isinstance(column, str) or (type(column) is int and column >= 0) for column in named.values()):
        return False
    return not named or ("angle" in named and ("frame" in named or "time" in named))


@dataclass(frozen=True, kw_only=True)
class Params:
    """Every parameter of the pipeline; params.yaml says what each one does."""

    source: str | list[str] = _allowed(  # noqa: RUF009
        "synthetic, pilotnet, a path or an http(s) URL, or a list of these", _are_sources
    )
    synthetic_frames: int = _integer(1, 2 * 10**6)
    on_bad_frame: str = _one_of("error", "skip")
    max_gigabytes: float = _number("a number > 0 and <= 1,000,000", lambda value: 0 < value <= 10**6)
    simulator_degrees: float = _positive()
    csv_columns: dict[str, str | int | None] = _allowed(  # noqa: RUF009
        "frame, angle, time and camera, each a column's name, its number from 0 or null; an angle needs a frame or a "
        "time",
        _are_columns,
    )
    csv_camera: str | int | None = _allowed(
        "a text, a whole number or null", lambda value: value is None or (type(value) in (str, int) and value != "")
    )
    csv_frames: str | None = _text_or_null()
    csv_unit: str | None = _allowed(
        "degrees, radians, -1..1 or null", lambda value: value in ("degrees", "radians", "-1..1", None)
    )
    label_sign: int | list[int] = _allowed("1 or -1, or a list of these, one for each source", _are_signs)  # noqa: RUF009
    zero_labels: str = _one_of("auto", "repair", "keep")
    gap_frames: int = _integer(1)
    gap_seconds: float = _positive()
    seed: int = _integer(0, 2**64 - 1)
    sequence: int = _integer(2)
    split: str = _one_of("random", "blocked")
    pretrain_epochs: int = _integer(0)
    epochs: int = _integer(1)
    checkpoint_minutes: float = _positive()
    batch: int = _integer(1)
    carry: int = _integer(1)
    pretrain_lr: float = _positive()
    pretrain_weight_decay: float = _not_negative()
    lr: float = _positive()
    weight_decay: float = _not_negative()
    lam: float = _not_negative()
    event_loss: str = _one_of("synops", "published")
    max_rate: float = _not_negative()
    sparsity: float = _not_negative()
    mirror: float = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
    brightness: float = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
    contrast: float = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
    shift: int = _integer(0, 100)
    shift_degrees: float = _number("a number", lambda value: True)
    ann: bool = _allowed("true or false", lambda value: isinstance(value, bool))
    threshold: float | list[float] = _allowed(  # noqa: RUF009
        "a number > 0, or a list of five for layer-0 to layer-4", _are_thresholds
    )
    dense_threshold: float = _not_negative()
    tau_grad: float = _positive()
    scale_grad: float = _positive()
    dropout: float = _number("a number >= 0 and < 1", lambda value: 0 <= value < 1)
    weight_scale: float = _positive()
    corrected_neurons: bool = _allowed("true or false", lambda value: isinstance(value, bool))
    deploy_frames: int = _integer(2)
    energy_mac_pj: float = _positive()
    energy_add_pj: float = _not_negative()
    kernels: str = _one_of("auto", "native", "torch")
    threads: int = _integer(1, 1024)
    processes: int = _integer(1, 1024)


def drive_name(params: Mapping[str, Any]) -> str:
    """The name of the drive that parameters describe.

    Args:
        params: those of stage download, from params.yaml or dvc.lock, also of older versions.
    """
    source = params.get("source", "none")
    synthetic = synthetic_name(params.get("synthetic_frames"), params.get("seed"))
    sources = source if isinstance(source, list) else [source]
    names = [without_password(str(name)) for name in sources]
    return joint_name([synthetic if name == "synthetic" else Path(name).name for name in names])


def synthetic_name(frames: int | None, seed: int | None) -> str:
    """The name of a synthetic drive."""
    return f"synthetic road, seed {seed}, {frames} frame{'s' * (frames != 1)}"


def joint_name(names: list[str]) -> str:
    """The name of drives one after another; of many, the first and the last."""
    shown = names if len(names) <= MAX_NAMES else [*names[: MAX_NAMES - 2], "...", names[-1]]
    return "; ".join(names) if len(names) < 2 else f"{len(names)} drives: {'; '.join(shown)}"


def load_params(path: Path = PARAMS) -> Params:
    """Read and check params.yaml.

    YAML 1.2, as DVC writes it: `dvc exp run -S lam=0.00001` leaves `1e-05`, a string in YAML 1.1.

    Raises:
        UserError: the file cannot be read, or a parameter is missing, unknown or not what it must be.
    """
    values = read_mapping(path)
    known = {parameter.name: parameter for parameter in fields(Params)}
    for name in values:
        if name not in known:
            raise UserError(f"{path}: unknown parameter {shown(name)}; {suggestion(str(name), list(known))}")
    for name, parameter in known.items():
        expected = parameter.metadata["expected"]
        if name not in values:
            raise UserError(f"{path}: missing parameter {name!r}; add it as {expected}")
        if not parameter.metadata["allows"](values[name]):
            raise UserError(f"{path}: {name}: expected {expected}, found {shown(values[name])}")
    if values["processes"] > values["batch"]:
        raise UserError(
            f"{path}: processes: expected at most {values['batch']}, the sequences of a batch, found "
            f"{values['processes']}; a larger `batch` gives more of them work"
        )
    return Params(**values)


def read_mapping(path: Path) -> dict:
    """A YAML 1.2 file of `name: value` lines.

    Raises:
        UserError: the file cannot be read, or is not of this form.
    """
    try:
        return parse_mapping(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the repository") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from None


def parse_mapping(path: Path, text: str) -> dict:
    """The `name: value` lines of a file of YAML 1.2, given as text.

    Raises:
        UserError: the text is not of this form.
    """
    try:
        check_aliases(path, text)
        values = YAML(typ="safe", pure=True).load(text)
    except RecursionError:
        raise UserError(f"{path}: not valid YAML: nested too deeply") from None
    except (YAMLError, ValueError) as error:  # ValueError: a number that Python does not read, such as 2026-99-99
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected 'name: value' lines, found {type(values).__name__}")
    return values


def check_aliases(path: Path, text: str) -> None:
    """Refuse aliases in a YAML text: a few hundred bytes of them can expand to gigabytes.

    Raises:
        UserError: there is one.
        YAMLError: the text is no YAML.
    """
    if "*" in text and any(isinstance(event, AliasEvent) for event in YAML(pure=True).parse(text)):
        raise UserError(f"{path}: YAML aliases (*name) are not allowed; write the values out")


def suggestion(name: str, known: list[str]) -> str:
    """The known name that an unknown one is closest to."""
    close = difflib.get_close_matches(name[:80], known, n=1)
    return f"did you mean {close[0]!r}?" if close else "known names: " + ", ".join(known)
