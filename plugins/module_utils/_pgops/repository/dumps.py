# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dumps in a generation of a repository: found, and where they are. All as the server's user.

    GENERATION/dump/.lock                         one at a time takes or expires dumps
    GENERATION/dump/DATABASE/                     a directory as of backups (backups.py): attempt, removed
    GENERATION/dump/DATABASE/NAME/manifest.json   makes the directory a dump: written last, removed first
    GENERATION/dump/DATABASE/NAME/SHA256SUMS      of all files of the dump, as sha256sum(1) has it
    GENERATION/dump/DATABASE/NAME/globals.sql     roles and tablespaces, with the passwords of roles
    GENERATION/dump/DATABASE/NAME/data/           what pg_dump wrote, for pg_restore
    GENERATION/dump/DATABASE/NAME/pin.json        keeps the dump

A dump brings a database to no other moment than its own: no window and no recovery counts on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ..errors import Busy, HostFailed, InvalidInput
from ..host import files
from ..server import encoding
from . import archiver, backups, generations, manifests

METHOD = "pg_dump"
FOLDER, LOCK, SUMS, GLOBALS, DATA = "dump", ".lock", "SHA256SUMS", "globals.sql", "data"


@dataclass(frozen=True)
class Dump:
    """What a dump is. ``id`` is a UUID. ``database`` is the name of the database as ``key`` has it; ``oid``,
    ``encoding``, ``owner`` and ``locale`` (provider, collate, ctype, locale) are what it had.

    Whatever was committed before ``snapshot_lsn`` (bytes of the WAL) on ``timeline`` is in it. Times are in UTC.
    ``versions`` are those of the programs pg_dump and pg_dumpall. ``compression`` is none, gzip, lz4 or zstd;
    ``stored_bytes`` its size in the repository, ``data_bytes`` that of the database on the server. ``entries`` are
    those of its table of contents. ``checksum`` is the SHA-256 of SHA256SUMS.
    """

    id: str
    database: str
    oid: int
    encoding: str
    owner: str
    locale: Mapping[str, str]
    cluster: str
    node: str
    system_identifier: str
    server_version: str
    versions: Mapping[str, str]
    timeline: int
    snapshot_lsn: int
    started_at: datetime
    completed_at: datetime
    compression: str
    stored_bytes: int
    data_bytes: int
    entries: int
    checksum: str
    from_standby: bool = False

    @property
    def shown(self) -> str:
        """The name of the database, for people."""
        return shown(self.database)

    @property
    def position(self) -> tuple[int, int, datetime]:
        """Its place among others: by timeline and WAL, since clocks are set back; and where nothing was written in
        between, by the clock."""
        return self.timeline, self.snapshot_lsn, self.completed_at

    def text(self) -> str:
        """As its file holds it."""
        data = {**asdict(self), "method": METHOD, "database_shown": self.shown}
        data["started_at"], data["completed_at"] = map(manifests.written, (self.started_at, self.completed_at))
        return manifests.sealed(data)


def parse(text: str, path: str) -> Dump:
    """The dump that a file's text describes.

    Raises InvalidInput if it is damaged, or of a newer version.
    """
    try:
        data = manifests.unsealed(text, path)
        del data["method"], data["database_shown"]
        for name in ("started_at", "completed_at"):
            data[name] = manifests.read_time(data[name])
        return Dump(**data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"{path} is damaged: {error!r}.", manifests.DAMAGED) from error


def key(name: bytes) -> str:
    """The name of a database, of any bytes, as that of a directory.

    >>> key(b'a/b .c')
    'a%2Fb%20%2Ec'
    """
    return quote_from_bytes(name, safe="").replace(".", "%2E").replace("~", "%7E")


def name(key: str) -> bytes:
    """The name of the database whose directory is called so."""
    return unquote_to_bytes(key)


def shown(key: str) -> str:
    """The name of a database for people: bytes that are no UTF-8 are escaped (see encoding).

    >>> shown("a%2Fb%FF")
    'a/b\\\\xff'
    """
    return encoding.readable(encoding.text(name(key)))


@dataclass(frozen=True)
class Stored:
    """A dump that is in the repository: the name of its directory, what it is, why it is pinned, None if it is not;
    when it was last verified after it was taken, and what that found."""

    name: str
    dump: Dump
    pin: str | None = None
    checked_at: datetime | None = None
    problems: tuple[str, ...] = ()

    @property
    def seen(self) -> datetime:
        """When all of it was read last."""
        return self.checked_at or self.dump.completed_at


