# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Thresholds of metrics: the values beyond which one is a warning, or critical. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import spelling
from ..errors import InvalidInput

LEVELS = ("warning", "critical")


def checked(given: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The user's thresholds as numbers; None keeps the metric's own level.

    Raises InvalidInput.
    """
    numbers: dict[str, dict[str, float | None]] = {}
    for name, values in given.items():
        what = f"The thresholds of {name}"
        if not isinstance(values, Mapping) or set(values) - set(LEVELS):
            raise InvalidInput(f"{what} must be a mapping with 'warning' and 'critical'.")
        numbers[str(name)] = {level: _number(value, f"{what}: {level}") for level, value in values.items()}
    return numbers


def _number(value: Any, what: str) -> float | None:
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{what} must be a number, not {value!r}.")
    return number


def check(wanted: Mapping[str, Mapping[str, float | None]], metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that thresholds belong to existing metrics, and that they are consistent with the metrics' own properties
    (``direction``, ``warning``, ``critical``).

    Raises InvalidInput.
    """
    unknown = spelling.unknown(wanted, metrics)
    if unknown:
        hint = "docs/metrics.md lists the metrics; your own must be in pgops_collectors."
        raise InvalidInput(f"pgops_thresholds: unknown metrics {unknown}.", hint)
    for name, own in wanted.items():
        shipped = metrics[name]
        warning, critical = (shipped[level] if own.get(level) is None else own[level] for level in LEVELS)
        if disordered(shipped["direction"], warning, critical):
            larger = "larger" if shipped["direction"] == "above" else "smaller"
            inherited = [level for level in LEVELS if own.get(level) is None]
            origin = f" ({inherited[0]} is the metric's own)" if inherited else ""
            raise InvalidInput(
                f"Thresholds of {name}: warning {warning:g} is beyond critical {critical:g}{origin}.",
                f"The metric's direction is {shipped['direction']}, so critical must be the {larger} one.",
            )


def disordered(direction: str | None, warning: float | None, critical: float | None) -> bool:
    """Whether a value would be critical before it is a warning; never without a direction."""
    if warning is None or critical is None:
        return False
    return (direction == "above" and warning > critical) or (direction == "below" and warning < critical)
