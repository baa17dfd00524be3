"""limits.yaml: which way a metric should go, which differences are noise or negligible, how far it may move."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from pilotnet_sdnn.errors import UserError, shown
from pilotnet_sdnn.params import parse_mapping, read_mapping, suggestion

LIMITS = Path("limits.yaml")
FORMS = ("rise", "fall", "max", "min")
SECTIONS = ("better", "noise", "negligible", "gate")
LARGEST_NUMBER = 1e100
LARGEST_PERCENT = 100.0  # a limit that lets a metric more than double limits nothing


class MetricChange(NamedTuple):
    """A metric at the base and here; None where it is missing, null or not a finite number."""

    base: float | None
    here: float | None

    @property
    def difference(self) -> float:
        """The difference of two values, neither of them None."""
        assert self.base is not None and self.here is not None
        return self.here - self.base

    @property
    def share(self) -> float:
        """The difference as a share of the base's value; infinite where that is zero."""
        assert self.base is not None
        if self.difference == 0:
            return 0.0
        return self.difference / abs(self.base) if self.base else math.copysign(math.inf, self.difference)


class Limit(NamedTuple):
    """How far one metric may move."""

    metric: str
    form: str  # one of FORMS
    value: float  # as a share if `percent`
    percent: bool

    def __str__(self) -> str:
        value = f"{self.value:.6g} %" if self.percent else f"{self.value:.6g}"
        return f"{self.form} at most {value}" if self.form in ("rise", "fall") else f"{self.form} {value}"

    def holds(self, change: MetricChange) -> bool:
        """Whether the limit is kept. A value that is missing or not a number breaks every limit."""
        if change.here is None:
            return False
        if self.form == "max":
            return change.here <= self.value
        if self.form == "min":
            return change.here >= self.value
        if change.base is None:
            return False
        moved = 100 * change.share if self.percent else change.difference
        return round(moved if self.form == "rise" else -moved, 9) <= self.value  # 3 % is 3 %, whatever its last bit


@dataclass(frozen=True)
class Limits:
    better: Mapping[str, str]
    noise: Mapping[str, float]  # percent
    gate: list[Limit]
    negligible: Mapping[str, float] = field(default_factory=dict)  # in the metric's own unit

    def check_metrics(self, metrics: Mapping[str, MetricChange]) -> None:
        """Raise a `UserError` for a limit of a metric that exists neither here nor at the base."""
        for limit in self.gate:
            if limit.metric not in metrics:
                raise UserError(
                    f"{LIMITS}: gate: no metric {limit.metric!r}; {suggestion(limit.metric, list(metrics))}"
                )

    def verdict(self, metric: str, change: MetricChange) -> str:
        """`better`, `worse`, `noise`, `negligible`, `new`, `vanished`; empty for a metric without a direction."""
        if change.base is None or change.here is None:
            return "vanished" if change.here is None else "new"
        way = self.way(metric)
        noise, negligible = self.noise_of(metric), _first(self.negligible, metric) or 0.0
        if change.difference and 100 * abs(change.share) <= noise:
            return f"noise ({noise:g} %)"
        if change.difference and abs(change.difference) <= negligible:
            return f"negligible ({negligible:g})"
        if not way or change.difference == 0:
            return ""
        return "better" if (change.difference > 0) == (way == "up") else "worse"

    def difference(self, metric: str, change: MetricChange) -> str:
        """The change in percent, or in the metric's own unit where its base is next to nothing; empty if none."""
        if change.base is None or change.here is None or change.base == change.here:
            return ""
        if abs(change.base) <= 10 * (_first(self.negligible, metric) or 0.0):
            return f"{change.difference:+.3g}"
        return f"{100 * change.share:+.1f} %"

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
        UserError: the file cannot be read, or something in it is invalid.
    """
    return _limits(path, read_mapping(path))


def parse_limits(text: str) -> Limits:
    """The limits of a limits.yaml given as text, checked as `load_limits` does."""
    return _limits(LIMITS, parse_mapping(LIMITS, text))


def _limits(path: Path, sections: dict) -> Limits:
    for name in sections:
        if name not in SECTIONS:
            raise UserError(f"{path}: unknown section {shown(name)}; {suggestion(str(name), list(SECTIONS))}")
    better, noise, negligible, gate = (_section(path, sections, name) for name in SECTIONS)
    for metric, way in better.items():
        if way not in ("up", "down"):
            raise UserError(f"{path}: better: {metric}: expected up or down, found {shown(way)}")
    return Limits(
        better=better,
        noise={metric: _percentage(f"{path}: noise: {metric}", value) for metric, value in noise.items()},
        negligible={metric: _amount(f"{path}: negligible: {metric}", value) for metric, value in negligible.items()},
        gate=[
            limit
            for metric, forms in gate.items()
            for limit in _metric_limits(f"{path}: gate: {metric}", metric, forms)
        ],
    )


def _section(path: Path, sections: dict, name: str) -> dict[str, Any]:
    section = sections.get(name) or {}
    if not isinstance(section, dict) or not all(isinstance(metric, str) and len(metric) < 100 for metric in section):
        raise UserError(f"{path}: {name}: expected 'metric: value' lines, found {shown(section)}")
    return section


def _percentage(where: str, value: Any) -> float:
    number, percent = _quantity(where, value)
    if not percent or number < 0:
        raise UserError(f"{where}: expected a percentage such as 3 %, found {shown(value)}")
    return number


def _amount(where: str, value: Any) -> float:
    number, percent = _quantity(where, value)
    if percent or number < 0:
        raise UserError(f"{where}: expected a number such as 0.01, found {shown(value)}")
    return number


def _metric_limits(where: str, metric: str, forms: Any) -> list[Limit]:
    if not isinstance(forms, dict) or not forms:
        raise UserError(f"{where}: expected a limit such as {{rise: 3 %}}, found {shown(forms)}")
    limits = []
    for form, value in forms.items():
        if form not in FORMS:
            raise UserError(f"{where}: unknown limit {shown(form)}; {suggestion(str(form), list(FORMS))}")
        number, percent = _quantity(f"{where}: {form}", value)
        if percent and form in ("max", "min"):
            raise UserError(f"{where}: {form}: expected a number, found {shown(value)}")
        if number < 0 and form in ("rise", "fall"):
            raise UserError(f"{where}: {form}: expected a number >= 0 or a percentage, found {shown(value)}")
        if percent and number > LARGEST_PERCENT:
            raise UserError(f"{where}: {form}: expected at most {LARGEST_PERCENT:g} %, found {shown(value)}")
        limits.append(Limit(metric, form, number, percent))
    return limits


def _quantity(where: str, value: Any) -> tuple[float, bool]:
    """A number, and whether it is a percentage."""
    if type(value) in (int, float) and abs(value) <= LARGEST_NUMBER:
        return float(value), False
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?\s*%", value):
        return float(value.rstrip("% ")), True
    raise UserError(f"{where}: expected a number such as 0.01, or a percentage such as 3 %, found {shown(value)}")
