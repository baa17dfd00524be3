"""limits.yaml: which way a metric should go, what is noise, and how far it may move."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.params import read_mapping, suggestion

LIMITS = Path("limits.yaml")
FORMS = ("rise", "fall", "max", "min")


class Change(NamedTuple):
    """A metric at the base and here; None where it is missing, null or not a finite number."""

    old: float | None
    new: float | None

    @property
    def difference(self) -> float:
        """Of two values that are there."""
        assert self.old is not None and self.new is not None
        return self.new - self.old

    @property
    def share(self) -> float:
        """The difference as a share of the base's value; infinite where that is zero."""
        assert self.old is not None
        if self.difference == 0:
            return 0.0
        return self.difference / abs(self.old) if self.old else math.copysign(math.inf, self.difference)


class Limit(NamedTuple):
    """How far one metric may move."""

    metric: str
    form: str  # one of FORMS
    value: float  # as a share if `percent`
    percent: bool

    def __str__(self) -> str:
        value = f"{self.value:.6g} %" if self.percent else f"{self.value:.6g}"
        return f"{self.form} at most {value}" if self.form in ("rise", "fall") else f"{self.form} {value}"

    def holds(self, change: Change) -> bool:
        """Whether the limit is kept. A value that is missing or not a number keeps none."""
        if change.new is None:
            return False
        if self.form == "max":
            return change.new <= self.value
        if self.form == "min":
            return change.new >= self.value
        if change.old is None:
            return False
        moved = 100 * change.share if self.percent else change.difference
        return round(moved if self.form == "rise" else -moved, 9) <= self.value  # 3 % is 3 %, whatever its last bit


@dataclass(frozen=True)
class Limits:
    better: Mapping[str, str]
    noise: Mapping[str, float]  # percent
    gate: list[Limit]

    def check_metrics(self, metrics: Mapping[str, Change]) -> None:
        """Raise a `UserError` for a limit of a metric that there is not, and never was at the base."""
        for limit in self.gate:
            if limit.metric not in metrics:
                raise UserError(
                    f"{LIMITS}: gate: no metric {limit.metric!r}; {suggestion(limit.metric, list(metrics))}"
                )

    def verdict(self, metric: str, change: Change) -> str:
        """`better`, `worse`, `noise`, `new`, `vanished`, or nothing for a metric that is neither good nor bad."""
        if change.old is None or change.new is None:
            return "vanished" if change.new is None else "new"
        noise = self.noise_of(metric)
        if change.difference and 100 * abs(change.share) <= noise:
            return f"noise ({noise:g} %)"
        way = self.way(metric)
        if not way or change.difference == 0:
            return ""
        return "better" if (change.difference > 0) == (way == "up") else "worse"

    def way(self, metric: str) -> str:
        """Which way is good, `up` or `down`; empty if neither."""
        return _first(self.better, metric) or ""

    def noise_of(self, metric: str) -> float:
        """Percent by which the metric differs between machines; 0 where it is not known."""
        return _first(self.noise, metric) or 0.0

    def rank(self, metric: str) -> int:
        """The place of a metric in `better`, for tables with the important ones first."""
        fits = [fnmatchcase(metric, pattern) for pattern in self.better]
        return fits.index(True) if True in fits else len(fits)


def _first(patterns: Mapping[str, Any], metric: str) -> Any:
    return next((value for pattern, value in patterns.items() if fnmatchcase(metric, pattern)), None)


def load_limits(path: Path = LIMITS) -> Limits:
    """Read and check limits.yaml.

    Raises:
        UserError: the file cannot be read, or something in it is not what it must be.
    """
    sections = read_mapping(path)
    known = ["better", "noise", "gate"]
    for name in sections:
        if name not in known:
            raise UserError(f"{path}: unknown section {name!r}; {suggestion(str(name), known)}")
    better, noise, gate = (_section(path, sections, name) for name in known)
    for metric, way in better.items():
        if way not in ("up", "down"):
            raise UserError(f"{path}: better: {metric}: expected up or down, found {way!r}")
    return Limits(
        better=better,
        noise={metric: _noise(f"{path}: noise: {metric}", value) for metric, value in noise.items()},
        gate=[
            limit
            for metric, forms in gate.items()
            for limit in _metric_limits(f"{path}: gate: {metric}", metric, forms)
        ],
    )


def _section(path: Path, sections: dict, name: str) -> dict[str, Any]:
    section = sections.get(name) or {}
    if not isinstance(section, dict) or not all(isinstance(metric, str) for metric in section):
        raise UserError(f"{path}: {name}: expected 'metric: value' lines, found {section!r}")
    return section


def _noise(where: str, value: Any) -> float:
    number, percent = _quantity(where, value)
    if not percent or number < 0:
        raise UserError(f"{where}: expected a percentage such as 3 %, found {value!r}")
    return number


def _metric_limits(where: str, metric: str, forms: Any) -> list[Limit]:
    if not isinstance(forms, dict) or not forms:
        raise UserError(f"{where}: expected a limit such as {{rise: 3 %}}, found {forms!r}")
    limits = []
    for form, value in forms.items():
        if form not in FORMS:
            raise UserError(f"{where}: unknown limit {form!r}; {suggestion(str(form), list(FORMS))}")
        number, percent = _quantity(f"{where}: {form}", value)
        if percent and form in ("max", "min"):
            raise UserError(f"{where}: {form}: expected a number, found {value!r}")
        if number < 0 and form in ("rise", "fall"):
            raise UserError(f"{where}: {form}: expected a number >= 0 or a percentage, found {value!r}")
        limits.append(Limit(metric, form, number, percent))
    return limits


def _quantity(where: str, value: Any) -> tuple[float, bool]:
    """A number, and whether it is a percentage."""
    if type(value) in (int, float) and math.isfinite(value):
        return float(value), False
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?\s*%", value):
        return float(value.rstrip("% ")), True
    raise UserError(f"{where}: expected a number such as 0.01, or a percentage such as 3 %, found {value!r}")
