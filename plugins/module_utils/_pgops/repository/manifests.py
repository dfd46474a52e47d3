# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifest of a backup: the JSON document beside its files, which alone suffices to restore it. Pure.

A manifest never changes once it is written. It holds the SHA-256 of itself and of PostgreSQL's own backup_manifest,
which in turn has one for each file: what is damaged shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from ..errors import InvalidInput

FORMAT = 1
FULL, DIFFERENTIAL, INCREMENTAL = "full", "differential", "incremental"
KINDS = (FULL, DIFFERENTIAL, INCREMENTAL)


@dataclass(frozen=True)
class Tablespace:
    """A tablespace: its OID, and the directory that it had on the server."""

    oid: int
    path: str


@dataclass(frozen=True)
class Manifest:
    """What a backup is. ``id`` is a UUID, ``parent`` that of the backup which an incremental or differential one
    needs, '' for a full one. ``kind`` is one of KINDS, ``method`` what took it, such as pg_basebackup.

    Restoring needs the WAL from ``start_lsn`` to ``stop_lsn`` (bytes of the WAL) on ``timeline``. Times are in UTC,
    by the clock of the server. ``layout`` is plain (a data directory) or tar, whose files have the ``compression``
    none, gzip, lz4 or zstd. ``stored_bytes`` is its size in the repository, ``data_bytes`` that of the data directory
    and tablespaces which a restore makes of it. ``checksum`` is the SHA-256 of backup_manifest, in hexadecimal.

    ``environment`` is what the server had that a restore needs elsewhere: ``extensions``, ``preloaded`` libraries,
    ``collations`` with their versions, ``configuration`` files outside of the data directory.
    """

    id: str
    kind: str
    method: str
    cluster: str
    node: str
    system_identifier: str
    server_version: str
    segment_bytes: int
    timeline: int
    start_lsn: int
    stop_lsn: int
    started_at: datetime
    completed_at: datetime
    layout: str
    compression: str
    stored_bytes: int
    data_bytes: int
    checksum: str
    parent: str = ""
    from_standby: bool = False
    tablespaces: tuple[Tablespace, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def major(self) -> int:
        """The major version of the server."""
        return int(self.server_version.partition(".")[0])

    @property
    def position(self) -> tuple[int, int]:
        """Its place among others: by timeline and WAL, since clocks are set back."""
        return self.timeline, self.stop_lsn

    def text(self) -> str:
        """As its file holds it."""
        data = asdict(self)
        data["started_at"], data["completed_at"] = map(written, (self.started_at, self.completed_at))
        return sealed(data)


def parse(text: str, path: str) -> Manifest:
    """The manifest that a file's text is.

    Raises InvalidInput if it is damaged, or of a newer version.
    """
    try:
        data = unsealed(text, path)
        data["started_at"], data["completed_at"] = map(read_time, (data["started_at"], data["completed_at"]))
        data["tablespaces"] = tuple(Tablespace(**one) for one in data["tablespaces"])
        return Manifest(**data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"{path} is damaged: {error!r}.", DAMAGED) from error


def sealed(data: Mapping[str, Any]) -> str:
    """A document of this format, with a checksum of itself."""
    whole = {"format": FORMAT, **data}
    return _document({**whole, "sha256": _digest(whole)})


def unsealed(text: str, path: str) -> dict[str, Any]:
    """What such a document says, without its format and checksum.

    Raises InvalidInput if it is of a newer version, or its checksum is another; ValueError, TypeError, KeyError and
    AttributeError if it is no such document.
    """
    data: dict[str, Any] = json.loads(text)
    if data["format"] != FORMAT:
        raise InvalidInput(
            f"{path} has a format that this version of pgops.fleet cannot read.", "Use the version that wrote it."
        )
    if data.pop("sha256") != _digest(data):
        raise InvalidInput(f"{path} is damaged: its checksum is not that of its content.", DAMAGED)
    del data["format"]
    return data


class Document(Protocol):
    """What is published beside files, and makes them count."""

    def text(self) -> str:
        """As its file holds it."""


DAMAGED = "Restore the file from a copy of the repository, or remove the backup's directory and take another backup."


def written(when: datetime) -> str:
    """A time as manifests have it: ISO 8601 in UTC."""
    return when.astimezone(timezone.utc).isoformat()


def read_time(text: str) -> datetime:
    """The same, read; raises ValueError for one without a zone."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return found.astimezone(timezone.utc)


def _document(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(_document(data).encode()).hexdigest()
