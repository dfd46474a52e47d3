# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The server that is backed up: what is read of it before a backup, and what has to be so."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import Conflict, HostFailed
from ..host import files
from ..instance.configuration import Configuration
from ..repository import segments
from ..repository.manifests import Tablespace
from ..server import postmaster
from ..server.session import Session

RESERVE = 4
"""Segments of WAL that a backup leaves room for at least: archiving goes on while it is written."""
MEASURING = 3.0
"""Seconds in which the speed of the archiver is measured, where segments wait for it."""

Archives = Callable[[str, str, str], bool]
"""Whether an archive_command stores WAL in a generation of a repository, as `Engine.archives`."""

READ = """
SELECT s.system_identifier::text AS system_identifier, current_setting('server_version_num')::integer AS version_num,
       pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes, pg_is_in_recovery() AS in_recovery,
       CASE WHEN pg_is_in_recovery() THEN c.timeline_id
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS timeline,
       current_setting('data_checksums') AS data_checksums,
       (SELECT coalesce(sum(pg_database_size(d.oid)), 0)::bigint FROM pg_database AS d) AS bytes,
       current_setting('max_wal_senders')::integer AS wal_senders,
       (SELECT t.setting::integer FROM pg_settings AS t WHERE t.name = 'archive_timeout') AS archive_timeout,
       coalesce(current_setting('summarize_wal', true), 'off') AS summarize_wal
FROM pg_control_system() AS s, pg_control_checkpoint() AS c
"""
TABLESPACES = """
SELECT t.oid::bigint AS oid, pg_tablespace_location(t.oid) AS path FROM pg_tablespace AS t
WHERE pg_tablespace_location(t.oid) LIKE '/%' ORDER BY t.oid
"""
ARCHIVING = """
SELECT current_setting('archive_mode') AS mode, current_setting('archive_command') AS command,
       coalesce(current_setting('archive_library', true), '') AS library
"""
ARCHIVER = """
SELECT a.archived_count, a.failed_count, a.last_failed_wal,
       a.last_failed_time > coalesce(a.last_archived_time, '-infinity') AS failing,
       (SELECT count(*) FROM pg_ls_archive_statusdir() AS f WHERE f.name LIKE '%.ready') AS waiting
FROM pg_stat_archiver AS a
"""
WRITTEN = """
SELECT pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0')::bigint
"""
REPLAYED = "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint"
PHASE = "SELECT p.phase FROM pg_stat_progress_basebackup AS p"
WAITING_FOR_WAL = "waiting for wal archiving to finish"


@dataclass(frozen=True)
class Source:
    """A server. ``bytes`` is the size of all its databases; ``timeline`` the one on which it is; ``archive_timeout``
    is in seconds; ``bin_directory`` has its program, ``data_directory`` its data."""

    system_identifier: str
    version_num: int
    segment_bytes: int
    in_recovery: bool
    timeline: int
    data_checksums: str
    bytes: int
    wal_senders: int
    archive_timeout: int
    summarize_wal: str
    bin_directory: str
    data_directory: str
    tablespaces: tuple[Tablespace, ...] = ()

    @property
    def major(self) -> int:
        """The major version, 17 for 17.4."""
        return self.version_num // 10000

    @property
    def version(self) -> str:
        """The version as people write it, 17.4."""
        return f"{self.major}.{self.version_num % 10000}"

    @property
    def generation(self) -> str:
        """The name of its generation in a repository."""
        return f"{self.system_identifier}-{self.major}"


@dataclass(frozen=True)
class Backlog:
    """The segments that wait to be archived, and the seconds that this will take; None if none of them was archived
    while that was measured."""

    segments: int
    seconds: float | None


def read(session: Session) -> Source:
    """The server of a session over its socket.

    Raises QueryFailed, Unsupported, HostFailed.
    """
    server = postmaster.of(session)
    spaces = tuple(Tablespace(**row) for row in session.rows(TABLESPACES))
    return Source(
        **session.rows(READ)[0],
        bin_directory=server.bin_directory,
        data_directory=server.data_directory,
        tablespaces=spaces,
    )


