# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Segments of a generation that were read again and found damaged, and how far that reading has come.

The note is in the repository, where a restore finds it without the ops database. It speaks of contents, by their
checksums, and not of names: what has another content by now, such as a good copy that was put back, is not damaged
until it is read again. Of a file in a stanza of pgBackRest its size and time stand for the content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from ..host import files
from ..host.files import File
from . import archiver, manifests, segments
from . import stanza as stanzas
from .stanza import Stanza

NOTE = "wal.json"
FORMAT = 1
MOST_BAD = 1000


@dataclass(frozen=True)
class Damage:
    """The ``reason`` why a segment is damaged; ``content`` is the SHA-256 of what is stored under its name, '' where
    that cannot be read. ``expected`` is the SHA-256 that was known for ``expected_bytes`` of it before, '' if none
    was."""

    reason: str
    content: str
    expected: str = ""
    expected_bytes: int = 0


@dataclass(frozen=True)
class Reading:
    """How far the WAL has been read: ``after`` is the segment that was read last, '' for none; ``at`` when a run last
    ended, ``complete_at`` when one last came to the end of the WAL. ``damaged`` are segments by their names; ``bad``
    the SHA-256 of contents that were found damaged, by the same names, the last ones: the catalogue may have taken
    one for good."""

    after: str = ""
    at: datetime | None = None
    complete_at: datetime | None = None
    damaged: Mapping[str, Damage] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)

    def finding(self, damaged: Mapping[str, Damage]) -> Reading:
        """The same with what is damaged now."""
        others = {name: content for name, content in self.bad.items() if name not in damaged}
        bad = {**others, **{name: one.content for name, one in damaged.items() if one.content}}
        return replace(self, damaged=dict(damaged), bad=dict(list(bad.items())[-MOST_BAD:]))


def read(place: str) -> Reading:
    """The note in a directory of backups. One that cannot be read says nothing: all is read from the beginning."""
    try:
        data = json.loads(files.contents(os.path.join(place, NOTE)))
        damaged = {_segment(name): Damage(**one) for name, one in data["damaged"].items()}
        bad = {_segment(name): bytes.fromhex(content).hex() for name, content in data["bad"].items()}
        return Reading(str(data["after"]), _time(data["at"]), _time(data["complete_at"]), damaged, bad)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Reading()


def _segment(name: str) -> str:
    """The name of a segment. Raises ValueError for another."""
    if archiver.kind(name) != "segment":
        raise ValueError(f"{name!r} is no segment")
    return name


def _time(text: str | None) -> datetime | None:
    return manifests.read_time(text) if text else None


def note(place: str, reading: Reading) -> None:
    """Replace the note. Raises HostFailed."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "after": reading.after,
        "at": manifests.written(reading.at) if reading.at else None,
        "complete_at": manifests.written(reading.complete_at) if reading.complete_at else None,
        "damaged": {name: asdict(one) for name, one in sorted(reading.damaged.items())},
        "bad": dict(reading.bad),
    }
    files.apply([File(os.path.join(place, NOTE), (json.dumps(content) + "\n").encode(), 0o640)])


def still(repository: str, generation: str, reading: Reading) -> dict[str, str]:
    """The segments that are stored as they were when they were found damaged, by name, with the reasons. Raises
    HostFailed where a stanza cannot be read."""
    stanza = stanzas.of(repository, generation) if reading.damaged else None
    found: dict[str, str] = {}
    for name, one in reading.damaged.items():
        path = _path(repository, generation, name)
        there = bool(path) or (stanza is not None and stanza.stored(name) is not None)
        content = segments.digest(path) if path else in_stanza(stanza, name)
        if there and content == one.content:
            found[name] = one.reason
    return found


def in_stanza(stanza: Stanza | None, name: str) -> str:
    """What stands for the content of a segment in a stanza, which is not read for that; '' if it is not there. Raises
    HostFailed."""
    one = stanza.stored(name) if stanza else None
    return hashlib.sha256(f"{one.path} {one.size} {one.modified}".encode()).hexdigest() if one else ""


def _path(repository: str, generation: str, name: str) -> str:
    """The path of a segment, '' if it is not there."""
    try:
        stored = archiver.stored(archiver.place(repository, generation, name))
    except OSError:
        return ""
    return stored[0] if stored else ""
