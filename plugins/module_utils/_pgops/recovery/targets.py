# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""To which moment a server is recovered, and what PostgreSQL has to be told for that. Pure.

Source: PostgreSQL, "Recovery Target" in the chapter on server configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import InvalidInput

TIME, LSN, NAME, XID, IMMEDIATE, LATEST = "time", "lsn", "name", "xid", "immediate", "latest"
KINDS = (TIME, LSN, NAME, XID, IMMEDIATE, LATEST)
PAUSED, PROMOTE, SHUTDOWN = "paused", "promote", "shutdown"
ENDS = (PAUSED, PROMOTE, SHUTDOWN)
"""What becomes of a server at its target: it waits and can be read, it takes writes, or it is stopped."""

MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?\Z",
    re.IGNORECASE,
)
WRITE_A_TIME = "Write it as 2026-11-29 15:30:00+01:00, or 2026-11-29 14:30:00Z for UTC."
POSITION = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")
LONGEST_NAME = 63
"""Bytes of the name of a restore point (PostgreSQL, MAXFNAMELEN)."""
FIRST_XID = 3
"""Smaller numbers are no transaction's (PostgreSQL, FirstNormalTransactionId)."""

SETTING = {TIME: "recovery_target_time", LSN: "recovery_target_lsn", NAME: "recovery_target_name",
           XID: "recovery_target_xid", IMMEDIATE: "recovery_target"}  # fmt: skip
"""The parameter of each kind of target; the newest moment has none."""
STALE = (
    *SETTING.values(),
    "recovery_target_inclusive",
    "recovery_target_action",
    "recovery_target_timeline",
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "recovery_min_apply_delay",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
)
"""Parameters of a former recovery or replication, which would change what this one does."""


@dataclass(frozen=True)
class Target:
    """A moment: ``kind`` is one of KINDS; ``time`` in UTC, ``lsn`` a byte of the WAL, ``name`` of a restore point, or
    ``xid`` is set accordingly.

    ``timeline`` is a number, or 0 for the line that the cluster is on. With ``inclusive`` the transaction, or the
    record, that is exactly at the moment is recovered as well.
    """

    kind: str
    time: datetime | None = None
    lsn: int | None = None
    name: str = ""
    xid: int | None = None
    timeline: int = 0
    inclusive: bool = True

    @property
    def value(self) -> str:
        """The moment as PostgreSQL reads it; '' for the newest one."""
        if self.time is not None:
            return written(self.time)
        if self.lsn is not None:
            return f"{self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}"
        return self.name or (str(self.xid) if self.xid is not None else IMMEDIATE * (self.kind == IMMEDIATE))

    def __str__(self) -> str:
        words = {IMMEDIATE: "the end of the backup", LATEST: "the newest moment"}
        return words.get(self.kind, f"{self.kind} {self.value}")

    def settings(self, timeline: int, current: bool = False) -> dict[str, str]:
        """The parameters of the recovery on a timeline, in the order in which they have to be written. ``current``:
        it is the backup's own, whose history file may be missing, if archiving began later.

        The server always waits at the target: what it has reached is compared before anything becomes of it. The
        other kinds are emptied, and before: PostgreSQL refuses more than one, in whatever file it is.
        """
        own = SETTING.get(self.kind, "")
        values = {name: "" for name in SETTING.values() if name != own}
        if own:
            values[own] = self.value
        values["recovery_target_inclusive"] = "on" if self.inclusive else "off"
        values["recovery_target_timeline"] = "current" if current or self.kind == IMMEDIATE else str(timeline)
        values["recovery_target_action"] = "promote" if self.kind == LATEST else "pause"
        return values


def written(when: datetime) -> str:
    """A time as PostgreSQL reads it, whatever its own settings are."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")


def parse(given: Mapping[str, Any]) -> Target:
    """The target that arguments name: ``time``, ``lsn``, ``name`` and ``xid`` are texts, ``immediate`` and ``latest``
    switches, ``timeline`` a number or nothing, ``inclusive`` a switch.

    Raises InvalidInput.
    """
    # An empty text is one that was given: a variable without a value must not mean another moment.
    asked = [kind for kind in KINDS if given.get(kind) is not None and given.get(kind) is not False]
    if len(asked) != 1:
        raise InvalidInput(
            f"Exactly one target is needed, and not {' and '.join(asked) or 'none'}.",
            f"Choose one of {', '.join(KINDS)}.",
        )
    (kind,) = asked
    timeline, inclusive = _timeline(given.get("timeline")), given.get("inclusive") is not False
    if kind in (IMMEDIATE, LATEST):
        return Target(kind, timeline=timeline)
    value = READ[kind](str(given[kind]).strip())
    return Target(kind, timeline=timeline, inclusive=inclusive, **{kind: value})


def check_end(target: Target, end: str) -> None:
    """Raises InvalidInput if a server cannot end so at a target."""
    if end not in ENDS:
        raise InvalidInput(f"{end} is not what can become of a server.", f"Choose one of {', '.join(ENDS)}.")
    if target.kind == LATEST and end != PROMOTE:
        raise InvalidInput(
            f"A server that is recovered to the newest moment is always promoted, and cannot be {end}.",
            "To look at it first, choose a time, an LSN or a restore point.",
        )


def moment(text: str) -> datetime:
    """A time with an explicit zone, in UTC.

    Raises InvalidInput.
    """
    match = MOMENT.match(text)
    if match is None:
        raise InvalidInput(f"{text!r} is not a time that can be read.", WRITE_A_TIME)
    *parts, fraction, zone = match.groups()
    if zone is None:
        raise InvalidInput(f"{text!r} has no time zone, so which moment it is depends on who reads it.", WRITE_A_TIME)
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        micro = int((fraction or "").ljust(6, "0"))
        local = datetime(year, month, day, hour, minute, second, micro, _zone(zone))
        return local.astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text!r} is no time: {error}.", WRITE_A_TIME) from error


def _zone(text: str) -> timezone:
    if text.upper() in ("Z", "UTC"):
        return timezone.utc
    digits = text[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 15 or minutes > 59:
        raise ValueError(f"there is no zone {text}")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def position(text: str) -> int:
    """An LSN as PostgreSQL writes it, 16/B374D848, as a byte of the WAL.

    Raises InvalidInput.
    """
    match = POSITION.match(text)
    if match is None:
        raise InvalidInput(f"{text!r} is no LSN.", "Write it as pg_current_wal_lsn() does: 16/B374D848.")
    return (int(match.group(1), 16) << 32) + int(match.group(2), 16)


def _name(text: str) -> str:
    if not text or len(text.encode()) > LONGEST_NAME or "\0" in text or "\n" in text:
        raise InvalidInput(f"{text!r} cannot be the name of a restore point.", f"It has 1 to {LONGEST_NAME} bytes.")
    return text


def _xid(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or not FIRST_XID <= int(text) < 1 << 64:
        raise InvalidInput(f"{text!r} is no transaction ID.", "Write it as pg_current_xact_id() does.")
    return int(text)


def _timeline(given: Any) -> int:
    text = str(given if given is not None else "").strip()
    if not text:
        return 0
    if not text.isdecimal() or not text.isascii() or not 0 < int(text) < 1 << 32:
        raise InvalidInput(f"{text!r} is no timeline.", "Write its number, or leave it out for the cluster's own.")
    return int(text)


READ: Mapping[str, Any] = {TIME: moment, LSN: position, NAME: _name, XID: _xid}
