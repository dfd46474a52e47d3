# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue of the cluster's repository in the ops database: a cache, which can be rebuilt at any time.

A directory is listed again only if it was changed. The newest comes first, so that the known files always reach back
from the newest one without a gap, however often a run is cut short.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from ..errors import Conflict, HostFailed, PgOpsError
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..server import foreign, guard, ownership
from ..server.names import OWNER
from ..server.session import Session, connect
from . import (
    archiver,
    backups,
    damage,
    drills,
    generations,
    inventory,
    recorded,
    recorded_dumps,
    recoverable,
    removed,
    restores,
    segments,
    wal,
)
from . import stanza as stanzas
from .restores import Speed

BATCH = 100
"""Files that are recorded in one transaction."""
BUDGET = 240.0
"""Seconds after which the rest is left to the next run."""
SETTLED_NS = 10 * 10**9
"""How old the last change of a directory must be, so that a later change shows in its time: some file systems count
in whole seconds, and the clock of a file server may differ."""

HERE = """
SELECT (SELECT s.system_identifier FROM pg_control_system() AS s)::text || '-'
       || current_setting('server_version_num')::integer / 10000 AS generation,
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS timeline,
       current_setting('archive_command') AS command, current_setting('data_directory') AS data
"""
FAILING = """
SELECT last_failed_wal AS name, last_failed_time AS failed_at
FROM pg_stat_archiver WHERE last_failed_time > coalesce(last_archived_time, '-infinity')
"""
KNOWN = "SELECT EXISTS (SELECT FROM pgops.generation WHERE name = %s AND repository = %s AND segments > 0)"
FORGET = """
WITH gone AS (DELETE FROM pgops.generation WHERE repository = %(path)s RETURNING name)
DELETE FROM pgops.backup AS b WHERE b.status = 'completed' AND b.generation IN (SELECT g.name FROM gone AS g)
"""
GENERATION = """
INSERT INTO pgops.generation (name, segment_bytes, repository) VALUES (%s, %s, %s)
ON CONFLICT (name) DO UPDATE SET repository = excluded.repository, segment_bytes = excluded.segment_bytes
RETURNING generation_id
"""
GONE = """
SELECT name, generation_id, segment_bytes FROM pgops.generation WHERE repository = %s AND name <> ALL (%s::text[])
"""
MOVED = """
DELETE FROM pgops.wal_directory WHERE generation_id IN (
    SELECT g.generation_id FROM pgops.generation AS g WHERE g.name = %s AND g.repository <> %s)
"""
DOUBTED = """
UPDATE pgops.wal_directory AS d SET modified_ns = 0 WHERE d.generation_id = %(generation)s AND d.directory IN (
    SELECT CASE WHEN f.wal_lsn IS NULL THEN '' ELSE left(f.wal_filename, 16) END
    FROM pgops.wal_file AS f WHERE f.generation_id = %(generation)s AND f.status = 'failed'
)
"""
BROKEN = """
SELECT f.wal_filename AS name FROM pgops.wal_file AS f
WHERE f.generation_id = %s AND f.status = 'failed' AND f.failed_at IS NULL
"""
DIRECTORIES = "SELECT directory, modified_ns FROM pgops.wal_directory WHERE generation_id = %s"
FILES = """
SELECT wal_filename, file_size, ending FROM pgops.wal_file
WHERE generation_id = %(generation)s AND status = 'archived'
  AND wal_filename > %(directory)s AND wal_filename < %(directory)s || 'G' AND wal_lsn IS NOT NULL
"""
HISTORIES = """
SELECT wal_filename, file_size, ending FROM pgops.wal_file
WHERE generation_id = %(generation)s AND status = 'archived' AND wal_lsn IS NULL
"""
NOTE = """
INSERT INTO pgops.wal_file (generation_id, wal_filename, timeline, segment, wal_lsn, ending, file_size, archived_at,
                            status, checksum)
SELECT %s, n.* FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::pg_lsn[], %s::text[], %s::bigint[],
                           %s::timestamptz[], %s::text[], %s::bytea[]) AS n
ON CONFLICT (generation_id, wal_filename) DO UPDATE
SET timeline = excluded.timeline, segment = excluded.segment, wal_lsn = excluded.wal_lsn, ending = excluded.ending,
    file_size = excluded.file_size, archived_at = excluded.archived_at, status = excluded.status,
    checksum = excluded.checksum, failed_at = NULL, expired_at = NULL
"""
EXPIRED = """
UPDATE pgops.wal_file SET status = 'expired', expired_at = now()
WHERE generation_id = %s AND wal_filename = ANY (%s)
"""
ROTTEN = """
UPDATE pgops.wal_file SET status = 'failed', checksum = NULL
FROM unnest(%s::text[], %s::text[]) AS n (name, content)
WHERE generation_id = %s AND wal_filename = n.name AND status = 'archived'
  AND (n.content = '' OR encode(checksum, 'hex') = n.content)
"""
CHECKSUMS = """
SELECT f.wal_filename AS name, f.file_size AS size, encode(f.checksum, 'hex') AS checksum
FROM pgops.wal_file AS f JOIN pgops.generation AS g USING (generation_id)
WHERE g.name = %s AND f.wal_filename = ANY (%s) AND f.status = 'archived' AND f.checksum IS NOT NULL
"""
LOOKED = """
INSERT INTO pgops.wal_directory (generation_id, directory, modified_ns) VALUES (%s, %s, %s)
ON CONFLICT (generation_id, directory) DO UPDATE SET modified_ns = excluded.modified_ns
"""
REMOVED = "DELETE FROM pgops.wal_directory WHERE generation_id = %s AND directory = %s"
FAILED = """
INSERT INTO pgops.wal_file AS f (generation_id, wal_filename, timeline, wal_lsn, status, failed_at)
VALUES (%s, %s, %s, %s, 'failed', %s)
ON CONFLICT (generation_id, wal_filename) DO UPDATE SET status = 'failed', failed_at = excluded.failed_at
"""
OLD = """
DELETE FROM pgops.wal_file AS f WHERE f.generation_id = %s AND f.status = 'expired' AND f.expired_at < now() - (
    SELECT make_interval(days => s.value::integer) FROM pgops.setting AS s WHERE s.name = 'retention_days')
"""
RUNS = """
SELECT n.timeline, min(n.segment) AS first, max(n.segment) AS last
FROM (
    SELECT f.timeline, f.segment, f.segment - row_number() OVER (PARTITION BY f.timeline ORDER BY f.segment) AS run
    FROM pgops.wal_file AS f WHERE f.generation_id = %s AND f.status = 'archived' AND f.segment IS NOT NULL
) AS n GROUP BY n.timeline, n.run
"""
SUMMARY = """
UPDATE pgops.generation AS g
SET catalogued_at = now(), segments = n.segments, stored_bytes = n.bytes, continuous_to = %(to)s::pg_lsn,
    continuous_since = (SELECT f.archived_at FROM pgops.wal_file AS f
                        WHERE f.generation_id = %(generation)s AND f.wal_filename = %(since)s::text)
FROM (SELECT count(f.segment) AS segments, coalesce(sum(f.file_size), 0) AS bytes
      FROM pgops.wal_file AS f WHERE f.generation_id = %(generation)s AND f.status = 'archived') AS n
WHERE g.generation_id = %(generation)s
"""
CLOSED = "DELETE FROM pgops.wal_gap WHERE generation_id = %s AND first_wal || last_wal <> ALL (%s::text[])"
MISSING = """
INSERT INTO pgops.wal_gap (generation_id, first_wal, last_wal, segments) VALUES (%s, %s, %s, %s)
ON CONFLICT (generation_id, first_wal, last_wal) DO NOTHING
"""


