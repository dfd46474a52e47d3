# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Collectors: SQL files whose header says what they measure. Pure.

A file is one SELECT with a header of comment lines::

    -- collector: table_size
    -- scope: database
    -- databases: shop, crm*
    -- interval: 60
    -- timeout: 10
    -- role: any
    -- versions: 15-17
    -- rights: monitor
    -- metric: table_size_mb unit=MB kind=gauge category=capacity direction=above warning=100 critical=500
    --   One or more lines that describe the metric.

docs/monitoring.md explains each line. The columns are the metrics, by their names, and labels: ``database``,
``schema``, ``table``, ``index`` and any others. A NULL value is no sample. A column ``counted_since`` is no label: it
is the time since which the counters of its row count. A column ``identity`` is no label: it tells the object whose
counters they are from any other that has, or had, the same name; in a database, it is that of an object in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from math import inf, isfinite, nan
from typing import Any

from .. import capabilities, spelling
from ..capabilities import Capability
from ..errors import InvalidInput
from ..server.names import UNREADABLE
from . import thresholds

RIGHTS = ("monitor", "host", "all_data")
"""The rights that a collector runs with: those of pg_monitor; the same, and those of the agent on its host, which
measures the disks whose paths the rows name; or those of pg_read_all_data."""
CATEGORIES = ("performance", "capacity", "availability", "security")
KINDS = ("gauge", "counter")
LABELS = ("database", "schema", "table", "index")
NAME = re.compile(r"[a-z][a-z0-9_]{0,49}\Z")
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
"""As Ansible reads them from text."""
COUNTED_SINCE = "counted_since"
IDENTITY = "identity"
SHARE = 0.002
"""The share of its interval that a collector may take before it is slowed down: 20 ms of 10 seconds."""
LONGEST_INTERVAL = 3600
"""Seconds: no collector is slowed down beyond this, or its own interval if that is longer."""
MOST_ROWS = 10_000
"""Rows of a run in a database: what users insert may be labels of one's own collectors, and each is a series."""
LONGEST_RETENTION = 3660
"""Days: each has a partition, which slows every query down a little."""


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
        """The metric as pgops.define_shape() needs it."""
        fields = asdict(self)
        return {"metric_name": fields.pop("name"), **fields}


@dataclass(frozen=True)
class Collector:
    """One SELECT that yields metrics. ``interval`` and ``timeout`` are in seconds; ``databases`` are names, or
    patterns like those of a shell, of the databases that one of scope database is for; empty for all."""

    name: str
    query: str
    metrics: tuple[Metric, ...]
    scope: str = "instance"
    interval: int = 60
    timeout: float = 10.0
    role: str = "any"
    rights: str = "monitor"
    oldest: int = 0
    newest: int = 999
    databases: tuple[str, ...] = ()

    @property
    def reads_tablespaces(self) -> bool:
        """Whether it leaves out the tablespaces that cannot be read."""
        return UNREADABLE in self.query

    def looks_into(self, database: str) -> bool:
        """Whether a database is one of those that this is for."""
        return not self.databases or any(fnmatchcase(database, pattern) for pattern in self.databases)

    def applies(self, major: int, in_recovery: bool) -> bool:
        """Whether this is for a server of that major version and role."""
        return self.for_version(major) and self.role in ("any", "standby" if in_recovery else "primary")

    def for_version(self, major: int) -> bool:
        """Whether this is for a server of that major version."""
        return self.oldest <= major <= self.newest

    def called_in(self, ops_database: str, major: int) -> bool:
        """Whether collect_database_metrics() runs it: with the rights of its caller, on a primary."""
        here = self.rights == "monitor" and self.looks_into(ops_database)
        return here and self.applies(major, in_recovery=False)

    def beside(self, other: Collector) -> bool:
        """Whether there is a server that both are for."""
        versions = self.oldest <= other.newest and other.oldest <= self.newest
        return versions and ("any" in (self.role, other.role) or self.role == other.role)


def parse(text: str, source: str) -> Collector:
    """The collector that a file holds. ``source`` names the file in errors.

    Raises InvalidInput.
    """
    header, query = _split(text)
    if not query:
        raise InvalidInput(f"{source} has no query below its header.")
    return _parsed(header, query, source)


def _parsed(header: Sequence[str], query: str, source: str) -> Collector:
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
    levels = {name: _number(options.pop(name, None), f"{source}: {name}") for name in thresholds.LEVELS}
    if thresholds.disordered(options.get("direction"), levels["warning"], levels["critical"]):
        raise InvalidInput(f"{source}: metric {words[0]}: critical is reached before warning.")
    return Metric(words[0], **options, **levels)  # type: ignore[arg-type]


