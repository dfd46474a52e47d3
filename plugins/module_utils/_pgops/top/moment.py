# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A moment in the past, as people write it. Pure, but for the zone of this host."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from ..errors import InvalidInput

HINT = (
    "Write '2026-11-30 03:12', with a zone behind it ('+01:00', 'Z') if it is not this host's; or 03:12; or how long "
    "ago: 15m, 2h, 1d."
)
AGO = re.compile(r"(\d{1,5})\s?([mhd])(?:\s+ago)?\Z", re.ASCII)
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
CLOCK = re.compile(r"(\d{1,2}):(\d\d)\Z", re.ASCII)
ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,6}))?\s?(Z|UTC|[+-]\d\d(?::?\d\d)?)?\Z",
    re.ASCII | re.IGNORECASE,
)


def parse(text: str, now: datetime) -> datetime:
    """The moment that a text means; ``now`` has the zone of one without a zone.

    Raises InvalidInput for one that cannot be read, or has not come yet.

    >>> parse("23:50", datetime(2026, 11, 30, 3, 12, tzinfo=timezone.utc)).isoformat()
    '2026-11-29T23:50:00+00:00'
    """
    try:
        found = _ago(text, now) or _clock(text, now) or _written(text, now)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise InvalidInput(f"{text!r} is not a time that can be read.", HINT)
    if found > now:
        raise InvalidInput(f"{found.isoformat(' ')} has not come yet: it is {now.isoformat(' ', 'seconds')}.", HINT)
    return found


def _ago(text: str, now: datetime) -> datetime | None:
    match = AGO.match(text)
    return now - timedelta(**{UNITS[match.group(2)]: int(match.group(1))}) if match else None


def _clock(text: str, now: datetime) -> datetime | None:
    """The last time that clocks have shown this."""
    match = CLOCK.match(text)
    if match is None:
        return None
    hour, minute = int(match.group(1)), int(match.group(2))
    today = _here(now.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None), now)
    yesterday = today.replace(tzinfo=None) - timedelta(days=1)
    return today if today <= now else _here(yesterday, now)


def _written(text: str, now: datetime) -> datetime | None:
    match = ISO.match(text)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    local = datetime.fromisoformat(f"{day} {clock}").replace(microsecond=int((fraction or "").ljust(6, "0")))
    if zone is None:
        return _here(local, now)
    if zone.upper() in ("Z", "UTC"):
        return local.replace(tzinfo=timezone.utc)
    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return local.replace(tzinfo=timezone(-offset if zone[0] == "-" else offset))


def _here(local: datetime, now: datetime) -> datetime:
    """A local time in its zone: this host's at that time, if ``now`` has this host's now; or else that of ``now``."""
    if now.utcoffset() == now.astimezone().utcoffset():
        return local.astimezone()
    return local.replace(tzinfo=now.tzinfo)