TABLES = (
    "backup",
    "drill",
    "dump",
    "expiry",
    "generation",
    "recovery_point",
    "recovery_window",
    "setting",
    "wal_directory",
    "wal_file",
    "wal_gap",
)
"""Those of the catalogue."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the repository. ``ending`` shows its compression; ``modified`` is in Unix time."""

    path: str
    ending: str
    size: int
    modified: float


@dataclass
class Tally:
    """What a run found: the numbers of files recorded and gone, and what is wrong; ``lost`` are the segments of the
    generation at hand that others have removed; ``until`` is its end, in monotonic time."""

    until: float
    noted: int = 0
    expired: int = 0
    complete: bool = True
    errors: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Generation:
    """A generation of the repository, and its row. ``timeline`` is the server's, None for one of the past; ``rotten``
    are the segments that a verification found damaged, with the reasons, and ``bad`` the contents of these and of
    former ones, by their SHA-256."""

    id: int
    name: str
    repository: str
    segment_bytes: int
    timeline: int | None
    rotten: Mapping[str, str] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)

    @property
    def wal(self) -> str:
        """The directory of its WAL."""
        return os.path.join(self.repository, self.name, "wal")


def update(
    configuration: Configuration, rebuild: bool = False, budget: float = BUDGET, keeping: str = ""
) -> dict[str, Any]:
    """Update the catalogue from the repository; with ``rebuild`` delete it first, and ignore the time limit.
    ``keeping`` is the directory of the jobs of the server's user, which may know of drills that were not told yet.

    Raises PgOpsError if the repository or the server cannot be reached.
    """
    path = configuration.repository
    with connect(endpoints.superuser(configuration, "catalogue")) as session:
        here = session.rows(HERE)[0]
        ownership.refuse_foreign(session)
        if session.in_recovery:
            _check_standby(session, path, here)
            return {"skipped": "standby: the catalogue is updated on the primary", "errors": []}
        if not os.path.isfile(os.path.join(path, here["generation"], archiver.IDENTITY)):
            if path.replace("%", "%%") not in here["command"] and stanzas.PROGRAM not in here["command"]:
                return {"skipped": f"no WAL has been archived into {path} yet", "errors": []}
            raise HostFailed(f"{path} does not exist, but WAL is archived into it.", "Is it mounted?")
        if rebuild:
            with guarded(session):
                session.execute(recorded_dumps.FORGOTTEN, {"path": path})
                session.execute(FORGET, {"path": path})
        tally = Tally(time.monotonic() + (float("inf") if rebuild else budget))
        for generation in _generations(session, path, here):
            try:
                _catalogue(session, generation, tally)
            except Conflict:
                raise
            except (PgOpsError, OSError, archiver.Failure) as error:
                tally.errors.append(f"{generation.name}: {error}")
        with guarded(session):
            recorded.forget(session)
            recorded_dumps.forget(session)
            drills.tell(session, drills.read(keeping).over if keeping else ())
            drills.forget(session)
        return {"noted": tally.noted, "expired": tally.expired, "complete": tally.complete, "errors": tally.errors}


