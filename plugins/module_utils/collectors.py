# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Collectors: SQL files whose header says what they measure. Pure: text in, values out.

A file is one SELECT under a header of comment lines::

    -- collector: table_size
    -- scope: database
    -- interval: 60
    -- timeout: 10
    -- role: any
    -- versions: 14-17
    -- metric: table_size_mb unit=MB kind=gauge category=capacity direction=above warning=100 critical=500
    --   One or more lines that say what the metric is.

docs/monitoring.md says what each line means. The columns are the metrics, by their names, and labels: ``database``,
``schema``, ``table``, ``index`` and any others. A NULL value is no sample.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from .errors import InvalidInput

CATEGORIES = ("performance", "capacity", "availability", "security")
KINDS = ("gauge", "counter")
LABELS = ("database", "schema", "table", "index")
NAME = re.compile(r"[a-z][a-z0-9_]{0,49}\Z")
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
"""As Ansible reads them from text."""
LONGEST_ROUND = 200
"""The most values of one stored round: longer rows would be moved out of line (TOAST)."""


@dataclass(frozen=True)
class Metric:
    """One thing measured. Thresholds colour views; they raise no alerts."""

    name: str
    unit: str = "count"
    kind: str = "gauge"
    category: str = "performance"
    direction: str | None = None
    warning: float | None = None
    critical: float | None = None
    help: str = ""

    def definition(self) -> dict[str, Any]:
        """As pgops.define_shape() takes it."""
        fields = asdict(self)
        return {"metric_name": fields.pop("name"), **fields}


@dataclass(frozen=True)
class Collector:
    """One SELECT that yields metrics. ``interval`` and ``timeout`` are in seconds."""

    name: str
    query: str
    metrics: tuple[Metric, ...]
    scope: str = "instance"
    interval: int = 60
    timeout: float = 10.0
    role: str = "any"
    oldest: int = 0
    newest: int = 999

    def applies(self, major: int, in_recovery: bool) -> bool:
        """Whether this is for a server of that major version and role."""
        role = "standby" if in_recovery else "primary"
        return self.oldest <= major <= self.newest and self.role in ("any", role)


OWN = Collector(
    name="agent",
    query="",
    metrics=(
        Metric("collector_duration_ms", "ms", help="Time that a collector took, over all databases."),
        Metric("collector_errors", "count", category="availability", help="Databases where a collector failed."),
        Metric("samples_dropped", "count", "counter", "availability", help="Samples lost, ever, on the node."),
    ),
)
"""What a collection says of itself."""