def _collector(fields: Mapping[str, str], metrics: Sequence[Metric], query: str, source: str) -> Collector:
    known = {"collector", "scope", "databases", "interval", "timeout", "role", "versions", "rights"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise InvalidInput(f"{source}: unknown header keys: {', '.join(unknown)}.")
    name = fields.get("collector", "")
    if not NAME.match(name):
        raise InvalidInput(f"{source}: '-- collector:' needs a name of lower-case letters, digits and underscores.")
    if not metrics:
        raise InvalidInput(f"{source}: no '-- metric:' line; a collector needs at least one metric.")
    _one_of(fields.get("scope", "instance"), ("instance", "database"), f"{source}: scope")
    _one_of(fields.get("role", "any"), ("any", "primary", "standby"), f"{source}: role")
    _one_of(fields.get("rights", "monitor"), RIGHTS, f"{source}: rights")
    oldest, newest = _versions(fields.get("versions", ""), source)
    interval = _number(fields.get("interval", "60"), f"{source}: interval")
    timeout = _number(fields.get("timeout", "10"), f"{source}: timeout")
    if not interval or not timeout or interval < 1 or interval != int(interval) or timeout <= 0:
        raise InvalidInput(f"{source}: interval must be whole seconds, 1 or more, and timeout above 0.")
    return Collector(
        name=name,
        query=query,
        metrics=tuple(metrics),
        scope=fields.get("scope", "instance"),
        interval=int(interval),
        timeout=timeout,
        role=fields.get("role", "any"),
        rights=fields.get("rights", "monitor"),
        oldest=oldest,
        newest=newest,
        databases=_databases(fields, source),
    )


def _databases(fields: Mapping[str, str], source: str) -> tuple[str, ...]:
    if "databases" not in fields:
        return ()
    if fields.get("scope") != "database":
        raise InvalidInput(f"{source}: '-- databases:' needs '-- scope: database'.")
    patterns = tuple(pattern.strip() for pattern in fields["databases"].split(","))
    if "" in patterns:
        raise InvalidInput(f"{source}: databases '{fields['databases']}' has an empty entry.")
    return patterns


def _versions(text: str, source: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d*)\s*-\s*(\d*)|(\d+)|", text)
    if not found:
        raise InvalidInput(f"{source}: versions '{text}' must look like '15', '14-16', '15-' or '-16'.")
    if found.group(3):
        return int(found.group(3)), int(found.group(3))
    return int(found.group(1) or 0), int(found.group(2) or 999)


def _one_of(value: str, allowed: Sequence[str], what: str) -> None:
    if value not in allowed:
        raise InvalidInput(f"{what} '{value}' must be one of {', '.join(allowed)}.")


def _number(text: str | None, what: str) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise InvalidInput(f"{what} '{text}' is not a number.")
    return number


def own(capability: Capability) -> list[Collector]:
    """What the jobs of a capability measure about themselves: collectors without a query."""
    texts = re.split(r"(?=^-- collector:)", capability.metrics, flags=re.MULTILINE)
    return [_parsed(*_split(text), f"capability {capability.name}") for text in texts if text.strip()]


SELF = {found.name: found for capability in capabilities.ALL for found in own(capability)}
"""What jobs measure about themselves, by the collector's name."""
OWN, JOBS, LOGIN = SELF["agent"], SELF["jobs"], SELF["login"]
"""What a collection measures about itself, about the runs of all jobs, and whether the server lets the agent in."""
INSPECTION = replace(OWN, name="inspect", interval=600)
"""What an inspection measures about itself; it runs less often."""


def wrapped(query: str) -> str:
    """The query as one that returns a JSON object for each row, for one row more than MOST_ROWS at most.

    Inside the parentheses only a single SELECT is possible, and nothing that writes.
    """
    return f"SELECT pg_catalog.to_jsonb(collected) FROM (\n{query}\n) AS collected LIMIT {MOST_ROWS + 1}"


def placed(query: str) -> str:
    """The same in a database whose name is known from outside: where a row names its own database, it has ``true`` in
    the name's place. Inside, the name is taken for a text in the database's encoding, which it may not be."""
    own = "found.item OPERATOR(pg_catalog.->>) 'database' OPERATOR(pg_catalog.=) pg_catalog.current_database()"
    known = "found.item OPERATOR(pg_catalog.||) '{\"database\": true}'"
    # OFFSET keeps the planner from measuring a thing once for each time that its row is named.
    inside = f"{wrapped(query)}\nOFFSET 0"
    return f"SELECT CASE WHEN {own} THEN {known} ELSE found.item END FROM (\n{inside}\n) AS found (item)"


def due(collector: Collector, now: float, last: float | None) -> bool:
    """Whether a collector is to run at ``now`` (Unix time), after its last run.

    Intervals are counted in slots of the clock, so that a timer's jitter neither skips a run nor adds one.
    A clock that was set back makes a run due as well.
    """
    return last is None or int(now // collector.interval) != int(last // collector.interval)


def slowed(collector: Collector, seconds: Sequence[float], share: float = SHARE) -> Collector:
    """The collector with an interval of which its duration is a small ``share``: its own, doubled as often as needed.

    ``seconds`` are the durations of its last runs; the shortest counts, since the others may have been delayed by
    something else. A collector of disks keeps its own interval: it costs the server nothing.
    """
    interval = collector.interval
    if collector.rights == "host":
        return collector
    longest = max(LONGEST_INTERVAL, interval)
    while seconds and min(seconds) > share * interval and interval * 2 <= longest:
        interval *= 2
    return replace(collector, interval=interval)


def joined(shipped: Sequence[Collector], extra: Sequence[Collector]) -> list[Collector]:
    """All collectors.

    Raises InvalidInput if two have the same name, or define the same metric. Two that never run on the same server
    may define the same metric, with the same properties.
    """
    excessive = sorted(found.name for found in extra if found.rights != "monitor")
    if excessive:
        # A user's query may call functions of other users, which would read all data as well.
        hint = "Remove '-- rights:', and grant the role pgops the right to read what they need."
        raise InvalidInput(f"Your own collectors {', '.join(excessive)} request more rights than pg_monitor.", hint)
    both = [*shipped, *extra]
    named = [*SELF.values(), *both]
    names = [INSPECTION.name, *(found.name for found in named)]
    _refuse("collector", {name for name in names if names.count(name) > 1})
    _refuse(
        "metric", {metric.name for place, found in enumerate(named) for metric in _clashing(found, named[:place])}
    )
    return both


def _clashing(collector: Collector, others: Sequence[Collector]) -> list[Metric]:
    return [
        metric
        for metric in collector.metrics
        for other in others
        for known in other.metrics
        if known.name == metric.name and (known != metric or other.beside(collector))
    ]


def _refuse(kind: str, twice: set[str]) -> None:
    if twice:
        raise InvalidInput(f"The {kind} {', '.join(sorted(twice))} is defined twice.", "Rename your own.")


def metrics(found: Sequence[Collector]) -> dict[str, Metric]:
    """All metrics by name, including those that jobs measure about themselves."""
    return {metric.name: metric for collector in [*found, *SELF.values()] for metric in collector.metrics}


def checked_settings(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of collectors, typed: interval in whole seconds, timeout in seconds, enabled.

    Raises InvalidInput.
    """
    return {str(name): _checked(f"The settings of collector {name}", settings) for name, settings in given.items()}


def _checked(what: str, settings: Any) -> dict[str, Any]:
    if not isinstance(settings, Mapping) or set(settings) - {"interval", "timeout", "enabled"}:
        raise InvalidInput(f"{what} must be a mapping with interval, timeout, enabled: {settings}.")
    typed = dict(settings)
    if any(isinstance(typed.get(key), bool) for key in ("interval", "timeout")):
        raise InvalidInput(f"{what} are not numbers: {settings}.")
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


def checked_retention(given: Mapping[str, Any]) -> dict[str, int]:
    """Days by metric.

    Raises InvalidInput.
    """
    checked: dict[str, int] = {}
    for name, days in given.items():
        if isinstance(days, bool) or not str(days).isdecimal() or not 1 <= int(days) <= LONGEST_RETENTION:
            raise InvalidInput(f"The retention of {name} must be whole days, 1 to {LONGEST_RETENTION}: {days}.")
        checked[str(name)] = int(days)
    return checked


def adjusted(found: Sequence[Collector], settings: Mapping[str, Mapping[str, Any]]) -> list[Collector]:
    """The collectors that are enabled, with the intervals and timeouts of the configuration.

    Raises InvalidInput for invalid settings, or for an unknown collector.
    """
    checked = checked_settings(settings)
    unknown = spelling.unknown(checked, {collector.name for collector in found})
    if unknown:
        raise InvalidInput(f"pgops_collector_settings: unknown collectors {unknown}.")
    differing = {name: {key: own[key] for key in own if key != "enabled"} for name, own in checked.items()}
    return [
        replace(collector, **differing.get(collector.name, {}))
        for collector in found
        if checked.get(collector.name, {}).get("enabled", True)
    ]