def checksums(session: Session, generation: str, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of those segments of a generation whose content was good when it was read.

    Raises PgOpsError.
    """
    with guarded(session):
        rows = session.rows(CHECKSUMS, [generation, list(names)])
    return {row["name"]: (row["size"], row["checksum"]) for row in rows}


def guarded(session: Session) -> contextlib.AbstractContextManager[None]:
    """A transaction as the owner of the catalogue. Files are read outside of it: that may take long."""
    mode = guard.READING if session.in_recovery else guard.WRITING
    return guard.guarded(session, TABLES, mode, lambda one: foreign.refuse(one, become=OWNER, local=True))


def _check_standby(session: Session, path: str, here: Mapping[str, Any]) -> None:
    """A standby without access to its primary's repository could not archive after a promotion.

    Raises HostFailed.
    """
    folder = os.path.join(path, here["generation"], "wal")
    with guarded(session):
        known = session.value(KNOWN, [here["generation"], path])
    if not known:
        return
    # Checked by the owner: this job may see a file system as read-only that the server can write to.
    if not os.path.isdir(folder) or not _servers(folder, os.stat(here["data"]).st_uid):
        raise HostFailed(
            f"{folder} does not exist, or this standby cannot write to it: after a failover it could not archive.",
            "Mount the primary's repository on this host. The server's user needs the same uid on all nodes.",
        )


def _servers(folder: str, owner: int) -> bool:
    """Whether a directory of the repository is the server's user's."""
    found = os.stat(folder)
    return found.st_uid == owner or generations.mapped(folder, found, os.R_OK)


def _generations(session: Session, path: str, here: Mapping[str, Any]) -> list[Generation]:
    """The generations of the repository, the server's own first; also known ones that no longer exist there."""
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise HostFailed(f"{path} cannot be read: {error.strerror}.") from error
    found = []
    sizes = {name: int(one["wal_segment_size"]) for name, one in generations.generations(path, names).items()}
    with guarded(session):
        for name, size in sizes.items():
            session.execute(MOVED, [name, path])
            number = session.value(GENERATION, [name, size, path])
            timeline = here["timeline"] if name == here["generation"] else None
            found.append(Generation(number, name, path, size, timeline))
        gone = session.rows(GONE, [path, [generation.name for generation in found]])
    found += [Generation(row["generation_id"], row["name"], path, row["segment_bytes"], None) for row in gone]
    return sorted(found, key=lambda generation: generation.timeline is None)


def _catalogue(session: Session, generation: Generation, tally: Tally) -> None:
    with guarded(session):
        known = recorded.known(session, generation.name)
        known_dumps = recorded_dumps.known(session, generation.name)
        known_speeds = recoverable.known_speeds(session, generation.name)
    # Outside of the transaction, which has locks: on slow storage that may take long.
    seen = recorded.look(generation.repository, generation.name, generation.segment_bytes, known)
    seen_dumps = recorded_dumps.look(generation.repository, generation.name, known_dumps)
    drilled = drills.read(os.path.join(generation.repository, generation.name))
    with guarded(session):
        stored = recorded.note(session, seen)
        dumped = recorded_dumps.note(session, seen_dumps)
        drills.tell(session, drilled.over)
    tally.errors += [f"{generation.name}: {error}" for error in (*stored.errors, *dumped.errors)]
    reading = damage.read(backups.folder(generation.repository, generation.name))
    rotten = damage.still(generation.repository, generation.name, reading)
    generation = replace(generation, rotten=rotten, bad=reading.bad)
    expired, tally.lost = tally.expired, []
    changed = _wal(session, generation, tally)
    told = [recorded.told(sorted(tally.lost))] if tally.lost else []
    tally.errors += [f"{generation.name}: {error}" for error in told]
    with guarded(session):
        recorded.note_lost(session, generation.name, [*stored.lost, *dumped.lost, *told])
    speeds = restores.known(generation.repository, generation.name)
    learned = os.path.isdir(generation.wal) and restores.shown(speeds) != known_speeds
    if changed or (changed is not None and (stored.changed or learned)):
        less = stored.changed or tally.expired > expired or bool(generation.rotten)
        _summarise(session, generation, less, speeds)


def _wal(session: Session, generation: Generation, tally: Tally) -> bool | None:
    """Record the WAL of a generation; whether anything is new, None if the time was too short for all of it."""
    with guarded(session):
        # What was taken for good before it was known to be bad is read again.
        rotten = {**generation.bad, **dict.fromkeys(generation.rotten, "")}
        session.execute(ROTTEN, [list(rotten), list(rotten.values()), generation.id])
        session.execute(DOUBTED, {"generation": generation.id})
        known = {row["directory"]: row["modified_ns"] for row in session.rows(DIRECTORIES, [generation.id])}
        broken = [row["name"] for row in session.rows(BROKEN, [generation.id])]
    others = _stanza(generation)
    elsewhere = {name for there in others.values() for name in there}
    removed_since = {name for name in broken if name not in elsewhere and not _stored(generation, name)}
    # Those of a stanza have no time of their last change, and are always looked at.
    present = {**_directories(generation.wal), **dict.fromkeys(others, 0)}
    changed = [name for name, modified in present.items() if not modified or known.get(name) != modified]
    complete = True
    for directory in sorted(changed, reverse=True):
        there = {**others.get(directory, {}), **listing(generation.wal, directory)}
        complete = _record_directory(session, generation, directory, (present[directory], there), tally)
        if not complete:
            tally.complete = False
            break
    with guarded(session):
        for directory in sorted(set(known) - set(present)):
            _gone(session, generation, set(_known(session, generation, directory)), tally)
            session.execute(REMOVED, [generation.id, directory])
        _gone(session, generation, removed_since, tally)
        failing = _note_failure(session, generation)
        session.execute(OLD, [generation.id])
    return bool(changed or failing or set(known) != set(present)) if complete else None


def _stored(generation: Generation, name: str) -> bool:
    """Whether there is a file of that name, in whichever state."""
    return archiver.stored(archiver.place(generation.repository, generation.name, name)) is not None


def _directories(folder: str) -> dict[str, int]:
    """When the directories of a generation's WAL were changed, by name; '' is the top one, with history files.

    The time is read before the files are listed, so that later changes show. 0 if it is too recent to be sure.
    """
    now = time.time_ns()
    try:
        found = {"": os.stat(folder).st_mtime_ns}
        with os.scandir(folder) as entries:
            folders = [entry for entry in entries if len(entry.name) == 16 and entry.is_dir()]
            found.update({entry.name: entry.stat().st_mtime_ns for entry in folders})
    except FileNotFoundError:
        return {}
    return {name: modified if modified < now - SETTLED_NS else 0 for name, modified in found.items()}


def _stanza(generation: Generation) -> dict[str, dict[str, StoredFile]]:
    """The WAL files of the generation's stanza, by directory and name; none if it has no stanza. Their content is not
    read: there is no path. Raises HostFailed."""
    stanza = stanzas.of(generation.repository, generation.name)
    found: dict[str, dict[str, StoredFile]] = {}
    for name, one in stanza.wal().items() if stanza else ():
        directory = "" if name.endswith(".history") else name[:16]
        ending = os.path.splitext(one.path)[1] if one.sha1 else ""
        found.setdefault(directory, {})[name] = StoredFile("", ending, one.size, one.modified)
    return found


def _record_directory(
    session: Session, generation: Generation, directory: str, found: tuple[int, dict[str, StoredFile]], tally: Tally
) -> bool:
    """Record the new and the missing files of a directory, ``found`` with the time of its last change; False if the
    time limit was reached."""
    modified, present = found
    with guarded(session):
        known = _known(session, generation, directory)
    new = [name for name, kept in present.items() if known.get(name) != (kept.size, kept.ending)]
    for batch in _batches(sorted(new, reverse=True)):
        if time.monotonic() > tally.until:
            return False
        rows = [_row(name, present[name], generation) for name in batch]
        with guarded(session):
            session.execute(NOTE, [generation.id, *map(list, zip(*rows))])
        tally.noted += len(batch)
    with guarded(session):
        _gone(session, generation, set(known) - set(present), tally)
        session.execute(LOOKED, [generation.id, directory, modified])
    return True


def listing(wal_directory: str, directory: str) -> dict[str, StoredFile]:
    """The WAL files of a directory, by their names without the endings of their compression; those in a wrong
    directory are left out."""
    found: dict[str, StoredFile] = {}
    path = os.path.join(wal_directory, directory)
    if not os.path.isdir(path):  # it is a stanza's
        return found
    with os.scandir(path) as entries:
        for entry in entries:
            name, ending = wal.parted(entry.name)
            misplaced = directory != ("" if name.endswith(".history") else name[:16])
            if misplaced or name in found or not archiver.kind(name):
                continue
            about = entry.stat(follow_symlinks=False)
            found[name] = StoredFile(entry.path, ending, about.st_size, about.st_mtime)
    return found


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + BATCH] for start in range(0, len(names), BATCH))