@dataclass(frozen=True)
class Dumped:
    """What there is of a database, by its ``key``, in the directory ``place``: dumps in the order of the WAL, names
    of directories without a manifest, and by their names dumps whose manifests cannot be read. ``failed``: the newest
    attempt was not completed."""

    key: str
    place: str
    dumps: tuple[Stored, ...] = ()
    unfinished: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    failed: bool = False

    @property
    def newest(self) -> Stored | None:
        """The newest one in which nothing wrong was found."""
        return next((one for one in reversed(self.dumps) if not one.problems), None)


def folder(repository: str, generation: str) -> str:
    """The directory of a generation's dumps."""
    return os.path.join(repository, generation, FOLDER)


def prepared(repository: str, generation: str, database: str = "") -> str:
    """The same, or that of a database by its key, created if it does not exist in a generation that does.

    Raises HostFailed if this is no generation: is its file system mounted?
    """
    try:
        archiver.check_identity(repository, generation)
        made = folder(repository, generation)
        archiver.make_directory(made)
        if database:
            made = os.path.join(made, database)
            archiver.make_directory(made)
        return made
    except archiver.Failure as error:
        raise HostFailed(f"{error}.") from error
    except OSError as error:
        raise files.failure(error, f"{repository} cannot be written") from error


@contextlib.contextmanager
def alone(place: str, seconds: float = 0) -> Iterator[int]:
    """Keep all others from taking or expiring dumps below the directory ``place``; the descriptor is the lock's. A
    program that has it too keeps them away even where this process is killed.

    Raises Busy if another does for longer than ``seconds``.
    """
    try:
        with files.exclusive(os.path.join(place, LOCK), seconds) as lock:
            yield lock
    except Busy as error:
        raise Busy(
            f"Another run is taking or expiring dumps in {place}; nothing was changed.", "Wait for its end."
        ) from error


def databases(repository: str, generation: str) -> tuple[Dumped, ...]:
    """What there is of each database of a generation.

    Raises HostFailed.
    """
    place = folder(repository, generation)
    try:
        keys = sorted(entry.name for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise files.failure(error, f"{place} cannot be read") from error
    return tuple(listed(os.path.join(place, one)) for one in keys)


def listed(place: str) -> Dumped:
    """What there is of a database, in its directory; nothing if it does not exist. Raises HostFailed."""

    def stored(name: str, text: str, path: str) -> Stored:
        made = _own(parse(text, path), place, path)
        return Stored(name, made, backups.pinned(place, name), *backups.checked(place, name))

    found, unfinished, damaged = backups.entries(place, stored)
    found.sort(key=lambda one: (one.dump.position, one.dump.id))
    return Dumped(
        os.path.basename(place), place, tuple(found), tuple(unfinished), damaged, failed=backups.failed(place)
    )


def _own(dump: Dump, place: str, path: str) -> Dump:
    """A dump, if it is where it belongs. Raises InvalidInput."""
    generation = os.path.basename(os.path.dirname(os.path.dirname(place)))
    if dump.database != os.path.basename(place) or dump.system_identifier != generation.partition("-")[0]:
        raise InvalidInput(
            f"{path} is of database {dump.shown} of system {dump.system_identifier}, to which this directory does "
            "not belong.",
            "Move it where it came from.",
        )
    return dump


def everywhere(repository: str) -> list[tuple[str, Stored]]:
    """The dumps of all generations of a repository, each with the name of its generation: by database, and then in
    the order of the WAL.

    Raises HostFailed.
    """
    names = generations.present(repository)
    return [(name, one) for name in names for dumped in databases(repository, name) for one in dumped.dumps]


def told(repository: str, generation: str, one: Stored) -> dict[str, Any]:
    """A dump as commands and modules return it."""
    made = one.dump
    return {
        "name": one.name,
        "id": made.id,
        "database": made.shown,
        "path": os.path.join(folder(repository, generation), made.database, one.name),
        "node": made.node,
        "started_at": manifests.written(made.started_at),
        "completed_at": manifests.written(made.completed_at),
        "stored_bytes": made.stored_bytes,
        "data_bytes": made.data_bytes,
        "compression": made.compression,
        "pinned": one.pin,
        "problems": list(one.problems),
    }
