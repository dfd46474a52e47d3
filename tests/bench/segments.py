# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What archiving a segment takes, beside the least that is durable (cp, sync, ln), and where pgBackRest is
installed beside its synchronous push."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from figures import Figures
from servers import Server

from pgops.instance.layout import Layout
from pgops.repository import archiver

SEGMENTS = 40
SIZE = 16 * 1024 * 1024
MAJOR = 15
"""The newest that the pgBackRest of Debian 12 knows."""
MAGIC = 0xD110
"""Of that version's WAL pages (PostgreSQL, src/include/access/xlog_internal.h)."""
FLOOR = 'cp "$1" "$2/.$3" && sync "$2/.$3" && ln "$2/.$3" "$2/$3" && rm "$2/.$3" && sync "$2"'
COMPRESSIONS = {"none": "none", "gzip": "gz", "zstd": "zst", "lz4": "lz4"}
"""As pgBackRest calls them. Levels are each program's own."""


@dataclass(frozen=True)
class Contest:
    """Where the contestants archive to, and of which server the segments are."""

    place: Path
    identifier: int
    pgbackrest: list[str]

    @property
    def wal(self) -> Path:
        return self.place / "repository" / self.generation / "wal"

    @property
    def generation(self) -> str:
        return f"{self.identifier}-{MAJOR}"

    def ours(self, path: Path, compression: str) -> float:
        """Milliseconds of our push; what it has stored is removed again."""
        program = [
            shutil.which("python3", path="/usr/bin") or "python3",
            "-IS",
            Layout("main", str(self.place)).archiver,
        ]
        spent = _timed([*program, "push", self.place / "repository", self.generation, compression, path])
        (self.wal / path.name[:16] / (path.name + archiver.ENDINGS[compression])).unlink()
        return spent

    def theirs(self, path: Path, compression: str) -> float:
        """Milliseconds of pgBackRest's push."""
        spent = _timed([*self.pgbackrest, f"--compress-type={COMPRESSIONS[compression]}", "archive-push", path])
        for stored in (self.place / "pgbackrest" / "archive").rglob(f"{path.name}-*"):
            stored.unlink()
        return spent

    def floor(self, path: Path) -> float:
        """Milliseconds of cp, sync and ln."""
        return _timed(["sh", "-c", FLOOR, "sh", path, self.place / "floor", path.name])


def measure() -> Figures:
    """Milliseconds a segment of 16 MB, in turn; half of every segment is random, as WAL is roughly."""
    figures = Figures("archive", "milliseconds of archiving one segment of 16 MB, flushed to disk")
    # Beside the build, which is on a disk: /tmp may be in memory.
    with (
        tempfile.TemporaryDirectory(dir=Path(__file__).parents[2] / "build") as work,
        _contest(Path(work)) as contest,
    ):
        for number in range(1, SEGMENTS + 1):
            path = _segment(contest, number)
            figures.add("uncompressed, beside cp, sync, ln", "ours", contest.ours(path, "none"))
            figures.add("uncompressed, beside cp, sync, ln", "peer", contest.floor(path))
            for compression in COMPRESSIONS:
                if compression != "none" and not shutil.which(compression):
                    continue
                case = compression if compression != "none" else "uncompressed"
                if contest.pgbackrest:
                    figures.add(f"{case}, beside pgBackRest", "ours", contest.ours(path, compression))
                    figures.add(f"{case}, beside pgBackRest", "peer", contest.theirs(path, compression))
                elif compression != "none":
                    figures.add(case, "ours", contest.ours(path, compression))
            path.unlink()
    return figures


@contextlib.contextmanager
def _contest(place: Path) -> Iterator[Contest]:
    """Directories, and a server, whose segments pgBackRest takes: it asks the server when it makes its repository."""
    with Server.create(MAJOR) as server:
        identifier = int(server.value("SELECT system_identifier FROM pg_control_system()"))
        contest = Contest(place, identifier, _pgbackrest(place, server))
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
    """The command with its options; empty where it is not installed."""
    program = shutil.which("pgbackrest")
    if program is None:
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