def _row(name: str, kept: StoredFile, generation: Generation) -> tuple[Any, ...]:
    """A file as parameters of NOTE. One that is incomplete, damaged, or cannot be read has the status failed; one of
    a stanza, which pgBackRest stores as a whole, has no checksum."""
    place = wal.place(name, generation.segment_bytes)
    whole = bool(kept.ending) or place is None or place.segment is None or kept.size == generation.segment_bytes
    sound = (whole or not kept.path) and name not in generation.rotten
    checksum = segments.digest(kept.path) if kept.path and sound else ""
    return (
        name,
        place.timeline if place else int(name[:8], 16),
        place.segment if place else None,
        wal.lsn(place.lsn) if place else None,
        kept.ending,
        kept.size,
        datetime.fromtimestamp(kept.modified, timezone.utc),
        "archived" if checksum or (sound and not kept.path) else "failed",
        bytes.fromhex(checksum) if checksum else None,
    )


def _known(session: Session, generation: Generation, directory: str) -> dict[str, tuple[int, str]]:
    """Size and ending of the files of a directory that are known to be archived."""
    query = FILES if directory else HISTORIES
    rows = session.rows(query, {"generation": generation.id, "directory": directory})
    return {row["wal_filename"]: (row["file_size"], row["ending"]) for row in rows}


