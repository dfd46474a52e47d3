# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Silences and maintenance windows as the inventory declares them. Pure but for resolved(), which asks the server
what a local time is: it is the one that will look at its clock."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from .. import spelling
from ..errors import InvalidInput
from ..plan import difference
from ..server import rows
from ..server.changes import Statements
from ..server.session import Session, statement
from . import rules
from .rules import SEVERITIES

SILENCE, MAINTENANCE = "silence", "maintenance"
WORDS = {SILENCE: "silence", MAINTENANCE: "maintenance window"}
MOST = 500
"""Of both together in an inventory."""
LONGEST = 7 * rules.DAY
"""Seconds for which a recurring window is open."""
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d)?))?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?\Z", re.ASCII)
"""A time, with or without a zone of its own."""
CLOCK = re.compile(r"(\d\d?):(\d\d)(?::(\d\d))?\Z", re.ASCII)

SILENCES = """
SELECT s.name, s.kind, s.labels, s.starts_at::text AS starts, s.ends_at::text AS ends, s.weekdays, s.days_of_month,
       s.start_time::text AS start_time, extract(EPOCH FROM s.duration)::float8 AS duration, s.time_zone, s.comment
FROM pgops.silence AS s WHERE s.source = 'inventory'
"""
ZONES = "SELECT array_agg(z.name) FROM pg_catalog.pg_timezone_names AS z"
RESOLVED = """
SELECT (CASE WHEN d.zoned THEN d.moment::timestamptz ELSE d.moment::timestamp AT TIME ZONE d.zone END)::text AS moment
FROM unnest(%s::text[], %s::text[], %s::boolean[]) WITH ORDINALITY AS d (moment, zone, zoned, place) ORDER BY d.place
"""


@dataclass(frozen=True)
class Window:
    """A row of pgops.silence. ``starts`` and ``ends`` are times with their zone as the server writes them in UTC, or
    infinite; of a declaration local to ``time_zone`` until they are resolved. ``weekdays`` (1 for Monday) is None for
    one that does not recur; ``duration`` is in seconds."""

    name: str
    kind: str
    labels: Mapping[str, str] = field(default_factory=dict)
    starts: str = "-infinity"
    ends: str = "infinity"
    weekdays: Sequence[int] | None = None
    days_of_month: Sequence[int] | None = None
    start_time: str | None = None
    duration: float | None = None
    time_zone: str | None = None
    comment: str = ""

    def shown(self) -> dict[str, Any]:
        """As plans show it."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "name"}
        days = {key: found[key] and sorted(found[key]) for key in ("weekdays", "days_of_month")}
        return {**found, **days, "labels": dict(self.labels)}

    def row(self) -> dict[str, Any]:
        """As pgops.silence has it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "labels": json.dumps(dict(self.labels)),
            "starts_at": self.starts,
            "ends_at": self.ends,
            "weekdays": _numbers(self.weekdays),
            "days_of_month": _numbers(self.days_of_month),
            "start_time": self.start_time,
            "duration": None if self.duration is None else f"{self.duration} seconds",
            "time_zone": self.time_zone,
            "comment": self.comment,
            "created_by": "inventory",
            "source": "inventory",
        }

    @property
    def subject(self) -> str:
        """As changes and errors name it."""
        return f"{WORDS[self.kind]} {self.name}"


def _numbers(values: Sequence[int] | None) -> str | None:
    return None if values is None else "{" + ",".join(map(str, values)) + "}"


Windows = Mapping[str, Window]


# --- what the inventory declares


def declared(silences: Sequence[Mapping[str, Any]], maintenance: Sequence[Mapping[str, Any]]) -> dict[str, Window]:
    """What an inventory declares, by names, with local times.

    Raises InvalidInput.
    """
    found = [_window(SILENCE, one) for one in silences] + [_window(MAINTENANCE, one) for one in maintenance]
    if len(found) > MOST:
        raise InvalidInput(f"There are {len(found)} silences and maintenance windows; at most {MOST} are possible.")
    spelling.refuse_repeated("Silence or maintenance window", [one.name for one in found])
    return {one.name: one for one in found}


KEYS = {
    SILENCE: {"name", "labels", "starts", "ends", "time_zone", "comment"},
    MAINTENANCE: {one.name for one in fields(Window)} - {"kind"},
}


def _window(kind: str, given: Mapping[str, Any]) -> Window:
    name = str(given.get("name") or "")
    if not name or len(name) > 100:
        raise InvalidInput(f"A {WORDS[kind]} needs a name of at most 100 characters.")
    what = f"{WORDS[kind].capitalize()} {name}"
    unknown = spelling.unknown(given, KEYS[kind])
    if unknown:
        raise InvalidInput(f"{what} has unknown keys: {unknown}.")
    known = {key: value for key, value in given.items() if value not in (None, "", [])}
    window = Window(
        name,
        kind,
        labels={str(label): str(value) for label, value in dict(known.get("labels", {})).items()},
        starts=_moment(what, known.get("starts", "-infinity")),
        ends=_moment(what, known.get("ends", "infinity")),
        time_zone=str(known.get("time_zone", "UTC")),
        comment=str(known.get("comment", name)),
        **_recurring(what, known),
    )
    wrong = _wrong(window, known)
    if wrong:
        raise InvalidInput(f"{what}: {wrong}.")
    return window


