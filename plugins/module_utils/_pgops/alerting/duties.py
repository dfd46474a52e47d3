# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which jobs of an instance are scheduled, and for how long each may be silent: as their timers or crontab say."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator
from datetime import date, timedelta

from ..capabilities import JOBS
from ..errors import InvalidInput
from ..host.calendars import Calendar, parse
from ..instance.layout import Layout

TIMER = re.compile(r"^(Instance|Job|OnCalendar)=(.*)$", re.MULTILINE)
CRON = re.compile(r"^(?P<fields>[0-9*](?:\S*[ \t]+){5}).*--scheduled (?P<job>[a-z-]+)", re.MULTILINE)
SECONDS = re.compile(r"(:[0-9*,./]+):[0-9*,./]+\Z")
"""Of an OnCalendar expression, which a day's minutes can do without."""
DAYS = 800
"""That are looked ahead for the longest time between two runs: two of a job that runs once a year."""
ENOUGH = 3000
"""Runs after which no longer time between two is looked for."""
LEAST = 300.0
"""Seconds that a job may always be silent."""


def scheduled(layout: Layout) -> dict[str, Calendar]:
    """The jobs of this collection that are scheduled, with their calendars; none where that is somebody else's
    business, and not those whose calendar only systemd understands."""
    return {job: calendar for job, calendar in [*_timers(layout), *_crontab(layout)] if job in JOBS}


def patience(job: str, calendar: Calendar, today: date) -> float:
    """Seconds after which a job has missed two of its turns at least, whatever the days ahead are like. Pure."""
    longest = _longest(calendar, today)
    return max(LEAST, 2 * longest + min(JOBS[job].time_limit, longest))


def _longest(calendar: Calendar, today: date) -> float:
    """Seconds between two turns, at most."""
    turns: list[float] = []
    times = [3600 * hour + 60 * minute for hour in sorted(calendar.hours) for minute in sorted(calendar.minutes)]
    for ahead in range(DAYS):
        day = today + timedelta(days=ahead)
        fits = day.day in calendar.days and day.month in calendar.months
        if fits and day.isoweekday() % 7 in calendar.weekdays:
            turns += [86400.0 * ahead + time for time in times]
        if len(turns) > ENOUGH:
            break
    gaps = [later - earlier for earlier, later in zip(turns, turns[1:])]
    return max(gaps, default=86400.0 * DAYS)


def _timers(layout: Layout) -> Iterator[tuple[str, Calendar]]:
    """A unit names its instance: the names of two instances can start alike."""
    for path in glob.glob(os.path.join(glob.escape(layout.units), f"pgops-{glob.escape(layout.instance)}-*.timer")):
        found = dict(TIMER.findall(_text(path)))
        if found.get("Instance") == layout.instance:
            with contextlib.suppress(InvalidInput):
                yield found.get("Job", ""), parse(SECONDS.sub(r"\1", found.get("OnCalendar", "")))


def _crontab(layout: Layout) -> Iterator[tuple[str, Calendar]]:
    for line in CRON.finditer(_text(layout.crontab)):
        minutes, hours, days, months, weekdays = line["fields"].split()
        with contextlib.suppress(ValueError):
            yield (
                line["job"],
                Calendar(
                    _values(minutes, 0, 59),
                    _values(hours, 0, 23),
                    _values(days, 1, 31),
                    _values(months, 1, 12),
                    _values(weekdays, 0, 6),
                ),
            )


def _values(field: str, low: int, high: int) -> frozenset[int]:
    """What a field of a crontab allows, as Calendar.cron writes it. Raises ValueError."""
    found: set[int] = set()
    for element in field.split(","):
        span, _slash, step = element.partition("/")
        first, dash, last = span.partition("-")
        start = low if span == "*" else int(first)
        end = high if span == "*" else int(last) if dash else start
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
