# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The restores of a generation, of which the repository has a record, and how long by them another one will take.

REPOSITORY/GENERATION/restores.json      the last restores: their sizes and the seconds of their phases
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import PgOpsError
from ..host import files
from .backups import Kept
from .manifests import Manifest
from .stanza import LAYOUT

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
HERE, ELSEWHERE, BACKUP, ASSUMED = "here", "elsewhere", "backup", "assumed"
"""What a part is forecast by, the best first: restores on the same host, restores on others, the time that the full
backup itself took, or nothing."""
BASES = (HERE, ELSEWHERE, BACKUP, ASSUMED)


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


@dataclass(frozen=True)
class Speed:
    """What restores have shown of a part: bytes a second, or the seconds of one that takes no longer for more; and
    whether it was HERE or ELSEWHERE."""

    value: float
    basis: str


@dataclass(frozen=True)
class Part:
    """A part of a forecast, in seconds, and what it is known by."""

    part: str
    seconds: float
    basis: str


@dataclass(frozen=True)
class Forecast:
    """How long a restore will take, by its parts in their order."""

    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        """All of it."""
        return round(sum(one.seconds for one in self.parts), 1)

    @property
    def basis(self) -> str:
        """The weakest of what its parts are known by."""
        return max((one.basis for one in self.parts), key=BASES.index)

    def told(self) -> dict[str, Any]:
        """The forecast as data."""
        return {"seconds": self.seconds, "basis": self.basis, "parts": [asdict(one) for one in self.parts]}


# --- the forecast, pure


def size(chain: Sequence[Kept], segments: int) -> Size:
    """What it is to restore a chain of backups, the full one first, and to replay so many segments."""
    last = chain[-1].manifest
    # pgBackRest copies a backup and what it adds to in one go.
    return Size(last.data_bytes, segments * last.segment_bytes, len(chain) > 1 and last.layout != LAYOUT)


def forecast(chain: Sequence[Kept], segments: int, speeds: Mapping[str, Speed]) -> Forecast:
    """How long it will take to restore a chain of backups, the full one first, and to replay so many segments, at the
    speeds of the restores before."""
    todo, full = size(chain, segments), chain[0].manifest
    parts = (_part(part, todo, full, speeds.get(part)) for part in OF_PHASES)
    return Forecast(tuple(part for part in parts if part is not None))


def _part(part: str, todo: Size, full: Manifest, known: Speed | None) -> Part | None:
    """A part of the forecast; None where it is not done."""
    if part in CONSTANT:
        return Part(part, round(known.value if known else CONSTANT[part], 1), known.basis if known else ASSUMED)
    many = todo.of(part)
    if not many:
        return None
    if known:
        return Part(part, round(many / known.value, 1), known.basis)
    taken = (full.completed_at - full.started_at).total_seconds()
    if part == COPY and taken > 0 and full.data_bytes >= SMALLEST:
        return Part(part, round(taken * many / full.data_bytes, 1), BACKUP)
    return Part(part, round(many / RATES[part], 1), ASSUMED)


def speeds(before: Sequence[Done], host: str) -> dict[str, Speed]:
    """What the restores before show of each part: those of a host, or else those of others. Parts of which they show
    nothing are left out."""
    found = {}
    for part in OF_PHASES:
        here = _shown(part, (one for one in before if one.host == host))
        values = here or _shown(part, before)
        if values:
            found[part] = Speed(median(values), HERE if here else ELSEWHERE)
    return found


def _shown(part: str, before: Iterable[Done]) -> list[float]:
    """What each restore shows of a part: its seconds, or bytes a second."""
    if part in CONSTANT:
        return [one.seconds(part) for one in before]
    sizes = ((Size(one.data, one.wal, one.combined).of(part), one.seconds(part)) for one in before)
    return [done / seconds for done, seconds in sizes if done >= SMALLEST and seconds > 0]


def median(values: Sequence[float]) -> float:
    """The one in the middle, of an even number the upper one."""
    return sorted(values)[len(values) // 2]


def shown(speeds: Mapping[str, Speed]) -> dict[str, Any]:
    """Speeds as data: bytes a second, or seconds, and what they are known by, by the part."""
    return {
        part: {
            **({"seconds": round(one.value, 1)} if part in CONSTANT else {"bytes_per_second": round(one.value)}),
            "basis": one.basis,
        }
        for part, one in speeds.items()
    }


# --- the record


def known(repository: str, generation: str) -> dict[str, Speed]:
    """The speeds of the restores before, as this host sees them."""
    return speeds(read(repository, generation), os.uname().nodename)


def read(repository: str, generation: str) -> tuple[Done, ...]:
    """The restores before, the oldest first; none where there is no record that can be read."""
    path = os.path.join(repository, generation, RECORD)
    try:
        found = json.loads(files.contents(path, LARGEST, follow=False))
        return tuple(map(_done, found["restores"])) if found["format"] == FORMAT else ()
    except (OSError, PgOpsError, ValueError, ArithmeticError, KeyError, TypeError, AttributeError):
        return ()


def _done(row: Mapping[str, Any]) -> Done:
    """A restore of the record. Raises ValueError, ArithmeticError, KeyError, TypeError and AttributeError."""
    phases = {str(name): _number(seconds) for name, seconds in row["phases"].items()}
    data, wal = (int(_number(row[name])) for name in ("data", "wal"))
    return Done(str(row["host"]), data, wal, bool(row["combined"]), phases)


def _number(value: Any) -> float:
    """Raises ValueError, OverflowError and TypeError for what is no number of seconds or bytes."""
    found = float(value)
    if not math.isfinite(found) or found < 0:
        raise ValueError(f"{value!r} is no size")
    return found


def note(repository: str, generation: str, done: Done) -> None:
    """Remember a restore. Where the repository cannot be written to, nothing is remembered."""
    document = {"format": FORMAT, "restores": [asdict(one) for one in (*read(repository, generation), done)[-MOST:]]}
    path = os.path.join(repository, generation, RECORD)
    with contextlib.suppress(PgOpsError, OSError):
        files.apply([files.File(path, f"{json.dumps(document, sort_keys=True)}\n".encode(), 0o640)])
