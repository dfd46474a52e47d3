# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calendars: the part of systemd's OnCalendar expressions that cron can express, too.

Source: systemd.time(7), "Calendar events", and crontab(5).
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass

from ..errors import InvalidInput

EXAMPLES = "'*:0/5' is every five minutes, '*-*-* 03:00:00' every night, 'Mon..Fri *-*-* 06:30:00' on working days"
ACCEPTED = (
    "cron accepts [WEEKDAYS] [*-MONTHS-DAYS] [HOURS:MINUTES[:00]] in whole minutes, with '*', lists '1,15', ranges "
    "'1..5' and steps '0/15', but not weekdays together with days of the month; and minutely, hourly, daily, weekly, "
    "monthly, quarterly, semiannually, yearly"
)

SHORTHANDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}
WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
"""In cron's numbers: Sunday is 0."""
FROM_MONDAY = (1, 2, 3, 4, 5, 6, 0)

EXPRESSION = re.compile(
    r"(?:(?P<weekdays>[A-Za-z][A-Za-z,.]*)(?:\s+|\Z))?"
    r"(?:(?:\*-)?(?P<months>[0-9*,./]+)-(?P<days>[0-9*,./]+)(?:\s+|\Z))?"
    r"(?:(?P<hours>[0-9*,./]+):(?P<minutes>[0-9*,./]+)(?::0{1,2})?)?\Z"
)
ELEMENT = re.compile(r"(\d{1,4})(?:\.\.(\d{1,4}))?(?:/(\d{1,4}))?\Z")


@dataclass(frozen=True)
class Calendar:
    """The minutes at which a job starts, each field as the values it allows; weekdays are 0 to 6 from Sunday."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def cron(self) -> str:
        """The five fields of a crontab."""
        return " ".join(
            _field(values, low, high)
            for values, low, high in (
                (self.minutes, 0, 59),
                (self.hours, 0, 23),
                (self.days, 1, 31),
                (self.months, 1, 12),
                (self.weekdays, 0, 6),
            )
        )


def parse(expression: str) -> Calendar:
    """The calendar of an OnCalendar expression.

    Raises InvalidInput if cron cannot express it, or systemd would not accept it.
    """
    found = EXPRESSION.match(SHORTHANDS.get(expression.lower(), expression))
    if not found or not expression or expression != expression.strip():
        raise InvalidInput(f"'{expression}' cannot be expressed in cron.", f"For instance {EXAMPLES}; {ACCEPTED}.")
    weekdays, months, days, hours, minutes = found.group("weekdays", "months", "days", "hours", "minutes")
    try:
        calendar = Calendar(
            minutes=_values(minutes or "0", 0, 59),
            hours=_values(hours or "0", 0, 23),
            days=_values(days or "*", 1, 31),
            months=_values(months or "*", 1, 12),
            weekdays=_weekdays(weekdays) if weekdays else frozenset(range(7)),
        )
        _check(calendar)
    except ValueError as error:
        raise InvalidInput(f"'{expression}': {error}.", f"For instance {EXAMPLES}; {ACCEPTED}.") from None
    return calendar


def _check(calendar: Calendar) -> None:
    # cron starts a job when either of the two fits, systemd when both do
    if len(calendar.days) < 31 and len(calendar.weekdays) < 7:
        raise ValueError("weekdays together with days of the month cannot be expressed in cron")
    # 2024 is a leap year
    if all(min(calendar.days) > monthrange(2024, month)[1] for month in calendar.months):
        raise ValueError("there is no such day")


def _values(text: str, low: int, high: int) -> frozenset[int]:
    if text == "*":
        return frozenset(range(low, high + 1))
    return frozenset(value for element in text.split(",") for value in _element(element, low, high))


def _element(text: str, low: int, high: int) -> range:
    found = ELEMENT.match(text)
    if not found:
        raise ValueError(f"'{text}' is not a number, a range or a step")
    first = int(found.group(1))
    step = int(found.group(3) or 0)
    last = int(found.group(2)) if found.group(2) else high if step else first
    fits = low <= first <= last <= high and (found.group(3) is None or step > 0)
    # systemd refuses a step without an end that never takes place
    if not fits or (found.group(2) is None and first + step > high):
        raise ValueError(f"'{text}' is not between {low} and {high}")
    return range(first, last + 1, step or 1)


def _weekdays(text: str) -> frozenset[int]:
    chosen: set[int] = set()
    for element in text.split(","):
        first, dots, last = element.partition("..")
        start, end = _weekday(first), _weekday(last if dots else first)
        if end < start:
            raise ValueError(f"the range of weekdays '{element}' is backwards: weeks start on Monday")
        chosen.update(FROM_MONDAY[start : end + 1])
    return frozenset(chosen)


def _weekday(text: str) -> int:
    """0 is Monday: systemd's order, which ranges follow."""
    for number, name in enumerate(WEEKDAYS):
        if text.lower() in (name, name[:3]):
            return FROM_MONDAY.index(number)
    raise ValueError(f"'{text}' is not a weekday")


def _field(values: frozenset[int], low: int, high: int) -> str:
    """The values of a field as cron writes them: the shortest of ``*``, a step, or a list with ranges."""
    ordered = sorted(values)
    if len(ordered) == high - low + 1:
        return "*"
    step = ordered[1] - ordered[0] if len(ordered) > 2 else 0
    if step > 1 and ordered == list(range(low, high + 1, step)):
        return f"*/{step}"
    runs: list[list[int]] = []
    for value in ordered:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
