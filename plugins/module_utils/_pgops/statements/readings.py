# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The usage of statements between two readings of pg_stat_statements. Pure.

The server has only sums, for a limited number of statements of those sessions that it tracks, and drops the least
used for new ones. So a difference is exact for the statements in it, and its coverage is the share of the time that
sessions were active for which these account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

FORMAT = 2
KEY = ("dbid", "userid", "queryid", "toplevel")
SUMS = (
    *("calls", "exec_ms", "plan_ms", "row_count", "shared_blks_hit", "shared_blks_read", "shared_blks_dirtied"),
    *("shared_blks_written", "local_blks_read", "local_blks_written", "temp_blks_read", "temp_blks_written"),
    *("read_ms", "write_ms", "wal_bytes", "wal_records", "wal_fpi"),
)
"""The counters of a statement; plan_ms and those after temp_blks_written are None if the server has none."""

MOST = 500
"""Statements that are stored one by one, of those that took the most time."""

MOST_BY_OTHERS = 20
"""Statements that are stored in addition, by each of the other orders."""

ORDERS: tuple[tuple[str, ...], ...] = (
    ("calls",),
    ("row_count",),
    ("shared_blks_read", "shared_blks_written", "local_blks_read", "local_blks_written"),
    ("temp_blks_read", "temp_blks_written"),
    ("wal_bytes",),
    ("plan_ms",),
)

OF_ONE = (
    *("row_count", "shared_blks_hit", "shared_blks_read", "shared_blks_written"),
    *("temp_blks_read", "temp_blks_written"),
)
"""The counters stored for a single execution, in addition to its times."""

INCOMPLETE = 99.9
"""Highest coverage in % of an interval in which something is known to be missing."""

Key = tuple[int, int, int, bool]

Active = tuple[float, "str | None"]
"""How long the sessions of a database were active, in ms, and since when that is counted, in ISO 8601."""