def _recurring(what: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """What only a window that recurs has; nothing for another one."""
    if not {"weekdays", "days_of_month", "start_time", "duration"} & set(known):
        return {}
    if not {"start_time", "duration"} <= set(known):
        raise InvalidInput(f"{what} recurs, and lacks start_time or duration.")
    days = [_weekday(what, one) for one in known.get("weekdays", range(1, 8))]
    dates = known.get("days_of_month")
    return {
        "weekdays": tuple(sorted(set(days))),
        "days_of_month": None if dates is None else tuple(sorted({_date(what, one) for one in dates})),
        "start_time": clock(what, known["start_time"]),
        "duration": rules.seconds(f"{what}: duration", known["duration"]),
    }


def _wrong(window: Window, known: Mapping[str, Any]) -> str:
    if not window.labels:
        return "it needs labels: those of the alerts that nobody is told of"
    if window.labels.get("severity", "info") not in SEVERITIES:
        return f"the label severity is one of {' '.join(SEVERITIES)}"
    if len(window.comment) > 1000:
        return "its comment has more than 1,000 characters"
    if window.weekdays is None and "ends" not in known:
        return "it ends never, without ends" + (", or start_time and duration" if window.kind == MAINTENANCE else "")
    if window.duration is not None and not rules.MINUTE <= window.duration <= LONGEST:
        return "its duration is a minute to 7 days"
    return ""


def _moment(what: str, value: Any) -> str:
    """A time as the server reads it. Raises InvalidInput."""
    text = str(value).strip()
    if text in ("infinity", "-infinity"):
        return text
    found = MOMENT.match(text)
    try:
        moment = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}") if found else None
    except ValueError:
        moment = None
    if not found or moment is None:
        raise InvalidInput(
            f"{what}: '{text}' is not a time.", "It is written as '2026-12-24 18:00', or with a zone '... +01:00'."
        )
    zone = "+00" if found[3] in ("Z", "UTC") else found[3] or ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{zone}"


def clock(what: str, value: Any) -> str:
    """A time of the day as HH:MM:SS. Pure. YAML reads 22:00 without quotes as a number of base 60, which is 1320.

    Raises InvalidInput.
    """
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{2,5}", text):
        number = int(text) * (60 if int(text) < 1440 else 1)
        text = f"{number // 3600}:{number // 60 % 60:02}:{number % 60:02}" if number >= 3600 else text
    found = CLOCK.match(text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (99, 0, 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise InvalidInput(f"{what}: start_time '{value}' is not a time of the day.", "It is written as '22:00'.")
    return f"{hours:02}:{minutes:02}:{seconds:02}"


def _weekday(what: str, value: Any) -> int:
    text = str(value).strip().lower()
    if text in ("1", "2", "3", "4", "5", "6", "7"):
        return int(text)
    near = [place for place, name in enumerate(WEEKDAYS, 1) if len(text) > 1 and name.startswith(text)]
    if len(near) != 1:
        raise InvalidInput(f"{what}: '{value}' is not a day of the week.", "It is mon, tue ... or 1 (Monday) to 7.")
    return near[0]


def _date(what: str, value: Any) -> int:
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]{1,2}", text) or not 1 <= int(text) <= 31:
        raise InvalidInput(f"{what}: '{value}' is not a day of the month.")
    return int(text)


def refuse_unknown(windows: Windows, names: Collection[str], metrics: Collection[str]) -> None:
    """Refuse those for rules and metrics that there are not: they would silence nothing.

    Raises InvalidInput.
    """
    for window in windows.values():
        for label, known in (("rule_name", names), ("metric", metrics)):
            unknown = spelling.unknown([window.labels[label]] if label in window.labels else [], known)
            if unknown:
                raise InvalidInput(f"{window.subject.capitalize()} is for no {label} that there is: {unknown}.")


# --- their times, by the server


def resolved(session: Session, windows: Windows) -> dict[str, Window]:
    """The same with times that have a zone. A window that does not recur needs none any more.

    Raises InvalidInput for a time zone that the server does not know, and for one that ends before it starts.
    """
    if not windows:
        return {}
    zones = {str(one.time_zone) for one in windows.values()} - {"UTC"}
    unknown = spelling.unknown(zones, session.value(ZONES)) if zones else ""
    if unknown:
        raise InvalidInput(f"There is no time zone {unknown}.", "pg_timezone_names lists them.")
    moments = [(one, moment) for one in windows.values() for moment in (one.starts, one.ends)]
    texts = [moment for _one, moment in moments]
    zoned = [bool(re.search(r":\d\d[+-]", moment)) for moment in texts]
    found = [
        row["moment"] for row in session.rows(RESOLVED, [texts, [one.time_zone for one, _moment in moments], zoned])
    ]
    pairs = zip(windows.values(), found[::2], found[1::2])
    return {one.name: _placed(one, starts, ends) for one, starts, ends in pairs}


def _placed(window: Window, starts: str, ends: str) -> Window:
    # Both are in UTC: their texts are in the order of time.
    if (ends != "infinity" and starts != "-infinity" and starts >= ends) or starts == "infinity":
        raise InvalidInput(f"{window.subject.capitalize()} ends before it starts, in UTC: {starts} to {ends}.")
    zone = None if window.weekdays is None else window.time_zone
    return replace(window, starts=starts, ends=ends, time_zone=zone)


# --- planning


def present(found: Sequence[Mapping[str, Any]]) -> dict[str, Window]:
    """Those of the inventory in the ops database, of the rows of SILENCES."""
    return {str(row["name"]): Window(**row) for row in found}


def plan(current: Windows, wanted: Windows) -> tuple[Statements, ...]:
    """What brings those of the inventory to what is wanted."""
    made: tuple[Statements, ...] = ()
    for name, window in wanted.items():
        before = current[name].shown() if name in current else None
        written = rows.upsert("silence", ["name"], window.row())
        made += difference(Statements(window.subject, before, window.shown(), (written,)))
    for name in sorted(set(current) - set(wanted)):
        gone = statement("DELETE FROM pgops.silence WHERE name = {}", name)
        made += (Statements(current[name].subject, current[name].shown(), None, (gone,)),)
    return made
