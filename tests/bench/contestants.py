# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One server, and who takes backups of it: ours, pgBackRest, Barman. Each is run as its command, from its start on.

They are set up as their own documentation recommends for a repository on the server's host; docs/performance.md says
how.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import binaries
import hosting
import psycopg
from backed import Backed, own
from hosting import pgops
from servers import Server
from waiting import until

MAJOR = 15
"""The newest that pgBackRest and Barman of Debian 12 know."""
TOOLS = Path(f"/usr/lib/postgresql/{MAJOR}/bin")
SETTINGS = {"shared_buffers": "128MB", "max_wal_size": "4GB"}
FILLED = """
CREATE TABLE item AS SELECT n, md5(n::text) || md5((n * 7)::text) AS name FROM generate_series(1, {}) AS n;
CREATE INDEX ON item (n);
"""
GZIP, LZ4, ZSTD, NONE = "gzip", "lz4", "zstd", "none"


@dataclass
class Cluster:
    """A server with a directory for what the contestants keep."""

    backed: Backed
    root: Path

    @property
    def server(self) -> Server:
        return self.backed.server

    def archive_by(self, command: str) -> None:
        """Have WAL go where a contestant wants it, and wait until some has."""
        quoted = command.replace("'", "''")
        if self.server.value("SHOW archive_command") != command:
            self.server.value(f"ALTER SYSTEM SET archive_command = '{quoted}'")
            self.server.reload()
        name = self.backed.host.switch()
        archived = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver"
        until(lambda: str(self.server.value(archived)) >= name, f"{name} archived")

    def folder(self, name: str) -> Path:
        """A new directory of the server's user."""
        made = self.root / name
        made.mkdir()
        own(made, self.server)
        return made


@dataclass
class Contestant(ABC):
    """Who takes backups and restores them. ``jobs`` are the processes that copy."""

    cluster: Cluster
    place: Path
    name: str = ""
    jobs: int = 1
    archive_command: str = ""

    @abstractmethod
    def prepare(self, compression: str) -> None:
        """Configure how backups are compressed, once WAL comes here."""

    @abstractmethod
    def back_up(self) -> None:
        """Take a full backup, with all its WAL."""

    @abstractmethod
    def restore(self, server: Server) -> None:
        """Fill the data directory of a server from the newest backup, to its end."""

    def start(self, server: Server) -> None:
        """Start it, and have it recover."""
        server.start()

    @abstractmethod
    def forget(self) -> None:
        """Remove the backup."""

    def backup_seconds(self, compression: str) -> float:
        """Seconds of a backup."""
        self.cluster.archive_by(self.archive_command)
        self.prepare(compression)
        return timed(self.back_up)

    def restore_seconds(self, wanted: object, query: str) -> float:
        """Seconds until a server restored from the newest backup takes writes; what a query answers is compared."""
        server = Server._place(MAJOR)
        server.arguments = _arguments(server)
        try:
            began = time.perf_counter()
            self.restore(server)
            self.start(server)
            with psycopg.connect(server.tcp(), autocommit=True) as session:
                until(lambda: _value(session, "SELECT NOT pg_is_in_recovery()"), "promoted", pause=0.01)
                spent = time.perf_counter() - began
                found = _value(session, query)
            if found != wanted:
                raise RuntimeError(f"{self.name} restored {found}, and not {wanted}")
        finally:
            server.delete()
        return spent


class Ours(Contestant):
    """This collection's command, run by root where this is, as people do."""

    def prepare(self, compression: str) -> None:
        self.cluster.backed.configure(compression=compression, bin_directory=str(TOOLS))

    def back_up(self) -> None:
        pgops("--prefix", str(self.cluster.backed.host.prefix), "backup", "--type", "full")

    def restore(self, server: Server) -> None:
        repository = str(self.cluster.backed.host.repository)
        words = ["--repository", repository, "--to", str(server.data_dir), "--port", str(server.port)]
        programs = ["--bin-directory", str(TOOLS), "--server-bin-directory", str(server.bin_dir)]
        pgops("restore", "--immediate", *words, *programs)

    def start(self, server: Server) -> None:
        """It runs."""

    def forget(self) -> None:
        for path in self.cluster.backed.directories():
            shutil.rmtree(path)


PGBACKREST = """
[global]
repo1-path={place}/repository
repo1-bundle=y
repo1-retention-full=1
log-path={place}
log-level-file=off
log-level-console=warn
lock-path={place}/lock
start-fast=y
cmd={program}

[bench]
pg1-path={server.data_dir}
pg1-port={server.port}
pg1-socket-path={server.socket_dir}
pg1-user={server.superuser}
"""