@dataclass(frozen=True)
class Entry:
    """A statement's current counters: ``sums`` in the order of SUMS, ``max_ms`` the longest execution, ``since`` the
    start of counting, None if the server does not show it."""

    sums: tuple[Any, ...]
    max_ms: float | None = None
    since: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One reading. ``origin`` identifies the server, ``evicted`` is how often entries were dropped to make space,
    ``active`` the time that sessions were active, by the database's OID; times are ISO 8601."""

    taken_at: str
    origin: str
    reset_at: str | None
    evicted: int | None
    active: Mapping[int, Active] = field(default_factory=dict)
    entries: Mapping[Key, Entry] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The reading in a form for JSON."""
        others = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in MAPPINGS}
        rows = [[*key, list(one.sums), one.max_ms, one.since] for key, one in self.entries.items()]
        active = [[database, *one] for database, one in self.active.items()]
        return {"format": FORMAT, "counters": list(SUMS), **others, "active": active, "entries": rows}


MAPPINGS = ("active", "entries")
"""The parts of a reading that are lists in its document."""


def snapshot(document: Any) -> Snapshot | None:
    """The snapshot of a document; None if it is not one of this version."""
    try:
        if document["format"] != FORMAT or document["counters"] != list(SUMS):
            return None
        others = {name: document[name] for name in Snapshot.__dataclass_fields__ if name not in MAPPINGS}
        datetime.fromisoformat(others["taken_at"])
        rows = document["entries"]
        entries = {tuple(row[:4]): Entry(tuple(row[4]), row[5], row[6]) for row in rows if len(row[4]) == len(SUMS)}
        active = {database: (milliseconds, since) for database, milliseconds, since in document["active"]}
        return Snapshot(**others, active=active, entries=entries)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


@dataclass(frozen=True)
class Usage:
    """The usage of a statement in an interval; ``max_ms`` is its longest execution, None if that may have been
    before.

    The key is None for the sum of statements that are not stored one by one.
    """

    key: Key | None
    toplevel: bool
    sums: tuple[Any, ...]
    max_ms: float | None

    def amount(self, names: Iterable[str]) -> float:
        """The sum of some counters."""
        return sum(self.sums[SUMS.index(name)] or 0 for name in names)

    def document(self, names: tuple[str, str]) -> dict[str, Any]:
        """The usage in the form that the store needs; ``names`` are those of its database and user."""
        counted = dict(zip(SUMS, self.sums))
        database, user = names
        place = {"queryid": self.key[2] if self.key else 0, "database_name": database, "user_name": user}
        return {**place, "toplevel": self.toplevel, "max_exec_ms": self.max_ms, **counted}


def execution(usage: Usage, threshold_ms: float) -> dict[str, Any] | None:
    """The longest known execution of a statement in an interval, if it took ``threshold_ms`` or more.

    If it was the only one, all its counters are known. Otherwise its time is known if it was the longest since the
    server started to count (``exact``), else only that at least one took as long as the average.
    """
    calls, total = usage.amount(("calls",)), usage.amount(("exec_ms",))
    if usage.key is None or not calls:
        return None
    exact = calls == 1 or usage.max_ms is not None
    took = total / calls if usage.max_ms is None else usage.max_ms
    if took < threshold_ms:
        return None
    found = {"calls": calls, "took_ms": took, "exact": exact}
    if calls > 1:
        return found
    counted = dict(zip(SUMS, usage.sums))
    # It is 0 if the server does not measure it.
    return {**found, "plan_ms": counted["plan_ms"] or None, **{name: counted[name] for name in OF_ONE}}


@dataclass(frozen=True)
class Difference:
    """The usage between two snapshots; ``coverage`` in %, ``evictions`` how often statements were dropped to make
    space, None if unknown. ``active_ms`` is how long sessions were active, as far as that is known."""

    coverage: float | None
    usage: tuple[Usage, ...]
    evictions: int | None = None
    active_ms: float = 0.0


def difference(before: Snapshot, after: Snapshot) -> Difference | None:
    """The usage from one snapshot to the next; None if they do not belong together."""
    if before.origin != after.origin or not _follows(before.taken_at, after.taken_at):
        return None
    usage = []
    complete = before.evicted is not None and (before.evicted, before.reset_at) == (after.evicted, after.reset_at)
    complete = complete and set(before.entries) <= set(after.entries)
    for key, now in after.entries.items():
        then = before.entries.get(key)
        continued = then is not None and _continues(then, now)
        complete = complete and (then is None or continued)
        made = _usage(key, then if continued else None, now)
        if any(made.sums):
            usage.append(made)
    active = _active(before, after)
    most = 100.0 if complete else INCOMPLETE
    return Difference(_coverage(active, usage, most), tuple(usage), _evictions(before, after), sum(active.values()))


def _follows(earlier: str, later: str) -> bool:
    return datetime.fromisoformat(earlier) < datetime.fromisoformat(later)


def _evictions(before: Snapshot, after: Snapshot) -> int | None:
    """The number of evictions; unknown if the statistics were reset in between."""
    if before.evicted is None or after.evicted is None or before.reset_at != after.reset_at:
        return None
    return after.evicted - before.evicted


def _continues(then: Entry, now: Entry) -> bool:
    """Whether an entry continues the previous one: one that was dropped and created anew counts from zero."""
    fell = any(old is not None and new is not None and new < old for old, new in zip(then.sums, now.sums))
    return not fell and then.since == now.since


def _usage(key: Key, then: Entry | None, now: Entry) -> Usage:
    if then is None:
        return Usage(key, key[3], now.sums, now.max_ms)
    sums = tuple(None if new is None or old is None else new - old for old, new in zip(then.sums, now.sums))
    rose = now.max_ms is not None and then.max_ms is not None and now.max_ms > then.max_ms
    return Usage(key, key[3], sums, now.max_ms if rose else None)


def _active(before: Snapshot, after: Snapshot) -> dict[int, float]:
    """How long the sessions of each database were active, in ms; without databases of which that is not known: they
    were dropped, or what is counted for them was reset."""
    return {
        database: now - then
        for database, (now, since) in after.active.items()
        for then, counted in [before.active.get(database, (0.0, since))]
        if counted == since and now >= then
    }


def _coverage(active: Mapping[int, float], usage: Sequence[Usage], most: float) -> float | None:
    """The share in % of the time that sessions were active which is accounted for, at most ``most``. A lower bound:
    parsing, commits and the like belong to no statement."""
    whole = sum(active.values())
    if whole <= 0:
        return None
    known = sum(
        one.amount(("exec_ms", "plan_ms")) for one in usage if one.toplevel and one.key and one.key[0] in active
    )
    return min(most, 100 * known / whole)


def top(usage: Sequence[Usage], most: int = MOST, by_others: int = MOST_BY_OTHERS) -> list[Usage]:
    """The top statements, and the sums of all others: of those that clients sent, and of those that ran within
    others."""
    chosen = {one.key for one in sorted(usage, key=lambda one: -one.amount(("exec_ms",)))[:most]}
    for order in ORDERS:
        ranked = sorted(usage, key=lambda one: -one.amount(order))
        chosen.update(one.key for one in ranked[:by_others] if one.amount(order) > 0)
    kept = [one for one in usage if one.key in chosen]
    for toplevel in (True, False):
        rest = [one for one in usage if one.key not in chosen and one.toplevel is toplevel]
        kept += [_together(rest, toplevel)] if rest else []
    return kept


def _together(usage: Sequence[Usage], toplevel: bool) -> Usage:
    columns = zip(*(one.sums for one in usage))
    sums = tuple(_added(column) for column in columns)
    longest = max((one.max_ms for one in usage if one.max_ms is not None), default=None)
    return Usage(None, toplevel, sums, longest)


def joined(documents: Iterable[Mapping[str, Any]], place: Sequence[str]) -> list[dict[str, Any]]:
    """Documents of statements, with those that have the same ``place`` as one: a database may have a name that looks
    like the OID of one that was dropped."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in documents:
        key = tuple(one[name] for name in place)
        found[key] = _joined(found[key], one) if key in found else dict(one)
    return list(found.values())


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    longest = [each["max_exec_ms"] for each in (one, other) if each["max_exec_ms"] is not None]
    sums = {name: _added((one[name], other[name])) for name in SUMS}
    return {**one, **sums, "max_exec_ms": max(longest, default=None)}


def _added(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