@dataclass(frozen=True)
class Round:
    """One run of one collector, as it is stored: series and values stand in the same order.

    ``collected_at`` is ISO 8601 with an offset; ``origin`` says what counters count from.
    """

    collector: str
    collected_at: str
    origin: str
    series: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the series, as hex: the name of the shape."""
        return hashlib.sha256("\n".join(self.series).encode()).hexdigest()


def parse(text: str, source: str) -> Collector:
    """The collector that a file holds. ``source`` names the file in errors.

    Raises InvalidInput.
    """
    header, query = _split(text)
    if not query:
        raise InvalidInput(f"{source} holds no query below its header.")
    fields: dict[str, str] = {}
    metrics: list[Metric] = []
    for line in header:
        key, colon, value = line.strip().partition(":")
        if line.startswith("  ") and metrics:
            metrics[-1] = replace(metrics[-1], help=f"{metrics[-1].help} {line.strip()}".strip())
        elif not colon:
            raise InvalidInput(f"{source}: the header line '{line}' is not of the form 'key: value'.")
        elif key == "metric":
            metrics.append(_metric(value.split(), source))
        else:
            fields[key] = value.strip()
    return _collector(fields, metrics, query, source)


def _split(text: str) -> tuple[list[str], str]:
    lines = text.strip().splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    header = [line[2:].rstrip()[1:] for line in lines[:count] if line[2:].strip()]
    return header, "\n".join(lines[count:]).strip().rstrip(";")


def _metric(words: Sequence[str], source: str) -> Metric:
    if not words or not NAME.match(words[0]):
        raise InvalidInput(f"{source}: a metric needs a name of lower-case letters, digits and underscores.")
    options = dict(word.partition("=")[::2] for word in words[1:])
    unknown = sorted(set(options) - {"unit", "kind", "category", "direction", "warning", "critical"})
    if unknown:
        raise InvalidInput(f"{source}: metric {words[0]} has unknown properties: {', '.join(unknown)}.")
    _one_of(options.get("kind", "gauge"), KINDS, f"{source}: metric {words[0]}: kind")
    _one_of(options.get("category", "performance"), CATEGORIES, f"{source}: metric {words[0]}: category")
    _one_of(options.get("direction", "above"), ("above", "below"), f"{source}: metric {words[0]}: direction")
    thresholds = {name: _number(options.pop(name, None), f"{source}: {name}") for name in ("warning", "critical")}
    return Metric(words[0], **options, **thresholds)  # type: ignore[arg-type]


def _collector(fields: Mapping[str, str], metrics: Sequence[Metric], query: str, source: str) -> Collector:
    unknown = sorted(set(fields) - {"collector", "scope", "interval", "timeout", "role", "versions"})
    if unknown:
        raise InvalidInput(f"{source}: unknown header keys: {', '.join(unknown)}.")
    name = fields.get("collector", "")
    if not NAME.match(name):
        raise InvalidInput(f"{source}: '-- collector:' needs a name of lower-case letters, digits and underscores.")
    if not metrics:
        raise InvalidInput(f"{source}: no '-- metric:' line: a collector yields at least one metric.")
    _one_of(fields.get("scope", "instance"), ("instance", "database"), f"{source}: scope")
    _one_of(fields.get("role", "any"), ("any", "primary", "standby"), f"{source}: role")
    oldest, newest = _versions(fields.get("versions", ""), source)
    interval = _number(fields.get("interval", "60"), f"{source}: interval")
    timeout = _number(fields.get("timeout", "10"), f"{source}: timeout")
    if not interval or not timeout or interval < 1 or timeout <= 0:
        raise InvalidInput(f"{source}: interval must be 1 second or more, and timeout above 0.")
    return Collector(
        name=name,
        query=query,
        metrics=tuple(metrics),
        scope=fields.get("scope", "instance"),
        interval=int(interval),
        timeout=timeout,
        role=fields.get("role", "any"),
        oldest=oldest,
        newest=newest,
    )


def _versions(text: str, source: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d*)\s*-\s*(\d*)|(\d+)|", text)
    if not found:
        raise InvalidInput(f"{source}: versions '{text}' is none of '15', '14-16', '15-' or '-16'.")
    if found.group(3):
        return int(found.group(3)), int(found.group(3))
    return int(found.group(1) or 0), int(found.group(2) or 999)


def _one_of(value: str, allowed: Sequence[str], what: str) -> None:
    if value not in allowed:
        raise InvalidInput(f"{what} '{value}' is none of {', '.join(allowed)}.")


def _number(text: str | None, what: str) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"{what} '{text}' is not a number.") from None


def wrapped(query: str) -> str:
    """The query as one that gives a JSON object a row.

    Inside the parentheses only a single SELECT can stand, and nothing that writes.
    """
    return f"SELECT pg_catalog.to_jsonb(collected) FROM (\n{query}\n) AS collected"


def rounds(collector: Collector, rows: Iterable[Mapping[str, Any]], collected_at: str, origin: str) -> list[Round]:
    """The rows of a run as rounds of at most LONGEST_ROUND values, in an order that depends on names only,
    so that the same series always give the same shape."""
    samples = sorted(
        (json.dumps({"metric": metric.name, **labels}, sort_keys=True), float(row[metric.name]))
        for row in rows
        for labels in [_labels(row, collector)]
        for metric in collector.metrics
        if row.get(metric.name) is not None
    )
    return [
        Round(
            collector.name,
            collected_at,
            origin,
            tuple(series for series, _value in samples[start : start + LONGEST_ROUND]),
            tuple(value for _series, value in samples[start : start + LONGEST_ROUND]),
        )
        for start in range(0, len(samples), LONGEST_ROUND)
    ]


def _labels(row: Mapping[str, Any], collector: Collector) -> dict[str, Any]:
    metrics = {metric.name for metric in collector.metrics}
    present = {key: value for key, value in row.items() if key not in metrics and value is not None}
    other = {key: value for key, value in present.items() if key not in LABELS}
    named = {key: str(value) for key, value in present.items() if key in LABELS}
    return {**named, "other": other} if other else named


def due(collector: Collector, now: float, last: float | None) -> bool:
    """Whether a collector is to run at ``now`` (Unix time), after its last run.

    Intervals are counted in slots of the clock, so that a timer's jitter neither skips a run nor adds one.
    A clock that was set back makes a run due as well.
    """
    return last is None or int(now // collector.interval) != int(last // collector.interval)


def joined(shipped: Sequence[Collector], extra: Sequence[Collector]) -> list[Collector]:
    """All collectors; raises InvalidInput where two have one name, or two define one metric."""
    both = [*shipped, *extra]
    named = [OWN, *both]
    for kind, names in (
        ("collector", [found.name for found in named]),
        ("metric", [metric.name for found in named for metric in found.metrics]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput(f"The {kind} {', '.join(twice)} is defined twice.", "Give your own another name.")
    return both


def checked_settings(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of collectors, typed: interval in whole seconds, timeout in seconds, enabled.

    Raises InvalidInput.
    """
    return {str(name): _checked(f"The settings of collector {name}", settings) for name, settings in given.items()}


def _checked(what: str, settings: Any) -> dict[str, Any]:
    if not isinstance(settings, Mapping) or set(settings) - {"interval", "timeout", "enabled"}:
        raise InvalidInput(f"{what} must be a mapping with interval, timeout, enabled: {settings}.")
    typed = dict(settings)
    if "enabled" in typed:
        typed["enabled"] = BOOLEANS.get(str(typed["enabled"]).lower())
    try:
        typed.update({key: float(typed[key]) for key in ("interval", "timeout") if key in typed})
    except (TypeError, ValueError):
        raise InvalidInput(f"{what} are not numbers: {settings}.") from None
    whole = typed.get("interval", 1.0)
    if not (1 <= whole < inf and whole == int(whole) and 0 < typed.get("timeout", 1.0) < inf):
        raise InvalidInput(f"{what}: interval must be whole seconds, 1 or more, and timeout above 0: {settings}.")
    if typed.get("enabled", True) is None:
        raise InvalidInput(f"{what}: enabled must be true or false: {settings}.")
    return {**typed, "interval": int(whole)} if "interval" in typed else typed


def adjusted(found: Sequence[Collector], settings: Mapping[str, Mapping[str, Any]]) -> list[Collector]:
    """The collectors that are enabled, with the intervals and timeouts of the configuration.

    Raises InvalidInput for settings that cannot be meant, or of a collector that is not there.
    """
    checked = checked_settings(settings)
    unknown = sorted(set(checked) - {collector.name for collector in found})
    if unknown:
        raise InvalidInput(f"Collectors are configured that do not exist: {', '.join(unknown)}.")
    differing = {name: {key: own[key] for key in own if key != "enabled"} for name, own in checked.items()}
    return [
        replace(collector, **differing.get(collector.name, {}))
        for collector in found
        if checked.get(collector.name, {}).get("enabled", True)
    ]
