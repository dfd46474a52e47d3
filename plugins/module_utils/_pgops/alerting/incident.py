# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command ``pgops incident``: what happened around an alert, and what was seen when it began to fire."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import terminal
from ..agent import runner
from ..errors import InvalidInput, PgOpsError
from ..host.files import failure
from ..instance import configuration, endpoints
from ..instance.layout import Layout, only_instance
from ..server.session import Session, connect
from . import shown
from .scene import PARTS

HOURS, MOST_HOURS = 6.0, 24.0 * 31

FIRING = f"{shown.COLUMNS} WHERE a.ended_at IS NULL AND a.fired_at IS NOT NULL ORDER BY a.fired_at DESC LIMIT 1"
NAMED = f"""
{shown.COLUMNS}
WHERE a.rule_name = %s AND a.fired_at IS NOT NULL ORDER BY a.ended_at IS NOT NULL, a.fired_at DESC LIMIT 1
"""
BY_ID = f"{shown.COLUMNS} WHERE starts_with(a.alert_id::text, %s) ORDER BY a.alert_id LIMIT 2"
IDENTIFIER = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")

PERIOD = """
SELECT a.cluster, coalesce(a.fired_at, a.started_at)::timestamptz(0) AS began,
    coalesce(a.fired_at, a.started_at) - make_interval(secs => %(seconds)s) AS since,
    least(coalesce(a.ended_at, now()), coalesce(a.fired_at, a.started_at) + interval '1 day')
    + interval '5 minutes' AS until
FROM pgops.alert_history AS a WHERE a.alert_id = %(alert)s
"""
EVENTS = """
SELECT e.occurred_at::timestamptz(0) AS at, e.node, e.kind, e.event_text AS text, e.details
FROM pgops.events AS e
WHERE e.cluster = %(cluster)s AND e.occurred_at BETWEEN %(since)s AND %(until)s
ORDER BY e.occurred_at DESC LIMIT %(most)s
"""
OTHERS = """
SELECT m.at::timestamptz(0) AS at, a.severity_level AS severity, a.rule_name AS rule, a.node, m.what,
    count(*) AS alerts, (array_agg(a.additional_context - 'node' ORDER BY a.alert_id))[1] AS labels
FROM pgops.alert_history AS a
CROSS JOIN LATERAL (VALUES ('fires', a.fired_at), ('ended', a.ended_at)) AS m (what, at)
WHERE a.cluster = %(cluster)s AND a.alert_id <> %(alert)s AND a.fired_at IS NOT NULL
    AND (a.ended_at IS NULL OR a.ended_at >= %(since)s) AND m.at BETWEEN %(since)s AND %(until)s
GROUP BY m.at, a.severity_level, a.rule_name, a.node, m.what
ORDER BY m.at DESC, a.severity_level, a.rule_name, a.node LIMIT %(most)s
"""
SCENES = """
SELECT s.node, s.is_primary, s.taken_at::timestamptz(0) AS taken_at, s.part, s.seen, s.left_out, s.error
FROM pgops.alert_scenes AS s WHERE s.alert_id = %(alert)s ORDER BY s.node = %(node)s DESC, s.taken_at
"""
MOST = 200
"""Of events, and of changes of other alerts: the newest ones."""

TITLES = {
    "blocking": "Who waits for whom",
    "transactions": "Longest transactions",
    "sessions": "Sessions",
    "slots": "Replication slots",
    "standbys": "Replication",
    "progress": "Maintenance",
    "statements": "Top statements of the last 15 minutes",
    "regressions": "Statements that take longer than last week",
}
NO_SCENE = (
    "No scene was kept: rules were evaluated more than five minutes after it began to fire, the job alerts could not "
    "look at the server (its log says why), or the scene was forgotten for want of space."
)


@dataclass(frozen=True)
class Incident:
    """An alert, when it ``began``, what happened around it in the order of time (``at``, ``node``, ``kind`` and
    ``text``), and the parts of its scenes."""

    alert: Mapping[str, Any]
    began: datetime
    timeline: Sequence[Mapping[str, Any]] = ()
    scenes: Sequence[Mapping[str, Any]] = ()

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {"alert": dict(self.alert), "timeline": list(self.timeline), "scenes": list(self.scenes)}


def incident(options: argparse.Namespace) -> int:
    """Print an incident as the options say; the exit code."""
    try:
        hours = _hours(options.hours)
        layout = Layout(options.instance or only_instance(options.prefix), options.prefix)
        runner.step_down(layout.state)
        os.chdir("/")  # where the agent's user may look
        settings = configuration.load(layout)
        with connect(endpoints.agent(settings, "incident")) as session:
            found = read(session, options.alert or "", hours)
    except InvalidInput as error:
        return _failed(error, runner.USAGE)
    except PgOpsError as error:
        return _failed(error, runner.FAILED)
    except OSError as error:
        return _failed(failure(error, "The incident cannot be read"), runner.FAILED)
    if options.json:
        sys.stdout.write(json.dumps(found.data(), default=str, indent=2) + "\n")
    else:
        terminal.say(sys.stdout, *lines(found))
    return runner.DONE


def _failed(error: PgOpsError, code: int) -> int:
    terminal.say_all(sys.stderr, f"pgops: {error}")
    return code


def _hours(text: str | None) -> float:
    if not text:
        return HOURS
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= MOST_HOURS:
        raise InvalidInput(f"{text!r} are no hours.", f"Use a number up to {MOST_HOURS:g}.")
    return hours