class PgBackRest(Contestant):
    """Debian's pgbackrest."""

    compression = NONE

    def run(self, *words: str) -> None:
        """Run it as the server's user."""
        usual = (f"--config={self.place}/pgbackrest.conf", "--stanza=bench")
        self.cluster.server.run(binaries.pgbackrest(), *usual, *words)

    def set_up(self) -> None:
        """Make its repository."""
        server, program = self.cluster.server, binaries.pgbackrest()
        server.write(
            self.place / "pgbackrest.conf", PGBACKREST.format(place=self.place, server=server, program=program)
        )
        self.run("stanza-create")

    def prepare(self, compression: str) -> None:
        self.compression = {GZIP: "gz", ZSTD: "zst"}.get(compression, compression)

    def back_up(self) -> None:
        words = (f"--compress-type={self.compression}", f"--process-max={self.jobs}", "--type=full")
        self.run(*words, "backup")

    def restore(self, server: Server) -> None:
        server.run("mkdir", "-m", "700", server.data_dir)
        words = (f"--pg1-path={server.data_dir}", f"--process-max={self.jobs}", "--archive-mode=off")
        self.run(*words, "--type=immediate", "--target-action=promote", "restore")

    def forget(self) -> None:
        """The next backup does, by its retention."""


BARMAN = """
[barman]
barman_home = {place}
barman_lock_directory = {place}
barman_user = {server.os_user}
log_file = {place}/log
path_prefix = {tools}

[bench]
description = bench
conninfo = {dsn}
streaming_conninfo = {dsn}
backup_method = {method}
archiver = on
immediate_checkpoint = true
recovery_staging_path = {place}/staging
{more}
"""


class Barman(Contestant):
    """Debian's barman: by pg_basebackup, or with several ``jobs`` by rsync, which does not compress."""

    def run(self, *words: str) -> None:
        """Run it as the server's user."""
        self.cluster.server.run(binaries.barman(), "-q", "-c", self.place / "barman.conf", *words)

    def set_up(self) -> None:
        """Make its directories."""
        self.cluster.server.run("mkdir", "-p", self.place / "staging", self.place / "bench" / "incoming")

    def prepare(self, compression: str) -> None:
        server = self.cluster.server
        more = [f"backup_compression = {compression}"] if compression != NONE else []
        more += [f"parallel_jobs = {self.jobs}"] if self.jobs > 1 else []
        text = BARMAN.format(
            place=self.place,
            server=server,
            tools=TOOLS,
            dsn=server.dsn(),
            method="postgres" if self.jobs == 1 else "local-rsync",
            more="\n".join(more),
        )
        server.write(self.place / "barman.conf", text)
        self.run("archive-wal", "bench")  # it takes no backup before it has seen WAL

    def back_up(self) -> None:
        self.run("backup", "--wait", "bench")

    def restore(self, server: Server) -> None:
        words = ("--target-immediate", "--target-action", "promote")
        self.run("recover", *words, "bench", "latest", str(server.data_dir))

    def forget(self) -> None:
        self.run("delete", "bench", "latest")


@contextlib.contextmanager
def cluster(rows: int) -> Iterator[Cluster]:
    """A server with a table of so many rows, which archives.

    Raises UnavailableError.
    """
    if not os.access(TOOLS / "pg_waldump", os.X_OK):
        raise binaries.UnavailableError(f"{TOOLS} has no pg_waldump, which reads the WAL of PostgreSQL {MAJOR}")
    with hosting.hosted(MAJOR, SETTINGS, lambda server: server.psql(FILLED.format(rows))) as (backed, root):
        yield Cluster(backed, root)


def all_of(made: Cluster) -> list[Contestant]:
    """Ours, and the others with one process that copies, and with two; set up.

    Raises UnavailableError.
    """
    pgbackrest, barman = made.folder("pgbackrest"), made.folder("barman")
    pushing = f"{binaries.pgbackrest()} --config={pgbackrest}/pgbackrest.conf --stanza=bench archive-push %p"
    rsync = f"{binaries.barman().with_name('rsync')} -a %p {barman}/bench/incoming/%f"
    ours = Ours(made, made.root, "ours", archive_command=str(made.server.value("SHOW archive_command")))
    first = PgBackRest(made, pgbackrest, "pgBackRest", 1, pushing)
    third = Barman(made, barman, "Barman", 1, rsync)
    first.set_up()
    third.set_up()
    second = PgBackRest(made, pgbackrest, "pgBackRest with 2 processes", 2, pushing)
    return [ours, first, second, third, Barman(made, barman, "Barman with 2 of rsync", 2, rsync)]


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _arguments(server: Server) -> tuple[str, ...]:
    """Where a restored server listens: its configuration is its original's."""
    own: Sequence[str] = (f"port={server.port}", f"unix_socket_directories={server.directory}", "archive_mode=off")
    return tuple(word for setting in own for word in ("-c", setting))


def _value(session: psycopg.Connection, query: str) -> object:
    row = session.execute(query.encode()).fetchone()
    return row[0] if row else None
