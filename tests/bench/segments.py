# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What archiving a segment takes, and fetching it: beside the least that is durable (cp, sync, ln), pgBackRest's
synchronous push, and Barman's way of rsync and a job for all."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import binaries
from figures import Figures
from servers import Server

from pgops.instance.layout import Layout
from pgops.repository import archiver

SEGMENTS = 40
FETCHES = 12
SIZE = 16 * 1024 * 1024
MAJOR = 15
"""The newest that the pgBackRest of Debian 12 knows."""
MAGIC = 0xD110
"""Of that version's WAL pages (PostgreSQL, src/include/access/xlog_internal.h)."""
FLOOR = 'cp "$1" "$2/.$3" && sync "$2/.$3" && ln "$2/.$3" "$2/$3" && rm "$2/.$3" && sync "$2"'
COMPRESSIONS = {"none": "none", "gzip": "gz", "zstd": "zst", "lz4": "lz4"}
"""As pgBackRest calls them. Levels are each program's own."""
BARMANS = ("none", "gzip")
"""What Barman compresses WAL with, of these."""
BARMAN = """
[barman]
barman_home = {place}/barman
barman_user = {user}
log_file = {place}/barman.log

[none]
description = none
conninfo = {dsn}
streaming_conninfo = {dsn}
backup_method = postgres
archiver = on

[gzip]
description = gzip
conninfo = {dsn}
streaming_conninfo = {dsn}
backup_method = postgres
archiver = on
compression = gzip
"""


@dataclass(frozen=True)
class Contest:
    """Where the contestants archive to, and of which server the segments are. Those that this machine cannot have are
    empty."""

    place: Path
    identifier: int
    pgbackrest: list[str]
    barman: list[str]

    @property
    def wal(self) -> Path:
        return self.place / "repository" / self.generation / "wal"

    @property
    def generation(self) -> str:
        return f"{self.identifier}-{MAJOR}"

    @property
    def archiver(self) -> list[str]:
        """Our program."""
        python = shutil.which("python3", path="/usr/bin") or "python3"
        return [python, "-IS", Layout("main", str(self.place)).archiver]

    def ours(self, path: Path, compression: str) -> float:
        """Milliseconds of our push."""
        return _timed([*self.archiver, "push", self.place / "repository", self.generation, compression, path])

    def forget(self, path: Path) -> None:
        """Remove what all but Barman have stored, who would miss it."""
        places = (self.place / "repository", self.place / "pgbackrest" / "archive", self.place / "floor")
        for stored in [one for place in places for one in place.rglob(f"{path.name}*")]:
            stored.unlink()

    def theirs(self, path: Path, compression: str) -> float:
        """Milliseconds of pgBackRest's push."""
        return _timed([*self.pgbackrest, f"--compress-type={COMPRESSIONS[compression]}", "archive-push", path])

    def floor(self, path: Path) -> float:
        """Milliseconds of cp, sync and ln."""
        return _timed(["sh", "-c", FLOOR, "sh", path, self.place / "floor", path.name])

    def barmans(self, path: Path, compression: str) -> float:
        """Milliseconds of rsync into the directory that Barman takes WAL from."""
        rsync = binaries.barman().with_name("rsync")
        return _timed([rsync, "-a", path, self.place / "barman" / compression / "incoming" / path.name])

    def taken(self, compression: str) -> float:
        """Milliseconds of the job by which Barman takes all that has come."""
        return _timed([*self.barman, "archive-wal", compression])

    def fetched(self, name: str, compression: str) -> dict[str, float]:
        """Milliseconds by which each fetches a segment that it has."""
        target = self.place / "fetched"
        ways: dict[str, list[str | Path]] = {
            "ours": [*self.archiver, "fetch", self.place / "repository", self.generation, name, target]
        }
        if self.pgbackrest:
            ways["pgBackRest"] = [*self.pgbackrest, "archive-get", name, target]
        if self.barman and compression in BARMANS:
            redirected: list[str | Path] = ["sh", "-c", 'target=$1; shift; exec "$@" > "$target"', "sh", target]
            ways["Barman"] = [*redirected, *self.barman, "get-wal", compression, name]
        found = {}
        for who, command in ways.items():
            found[who] = _timed(command)
            if target.stat().st_size != SIZE:
                raise RuntimeError(f"{who} fetched {target.stat().st_size} bytes")
            target.unlink()
        return found


def measure() -> Figures:
    """Milliseconds a segment of 16 MB, in turn; half of every segment is random, as WAL is roughly."""
    figures = Figures("archive", "milliseconds of one segment of 16 MB, archived and flushed to disk, and fetched")
    # Beside the build, which is on a disk: /tmp may be in memory.
    with (
        tempfile.TemporaryDirectory(dir=Path(__file__).parents[2] / "build") as work,
        _contest(Path(work)) as contest,
    ):
        found = [one for one in COMPRESSIONS if one == "none" or shutil.which(one)]
        for compression in found:
            for number in range(1, SEGMENTS + 1):
                _archive(contest, _segment(contest, number), compression, figures)
            if contest.barman and compression in BARMANS:
                each = contest.taken(compression) / SEGMENTS
                case = f"{compression}, beside Barman"
                figures.values[case]["peer"] = [spent + each for spent in figures.values[case]["peer"]]
            for number in range(SEGMENTS + 1, SEGMENTS + 1 + FETCHES):
                _fetch(contest, _segment(contest, number), compression, figures)
    figures.promise({case: _promised(case) for case in figures.values if "beside" in case})
    return figures


