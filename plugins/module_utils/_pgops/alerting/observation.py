# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a server shows of itself that tells, compared with how it was before, what was done to it: settings, restarts,
promotions. Pure but for the reading.

What was seen last is in a file of the agent's, also where the ops database does not take writes: what happened
meanwhile is an event later on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .. import secrecy
from ..server.session import Session, connect
from ..settings.parameters import Parameter

FORMAT = 1

STATE = """
SELECT clock_timestamp()::text AS observed_at, pg_postmaster_start_time()::text AS started_at,
    pg_conf_load_time()::text AS loaded_at, (
        SELECT a.backend_start::text FROM pg_stat_activity AS a WHERE a.backend_type = 'checkpointer'
    ) AS processes_at, pg_is_in_recovery() AS standby, CASE
        WHEN pg_is_in_recovery() THEN greatest(
            (SELECT c.timeline_id FROM pg_control_checkpoint() AS c),
            (SELECT w.received_tli FROM pg_stat_wal_receiver AS w)
        )
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
    END AS timeline
"""
# What internal parameters say are states of the server and no settings, but for the version of its program. Ours are
# what the session itself was started with.
SETTINGS = """
SELECT s.name, coalesce(s.reset_val, '') AS value, s.vartype, s.unit
FROM pg_settings AS s
WHERE (s.context <> 'internal' OR s.name = 'server_version')
    AND s.name NOT IN ('application_name', 'client_encoding', 'lock_timeout', 'role', 'seed', 'session_authorization',
        'statement_timeout', 'transaction_deferrable', 'transaction_isolation', 'transaction_read_only')
ORDER BY s.name
"""

MOST = 50
"""Settings that one event names; and below, characters of a value that it shows."""
LONGEST = 200
TEXT = 1000


@dataclass(frozen=True)
class Observation:
    """A server at a time; times are PostgreSQL's texts. ``processes_at`` is when its processes were started last,
    after a crash of one later than the server itself. ``settings`` are by their names as they are shown to people,
    secrets hidden, with what tells two values apart."""

    whose: tuple[str, ...]
    observed_at: str
    started_at: str
    loaded_at: str
    processes_at: str | None
    standby: bool
    timeline: int
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def text(self) -> str:
        """As the file holds it."""
        return json.dumps({"format": FORMAT, **asdict(self)})


@dataclass(frozen=True)
class Event:
    """Something that was done to a node; ``key`` is the same each time that it is noticed."""

    key: str
    at: str
    kind: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """As the store takes it."""
        return {
            "event_key": self.key,
            "occurred_at": self.at,
            "kind": self.kind,
            "event_text": self.text,
            "details": dict(self.details),
        }


def parse(text: str) -> Observation | None:
    """What a file holds; None where it cannot be read."""
    try:
        data = json.loads(text)
        if data.pop("format") != FORMAT:
            return None
        data["settings"] = {str(name): (str(one), str(other)) for name, (one, other) in data["settings"].items()}
        return Observation(**{**data, "whose": tuple(data["whose"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def read(session: Session, whose: Sequence[str], before: Observation | None) -> Observation:
    """How the server of a session in its ops database is now. Its settings are read where they can have changed: with
    a session of their own, to which they are shown as the server has them.

    Raises PgOpsError.
    """
    row = session.row(STATE) or {}
    now = Observation(whose=tuple(whose), **row)
    if before and (before.whose, before.started_at, before.loaded_at) == (now.whose, now.started_at, now.loaded_at):
        return replace(now, settings=before.settings)
    with connect(replace(session.target, as_is=True)) as bare:
        found = bare.rows(SETTINGS)
    return replace(now, settings={str(one["name"]): _shown(one) for one in found})


def _shown(row: Mapping[str, Any]) -> tuple[str, str]:
    """A value as people may see it, and a digest that differs where a value does."""
    name, value = str(row["name"]), str(row["value"])
    known = Parameter(name, str(row["vartype"]), row["unit"])
    shown = secrecy.setting(name, known.human(value), known.vartype) or ""
    return shown[:LONGEST], hashlib.sha256(value.encode()).hexdigest()[:16]


def between(before: Observation | None, now: Observation) -> list[Event]:
    """What was done between two observations of one server; nothing is known of what was before the first. Pure."""
    if before is None or before.whose != now.whose:
        return []
    return [*_restart(before, now), *_role(before, now), *_settings(before, now)]


def _restart(before: Observation, now: Observation) -> list[Event]:
    details = {"started_at": now.started_at, "previous_start": before.started_at, "last_seen_at": before.observed_at}
    if before.started_at != now.started_at:
        text = f"The server was started; the last sign of it before was at {_second(before.observed_at)}."
        return [Event(f"restart:{now.started_at}", now.started_at, "restart", text, details)]
    if now.processes_at and before.processes_at and before.processes_at != now.processes_at:
        text = "A process of the server crashed: all sessions were ended, and the server recovered."
        return [Event(f"restart:{now.processes_at}", now.processes_at, "restart", text, {**details, "crash": True})]
    return []


def _role(before: Observation, now: Observation) -> list[Event]:
    details = {
        "timeline": now.timeline,
        "previous_timeline": before.timeline,
        "standby": now.standby,
        "last_seen_at": before.observed_at,
    }
    changed = before.standby != now.standby
    if changed:
        became = "became a standby" if now.standby else "was promoted: it is the primary"
        text = f"The server {became}, on timeline {now.timeline} (before: {before.timeline})."
        key = f"failover:{'standby' if now.standby else 'primary'}:{now.timeline}:{now.started_at}"
    elif now.timeline > before.timeline:
        does = "follows" if now.standby else "is on"
        text = f"The server {does} timeline {now.timeline} (before: {before.timeline})."
        key = f"failover:{'follows' if now.standby else 'on'}:{now.timeline}"
    else:
        return []
    at = now.started_at if before.started_at != now.started_at else now.observed_at
    return [Event(key, at, "failover", text, details)]


def _settings(before: Observation, now: Observation) -> list[Event]:
    names = [
        name
        for name in sorted({*before.settings, *now.settings})
        if before.settings.get(name, ("", ""))[1] != now.settings.get(name, ("", ""))[1]
    ]
    if not names or not now.settings or not before.settings:
        return []
    pairs = {name: [_value(one.settings, name) for one in (before, now)] for name in names[:MOST]}
    shown = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in pairs.items())
    more = f"; and {len(names) - MOST} more" if len(names) > MOST else ""
    at = now.loaded_at if before.started_at == now.started_at else now.started_at
    marks = json.dumps([now.settings.get(name, ("", ""))[1] for name in names])
    key = f"settings:{at}:{hashlib.sha256(marks.encode()).hexdigest()[:16]}"
    return [Event(key, at, "settings", f"{shown}{more}"[:TEXT], {"changes": pairs})]


def _value(settings: Mapping[str, tuple[str, str]], name: str) -> str:
    return (settings[name][0] or "''") if name in settings else "(not there)"


def _second(moment: str) -> str:
    """A time without fractions of a second."""
    whole, dot, rest = moment.partition(".")
    return whole + rest.lstrip("0123456789") if dot else moment


def load(path: str) -> Observation | None:
    """What was seen last; None where there is no file that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read())
    except (OSError, ValueError):
        return None
