# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An instance as it was at a moment, from the store. Single sessions are not stored: they are there where an alert
began to fire nearby, with its scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ..errors import PgOpsError, QueryFailed
from ..instance.configuration import Configuration
from ..server.session import Session
from . import live
from .live import Read
from .picture import ALERTS, BLOCKING, EVENTS, PROGRESS, SESSIONS, STATEMENTS, STORE, Picture, Section
from .rates import HIT

KNOWN = """
SELECT n.is_primary, n.first_seen_at FROM pgops.nodes AS n WHERE n.node = %(node)s
"""
GAUGES: Mapping[str, str] = {
    "server_in_recovery": "max",
    "server_uptime_seconds": "max",
    "connections": "sum",
    "connections_used_percent": "max",
    "blocked_sessions": "sum",
    "longest_lock_wait_seconds": "max",
    "longest_transaction_seconds": "max",
    "longest_idle_in_transaction_seconds": "max",
    "longest_statement_seconds": "max",
    "replication_lag_bytes": "max",
    "replication_lag_seconds": "max",
    "standbys_connected": "max",
    "replay_lag_bytes": "max",
    "replay_delay_seconds": "max",
    "xid_wraparound_percent": "max",
    "xmin_horizon_percent": "max",
}
"""What is read of the store, and how values of several databases, roles, standbys make one."""
STATES = ("active", "idle", "idle in transaction", "other")
VALUES = """
SELECT v.metric_name, v.additional_info ->> 'state' AS state, sum(v.last) AS sum, max(v.last) AS max,
    min(v.ended_at) AS oldest, max(v.ended_at) AS newest
FROM (
    SELECT m.metric_name, g.*
    FROM pgops.metrics AS m
    CROSS JOIN LATERAL pgops.metric_values(m.metric_name, %(at)s - interval '10 minutes', %(at)s) AS g
    WHERE m.metric_name = ANY (%(metrics)s)
) AS v
WHERE v.node = %(node)s
GROUP BY v.metric_name, v.additional_info ->> 'state'
"""
RATES: Mapping[str, Sequence[str]] = {
    "transactions_per_second": ("transactions_committed", "transactions_rolled_back"),
    "rollbacks_per_second": ("transactions_rolled_back",),
    "rows_read_per_second": ("tuples_returned",),
    "rows_written_per_second": ("tuples_inserted", "tuples_updated", "tuples_deleted"),
    "temp_bytes_per_second": ("temp_bytes",),
    "wal_bytes_per_second": ("wal_bytes",),
}
HIT_PARTS = ("blocks_hit", "blocks_read")
COUNTERS = (*HIT_PARTS, *dict.fromkeys(name for parts in RATES.values() for name in parts))
GROWTH = """
SELECT r.metric_name, sum(r.rate) AS rate, min(r.started_at) AS oldest, max(r.ended_at) AS newest
FROM (
    SELECT m.metric_name, g.*
    FROM pgops.metrics AS m
    CROSS JOIN LATERAL pgops.metric_rates(m.metric_name, %(at)s - interval '5 minutes', %(at)s) AS g
    WHERE m.metric_name = ANY (%(metrics)s)
) AS r
WHERE r.node = %(node)s
GROUP BY r.metric_name
"""
FIRED = """
SELECT a.alert_id::text AS alert, a.severity_level AS severity, a.rule_name AS rule, a.node,
    a.additional_context - 'node' AS labels, a.metric_name AS metric, a.metric_value AS value,
    a.condition_operator AS operator, a.threshold_value AS threshold, a.fired_at::timestamptz(0) AS fired_at,
    a.ended_at::timestamptz(0) AS ended_at
FROM pgops.alert_history AS a
WHERE a.fired_at <= %(at)s AND (a.ended_at IS NULL OR a.ended_at > %(at)s)
ORDER BY a.severity_level = 'critical' DESC, a.severity_level = 'warning' DESC, a.fired_at, a.alert_id
LIMIT 200
"""
HAPPENED = """
SELECT e.occurred_at::timestamptz(0) AS at, e.node, e.kind, e.event_text AS text
FROM pgops.events AS e
WHERE e.occurred_at > %(at)s - interval '1 day' AND e.occurred_at <= %(at)s
ORDER BY e.occurred_at DESC
LIMIT 50
"""
SCENE = """
WITH near AS (
    SELECT DISTINCT s.scene_id, s.taken_at FROM pgops.alert_scenes AS s
    WHERE s.node = %(node)s AND s.taken_at BETWEEN %(at)s - interval '15 minutes' AND %(at)s + interval '15 minutes'
)

SELECT DISTINCT ON (s.part) s.part, s.taken_at::timestamptz(0) AS taken_at, s.seen, s.left_out, s.error
FROM pgops.alert_scenes AS s
WHERE s.scene_id = (
    SELECT n.scene_id FROM near AS n
    ORDER BY abs(extract(EPOCH FROM n.taken_at - %(at)s)) ASC, n.scene_id ASC
    LIMIT 1
)
"""
TOP = """
SELECT q.queryid, q.calls, q.exec_ms AS total_ms, q.exec_ms / nullif(q.calls, 0) AS mean_ms, q.row_count AS rows,
    q.databases, q.users, q.query
FROM pgops.top_queries('time', %(at)s - interval '15 minutes', %(at)s + interval '5 minutes', 10, %(node)s) AS q
"""
PARTS: Mapping[str, str] = {BLOCKING: "blocking", SESSIONS: "transactions", PROGRESS: "progress"}
"""The parts of a scene that are shown, by section."""
NO_SCENE = "no single sessions are stored, and no alert began to fire within 15 minutes, with which they would be"
NO_STATEMENTS = "no statements are stored of that time (pgops_statements)"


