# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a restore will take, by those before it, of which the repository has a record.

REPOSITORY/GENERATION/restores.json      the last restores: their sizes and the seconds of their phases
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import PgOpsError
from ..host import files
from ..repository.manifests import Manifest

RECORD = "restores.json"
FORMAT = 1
MOST = 20
"""Restores that are remembered."""
LARGEST = 1 << 20
SMALLEST = 16 << 20
"""Bytes that a rate can be told from: less takes as long as its beginning."""
SELECT, COPY, COMBINE, VERIFY, REPLAY, START = "select", "copy", "combine", "verify", "replay", "start"
OF_PHASES = {
    SELECT: ("plan",),
    COPY: ("copy",),
    COMBINE: ("combine",),
    VERIFY: ("verify", "sync"),
    REPLAY: ("recover",),
    START: ("configure", "unarchived", "promote", "restart", "stop"),
}
"""The phases of a restore that a part of its forecast is about."""
RATES = {COPY: 100e6, COMBINE: 60e6, VERIFY: 150e6, REPLAY: 40e6}
"""Bytes a second where nothing is known of the host."""
CONSTANT = {SELECT: 5.0, START: 10.0}
"""Seconds, likewise."""
MEASURED, BACKUP, DEFAULT = "restores", "backup", "default"
"""What a part is forecast by: restores before, the time that the backup itself took, or nothing."""


@dataclass(frozen=True)
class Size:
    """What there is to do: bytes of the data directory and tablespaces, and of WAL; ``combined`` from several
    backups."""

    data: int
    wal: int
    combined: bool = False

    def of(self, part: str) -> int:
        """The bytes of a part; 0 where it is not done."""
        sizes = {COPY: 0 if self.combined else self.data, COMBINE: self.data if self.combined else 0}
        return sizes.get(part, self.wal if part == REPLAY else self.data)


@dataclass(frozen=True)
class Done:
    """A restore of the past, on a ``host``: its size, and the seconds of its phases."""

    host: str
    data: int
    wal: int
    combined: bool
    phases: Mapping[str, float]

    def seconds(self, part: str) -> float:
        """How long a part took."""
        return sum(self.phases.get(name, 0.0) for name in OF_PHASES[part])


def forecast(size: Size, backup: Manifest, before: Sequence[Done], host: str) -> dict[str, Any]:
    """The seconds of a restore, and of its parts with what each is known by. Pure."""
    here = [one for one in before if one.host == host] or list(before)
    parts = [_part(part, size, backup, here) for part in (SELECT, COPY, COMBINE, VERIFY, REPLAY, START)]
    parts = [part for part in parts if part["seconds"] is not None]
    return {"seconds": round(sum(part["seconds"] for part in parts), 1), "parts": parts}


def _part(part: str, size: Size, backup: Manifest, before: Sequence[Done]) -> dict[str, Any]:
    if part in CONSTANT:
        known = [one.seconds(part) for one in before]
        return _told(part, median(known) if known else CONSTANT[part], MEASURED if known else DEFAULT)
    todo = size.of(part)
    if not todo:
        return _told(part, None, DEFAULT)
    sizes = [(Size(one.data, one.wal, one.combined).of(part), one.seconds(part)) for one in before]
    rates = [done / seconds for done, seconds in sizes if done >= SMALLEST and seconds > 0]
    if rates:
        return _told(part, todo / median(rates), MEASURED)
    taken = (backup.completed_at - backup.started_at).total_seconds()
    if part == COPY and taken > 0 and backup.data_bytes >= SMALLEST:
        return _told(part, taken * todo / backup.data_bytes, BACKUP)
    return _told(part, todo / RATES[part], DEFAULT)


def median(values: Sequence[float]) -> float:
    """The one in the middle, of an even number the upper one."""
    return sorted(values)[len(values) // 2]


def _told(part: str, seconds: float | None, basis: str) -> dict[str, Any]:
    return {"part": part, "seconds": None if seconds is None else round(seconds, 1), "basis": basis}


def read(repository: str, generation: str) -> tuple[Done, ...]:
    """The restores before, the oldest first; none where there is no record that can be read."""
    path = os.path.join(repository, generation, RECORD)
    try:
        found = json.loads(files.contents(path, LARGEST, follow=False))
        return tuple(Done(**one) for one in found["restores"]) if found["format"] == FORMAT else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def note(repository: str, generation: str, done: Done) -> None:
    """Remember a restore. Where the repository cannot be written to, nothing is remembered."""
    document = {"format": FORMAT, "restores": [asdict(one) for one in (*read(repository, generation), done)[-MOST:]]}
    path = os.path.join(repository, generation, RECORD)
    with contextlib.suppress(PgOpsError, OSError):
        files.apply([files.File(path, f"{json.dumps(document, sort_keys=True)}\n".encode(), 0o640)])