def _gone(session: Session, generation: Generation, names: set[str], tally: Tally) -> None:
    """Record the files that no longer exist."""
    if names:
        ours = removed.read(backups.folder(generation.repository, generation.name))
        session.execute(EXPIRED, [generation.id, sorted(names)])
        tally.lost += recorded.unexplained(ours, names, generation.segment_bytes)
        tally.expired += len(names)


def _note_failure(session: Session, generation: Generation) -> bool:
    """Record the file that the server fails to archive, if any; whether there is one."""
    failing = session.row(FAILING) if generation.timeline is not None else None
    if failing is None or not archiver.kind(failing["name"]):
        return False
    place = wal.place(failing["name"], generation.segment_bytes)
    at = [place.timeline, wal.lsn(place.lsn)] if place else [int(failing["name"][:8], 16), None]
    session.execute(FAILED, [generation.id, failing["name"], *at, failing["failed_at"]])
    return True


def _summarise(session: Session, generation: Generation, less: bool, speeds: Mapping[str, Speed]) -> None:
    """Record since when WAL is available without a gap, the gaps, and what can be recovered, and how fast; ``less``:
    what could be before may no longer be."""
    size = generation.segment_bytes
    with guarded(session):
        runs = [wal.Run(**row) for row in session.rows(RUNS, [generation.id])]
    timeline = generation.timeline or max((run.timeline for run in runs), default=1)
    ancestors = wal.ancestry(_history(generation, timeline))
    chain = wal.continuous(runs, timeline, ancestors, size)
    since = wal.name(chain[-1].timeline, chain[-1].first, size) if chain else None
    to = wal.lsn((chain[0].last + 1) * size) if chain else None
    with guarded(session):
        session.execute(SUMMARY, {"generation": generation.id, "since": since, "to": to})
        _note_gaps(session, generation, wal.gaps(runs, timeline, ancestors, size))
    if os.path.isdir(generation.wal):
        stored = inventory.among(generation.repository, generation.name, runs, generation.rotten)
        with guarded(session):
            recoverable.note(session, stored, generation.timeline, less, speeds)


def _note_gaps(session: Session, generation: Generation, gaps: Iterable[wal.Run]) -> None:
    size = generation.segment_bytes
    named = [
        (wal.name(gap.timeline, gap.first, size), wal.name(gap.timeline, gap.last, size), gap.last - gap.first + 1)
        for gap in gaps
    ]
    session.execute(CLOSED, [generation.id, [first + last for first, last, _segments in named]])
    for row in named:
        session.execute(MISSING, [generation.id, *row])


def _history(generation: Generation, timeline: int) -> str:
    """The history file of a timeline; empty if it is not in the repository."""
    name = f"{timeline:08X}.history"
    present = archiver.stored(archiver.place(generation.repository, generation.name, name))
    if present is not None:
        return b"".join(archiver.unpacked(*present)).decode("utf-8", "replace")
    stanza = stanzas.of(generation.repository, generation.name)
    return stanza.history(name) if stanza else ""