def read(configuration: Configuration, at: datetime) -> Picture:
    """The instance at a moment.

    Raises PgOpsError if the store cannot be read.
    """
    session, lacking = live.opened(live.of_store(configuration))
    with session:
        if lacking:
            raise PgOpsError(f"There is no store to read the past from: {lacking}.", "Run site.yml.")
        values = {"node": configuration.node, "at": at}
        known = _asked(session, lambda: session.row(KNOWN, values))
        if known is None:
            raise PgOpsError(f"The store knows no node {configuration.node}.", "The job collect has to run once.")
        found = {
            ALERTS: _section(session, lambda: Section(session.rows(FIRED, values))),
            **_of_scene(session, values),
            STATEMENTS: _section(session, lambda: _or(Section(session.rows(TOP, values)), NO_STATEMENTS)),
            EVENTS: _section(session, lambda: Section(session.rows(HAPPENED, values))),
        }
        return Picture(
            *(configuration.instance, configuration.cluster, configuration.node, STORE),
            at.astimezone(timezone.utc),
            _asked(session, lambda: head_of(session, values)),
            found,
        )


def _asked(session: Session, read: Callable[[], Read]) -> Read:
    """What is read; where the schema is not there, as what it means.

    Raises PgOpsError.
    """
    try:
        return live.asked(session, read, live.READS + live.ANSWERS)
    except QueryFailed as error:
        if session.connection.closed:
            raise
        raise PgOpsError(f"The store cannot be read: {live.why(error, session.database)}.") from error


def _section(session: Session, read: Callable[[], Section]) -> Section:
    try:
        return _asked(session, read)
    except QueryFailed:
        raise
    except PgOpsError as error:
        return Section(missing=str(error))


def _or(section: Section, missing: str) -> Section:
    return section if section.rows else Section(missing=missing)


def _of_scene(session: Session, values: Mapping[str, Any]) -> dict[str, Section]:
    """The sections of the scene that was taken nearest."""
    try:
        rows = _asked(session, lambda: session.rows(SCENE, values))
    except QueryFailed:
        raise
    except PgOpsError as error:
        return {section: Section(missing=str(error)) for section in PARTS}
    by_part = {row["part"]: row for row in rows}
    return {section: seen(by_part.get(part), values["at"]) for section, part in PARTS.items()}


def seen(part: Mapping[str, Any] | None, at: datetime) -> Section:
    """A part of a scene as a section. Pure."""
    if part is None:
        return Section(missing=NO_SCENE)
    if part["error"]:
        return Section(missing=f"could not be seen: {part['error']}")
    seconds = round((part["taken_at"] - at).total_seconds())
    when = f"{abs(seconds)} s {'before' if seconds < 0 else 'after'} it, when an alert began to fire"
    return Section(part["seen"] or [], part["left_out"] or 0, note=f"as seen {when}")


def head_of(session: Session, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a head that are stored; those of a time without samples are None."""
    found = session.rows(VALUES, {**values, "metrics": list(GAUGES)})
    grown = session.rows(GROWTH, {**values, "metrics": [*COUNTERS]})
    return head(found, grown)


def head(found: Sequence[Mapping[str, Any]], grown: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The head of what VALUES and GROWTH answer. Pure."""
    gauges = {(row["metric_name"], row["state"]): row for row in found}
    rates = {row["metric_name"]: row["rate"] for row in grown}
    plain = {name: gauges.get((name, None), {}).get(how) for name, how in GAUGES.items() if name != "connections"}
    states = {state: gauges.get(("connections", state), {}).get("sum") for state in STATES}
    counted = [count for count in states.values() if count is not None]
    standby = plain.pop("server_in_recovery")
    hit = [rates.get(name) for name in HIT_PARTS]
    blocks = None if None in hit else sum(hit)  # type: ignore[arg-type]
    return {
        "role": None if standby is None else "standby" if standby else "primary",
        "uptime_seconds": plain.pop("server_uptime_seconds"),
        "connections": sum(counted) if counted else None,
        **{state.replace(" ", "_"): states[state] for state in STATES[:3]},
        "waiting_for_locks": plain.pop("blocked_sessions"),
        **{rate: _sum([rates.get(name) for name in parts]) for rate, parts in RATES.items()},
        HIT: 100.0 * hit[0] / blocks if blocks else None,  # type: ignore[operator]
        "wraparound_percent": plain.pop("xid_wraparound_percent"),
        **plain,
        "samples_from": min((row["oldest"] for row in found), default=None),
        "samples_to": max((row["newest"] for row in found), default=None),
    }


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