def _promised(case: str) -> float:
    """How fast ours has to be, by the peer: within 1.5 times of the least that is durable, and of others nearly as
    fast; a single fetch is what a recovery does for few segments only."""
    return 0.65 if "cp" in case else 0.8 if "fetched" in case else 0.95


def _archive(contest: Contest, path: Path, compression: str, figures: Figures) -> None:
    """By each, in turn."""
    ours = contest.ours(path, compression)
    if compression == "none":
        figures.add("none, beside cp, sync, ln", "ours", ours)
        figures.add("none, beside cp, sync, ln", "peer", contest.floor(path))
    peers = {"pgBackRest": contest.theirs} if contest.pgbackrest else {}
    if contest.barman and compression in BARMANS:
        peers["Barman"] = contest.barmans
    for name, way in peers.items():
        figures.add(f"{compression}, beside {name}", "ours", ours)
        figures.add(f"{compression}, beside {name}", "peer", way(path, compression))
    if not peers:
        figures.add(compression, "ours", ours)
    contest.forget(path)
    path.unlink()


def _fetch(contest: Contest, path: Path, compression: str, figures: Figures) -> None:
    """By each, in turn, once each has it."""
    contest.ours(path, compression)
    if contest.pgbackrest:
        contest.theirs(path, compression)
    if contest.barman and compression in BARMANS:
        contest.barmans(path, compression)
        contest.taken(compression)
    found = contest.fetched(path.name, compression)
    ours = found.pop("ours")
    for name, theirs in found.items():
        figures.add(f"{compression}, fetched, beside {name}", "ours", ours)
        figures.add(f"{compression}, fetched, beside {name}", "peer", theirs)
    contest.forget(path)
    path.unlink()


@contextlib.contextmanager
def _contest(place: Path) -> Iterator[Contest]:
    """Directories, and a server, whose segments pgBackRest takes: it asks the server when it makes its repository."""
    with Server.create(MAJOR) as server:
        identifier = int(str(server.value("SELECT system_identifier FROM pg_control_system()")))
        contest = Contest(place, identifier, _pgbackrest(place, server), _barman(place, server))
        (place / "floor").mkdir()
        contest.wal.mkdir(parents=True)
        (contest.wal.parent / archiver.IDENTITY).write_text("{}")
        _install(place)
        if contest.pgbackrest:
            server.value("ALTER SYSTEM SET archive_command = 'pgbackrest archive-push'")
            subprocess.run([*contest.pgbackrest, "--no-online", "stanza-create"], check=True)
        yield contest


def _install(place: Path) -> None:
    """Our program, and what tells it who may archive: who runs this."""
    layout = Layout("main", str(place))
    for path in (layout.archiver, layout.registration):
        Path(path).parent.mkdir(parents=True)
    shutil.copy(archiver.__file__, layout.archiver)
    Path(layout.registration).write_text(f"{os.getcwd()}\n{place / 'repository'}\n")


def _pgbackrest(place: Path, server: Server) -> list[str]:
    """The command with its options; empty where this machine cannot have it."""
    try:
        program = str(binaries.pgbackrest())
    except binaries.UnavailableError:
        return []
    options = {
        "stanza": "bench",
        "config": "/dev/null",
        "pg1-path": server.data_dir,
        "repo1-path": place / "pgbackrest",
        "log-path": place,
        "lock-path": place / "lock",
        "log-level-console": "warn",
        "log-level-file": "off",
    }
    return [program, *(f"--{name}={value}" for name, value in options.items())]


def _barman(place: Path, server: Server) -> list[str]:
    """The command with its options, and its directories; empty where this machine cannot have it."""
    try:
        program = str(binaries.barman())
    except binaries.UnavailableError:
        return []
    for name in BARMANS:
        (place / "barman" / name / "incoming").mkdir(parents=True)
    user = pwd.getpwuid(os.geteuid()).pw_name
    (place / "barman.conf").write_text(BARMAN.format(place=place, user=user, dsn=server.dsn()))
    return [program, "-q", "-c", str(place / "barman.conf")]


def _segment(contest: Contest, number: int) -> Path:
    name = f"0000000100000000{number:08X}"
    header = archiver.LONG_HEADER.pack(MAGIC, 2, 1, number * SIZE, 0, contest.identifier, SIZE, 8192)
    path = contest.place / name
    path.write_bytes((header + os.urandom(SIZE // 2)).ljust(SIZE, b"\0"))
    return path


def _timed(command: list[str | Path]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return (time.perf_counter() - began) * 1000