def elsewhere(declared: str, node: str, in_recovery: bool) -> str:
    """Why this node of a cluster is not the one that is backed up; '' if it is. Pure."""
    if declared == "primary":
        return "standby: the primary is backed up (pgops_backup_source)" if in_recovery else ""
    return "" if declared == node else f"{declared} is backed up, and this is {node} (pgops_backup_source)"


def check_archiving(session: Session, configuration: Configuration, source: Source, archives: Archives) -> None:
    """Raises Conflict if the server does not archive into the repository, and HostFailed if it fails to."""
    found = session.rows(ARCHIVING)[0]
    hint = "Apply the role pgops_archiving, with a restart if it asks for one (docs/archiving.md)."
    if found["mode"] != "on":
        raise Conflict(f"archive_mode is {found['mode']}: without WAL a backup cannot be restored.", hint)
    if found["library"] or not archives(found["command"], configuration.repository, source.generation):
        raise Conflict(
            f"WAL is not archived into {configuration.repository}: archive_library and archive_command are others.",
            hint,
        )
    archiver = session.rows(ARCHIVER)[0]
    if not source.in_recovery and archiver["failing"]:
        raise failing(archiver)


def ours(command: str, repository: str, generation: str) -> bool:
    """Whether an archive_command stores into a generation of a repository. Pure."""
    try:
        words = [word.replace("%%", "%") for word in shlex.split(command)]
    except ValueError:
        return False
    return words[1:4] == ["push", repository, generation]


def failing(archiver: dict[str, Any]) -> HostFailed:
    """The error of an archiver that fails."""
    return HostFailed(
        f"Archiving fails, for {archiver['last_failed_wal']} last: a backup without its WAL cannot be restored. "
        f"{archiver['waiting']} segments wait.",
        "The server's log shows the error of the archiver. Correct it, then take the backup.",
    )


def backlog(session: Session, measuring: float = MEASURING) -> Backlog:
    """What waits to be archived, which a backup has to wait for."""
    before = session.rows(ARCHIVER)[0]
    waiting = int(before["waiting"])
    if not waiting:
        return Backlog(0, 0.0)
    began, now = time.monotonic(), before
    while time.monotonic() < began + measuring and now["waiting"]:
        time.sleep(measuring / 10)
        now = session.rows(ARCHIVER)[0]
    done = int(now["archived_count"]) - int(before["archived_count"])
    seconds = (time.monotonic() - began) / done * int(now["waiting"]) if done else None
    return Backlog(int(now["waiting"]), seconds if now["waiting"] else 0.0)


def behind(session: Session, configuration: Configuration, source: Source) -> Backlog:
    """What a standby has replayed and its primary has not archived yet; how long that takes is not known here.

    Raises HostFailed.
    """
    size = source.segment_bytes
    try:
        newest = segments.newest(configuration.repository, source.generation, source.timeline, size)
    except OSError as error:
        raise files.failure(error, f"{configuration.repository} cannot be read") from error
    replayed = int(session.value(REPLAYED)) // size
    waiting = max(0, replayed - 1 - newest) if newest is not None else 0
    return Backlog(waiting, None if waiting else 0.0)


def check_room(place: str, needed: int, reserve: int) -> None:
    """Raises HostFailed if the file system of a directory has less room than so many bytes, and a reserve for WAL."""
    free = room(place)
    if free < needed + reserve:
        raise HostFailed(
            f"{place} has {_mb(free)} MB free, and the backup needs some {_mb(needed)} MB, besides {_mb(reserve)} MB "
            "that are kept for WAL.",
            "Make room, keep backups for a shorter time (pgops_backup_retention), or compress them "
            "(pgops_backup_compression).",
        )


def room(place: str) -> int:
    """The bytes that this user can write on the file system of a directory. Raises HostFailed."""
    try:
        about = os.statvfs(place)
    except OSError as error:
        raise files.failure(error, f"{place} cannot be read") from error
    return about.f_bavail * about.f_frsize


def _mb(size: int) -> int:
    return -(-size // 1_000_000)