def read(session: Session, wanted: str, hours: float = HOURS) -> Incident:
    """The incident of an alert: by its UUID or the beginning of it, by its rule's name the newest one, and of '' the
    newest that fires.

    Raises InvalidInput where there is none.
    """
    alert = _alert(session, wanted)
    seconds = hours * 3600
    period = session.rows(PERIOD, {"alert": alert["alert"], "seconds": seconds})[0]
    values = {**period, "alert": alert["alert"], "node": alert["node"], "most": MOST}
    own = session.rows(shown.TRANSITIONS, [alert["alert"]])
    timeline = [
        *session.rows(EVENTS, values),
        *(_other(row) for row in session.rows(OTHERS, values)),
        *(_own(alert, row) for row in own),
    ]
    return Incident(
        alert,
        period["began"],
        sorted(timeline, key=lambda one: one["at"]),
        sorted(session.rows(SCENES, values), key=_order),
    )


def _order(part: Mapping[str, Any]) -> tuple[str, str, int]:
    known = [*PARTS]
    return str(part["taken_at"]), part["node"], known.index(part["part"]) if part["part"] in known else len(known)


def _alert(session: Session, wanted: str) -> dict[str, Any]:
    if not wanted:
        found = session.rows(FIRING)
        if not found:
            raise InvalidInput("No alert fires.", "Name one that has ended; `pgops alerts --all` shows them.")
        return found[0]
    identifier = wanted.lower()
    found = session.rows(BY_ID, [identifier]) if IDENTIFIER.fullmatch(identifier) else []
    if len(found) > 1:
        raise InvalidInput(f"Several alerts begin with {wanted}.", "Give more of its UUID.")
    found = found or session.rows(NAMED, [wanted])
    if not found:
        raise InvalidInput(f"There is no alert {wanted}.", "`pgops alerts --all` shows those of the last day.")
    return found[0]


def _other(row: Mapping[str, Any]) -> dict[str, Any]:
    more = f" and {row['alerts'] - 1} more" if row["alerts"] > 1 else ""
    text = f"{row['severity']} {shown.subject(row)}{more}: {row['what']}"
    return {"at": row["at"], "node": row["node"], "kind": "alert", "text": text}


def _own(alert: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    value = "" if row["metric_value"] is None else f", {row['metric_value']:g}"
    text = f"this alert: {row['from_status']} -> {row['to_status']}{value}"
    return {"at": row["changed_at"], "node": alert["node"], "kind": "alert", "text": text}


# --- for people


def lines(found: Incident) -> list[str]:
    """An incident for people. Pure."""
    alert = found.alert
    ended = f", {alert['status']} at {alert['ended_at']}" if alert["ended_at"] else f", {alert['status']}"
    told = [
        f"{alert['severity']} {shown.subject(alert)}",
        f"{alert['metric']}: {shown.condition(alert)}; since {found.began}{ended}",
        f"alert {alert['alert']}",
    ]
    if alert["acknowledged_by"]:
        told.append(f"acknowledged by {alert['acknowledged_by']}: {alert['acknowledgement'] or '(no note)'}")
    told += ["", "What happened"]
    told += [_happened(one, found.began) for one in found.timeline] or ["  nothing is known"]
    return [*told, *_scenes(found.scenes)]


def _happened(one: Mapping[str, Any], began: datetime) -> str:
    return (
        f"  {one['at']}  {_offset(one['at'], began):>9}  {one['node'] or '(cluster)'}  {one['kind']}: {one['text']}"
    )


def _offset(at: datetime, began: datetime) -> str:
    """How long before or after the beginning.

    >>> _offset(datetime(2026, 1, 1, 10), datetime(2026, 1, 1, 12, 0, 5))
    '-2:00:05'
    """
    seconds = round((at - began).total_seconds())
    minutes, second = divmod(abs(seconds), 60)
    return f"{'-' if seconds < 0 else '+'}{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def _scenes(scenes: Sequence[Mapping[str, Any]]) -> list[str]:
    if not scenes:
        return ["", NO_SCENE]
    told: list[str] = []
    before = None
    for part in scenes:
        here = (part["node"], part["taken_at"])
        if here != before:
            role = "primary" if part["is_primary"] else "standby"
            told += ["", f"Scene of {part['node']} ({role}) at {part['taken_at']}"]
            before = here
        told += _part(part)
    return told


def _part(part: Mapping[str, Any]) -> list[str]:
    title = TITLES.get(part["part"], part["part"])
    if part["error"]:
        return [f"  {title}: could not be seen: {part['error']}"]
    rows = part["seen"] or []
    if not rows:
        return [f"  {title}: none"]
    more = [f"    and {part['left_out']} more"] if part["left_out"] else []
    return [f"  {title}", *(line for row in rows for line in _row(row)), *more]


def _row(row: Mapping[str, Any]) -> list[str]:
    """A row of a part: its values by name, and below them the text of the statement."""
    indent = "    " + "  " * int(row.get("depth") or 0)
    values = [f"{name} {_value(value)}" for name, value in _named(row).items()]
    query = [f"{indent}    {' '.join(str(row['query']).split())}"] if row.get("query") else []
    return [f"{indent}{', '.join(values)}", *query]


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of a row, what identifies it first; JSON in the database has an order of its own."""
    first = ("pid", "prepared", "slot", "operation", "queryid", "application", "user", "database", "state")
    left_out = ("depth", "query")
    names = [*(name for name in first if name in row), *(name for name in row if name not in first)]
    return {name: row[name] for name in names if name not in left_out and row[name] not in (None, [], "")}


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)
