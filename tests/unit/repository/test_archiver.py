# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program of archive_command and restore_command, run as PostgreSQL runs it, on every kind of file."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import disks
import pytest

from pgops.instance.layout import Layout
from pgops.repository import archiver

IDENTIFIER = 7412345678901234567
GENERATION = f"{IDENTIFIER}-17"
SIZE = 1 << 20
FIRST = "000000010000000000000001"
COMPRESSIONS = [
    "none",
    "gzip",
    *(
        pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not here"))
        for name in ("zstd", "lz4")
    ),
]


def segment(name: str = FIRST, identifier: int = IDENTIFIER, size: int = SIZE, seed: int = 0) -> bytes:
    """A WAL segment with a header as PostgreSQL writes it, and content that differs by ``seed``."""
    number = int(name[8:16], 16) * ((1 << 32) // size) + int(name[16:24], 16)
    timeline = int(name[:8], 16)
    header = archiver.LONG_HEADER.pack(0xD116, 2, timeline, number * size, 0, identifier, size, 8192)
    block = hashlib.sha256(f"{name} {seed}".encode()).digest()
    return (header + block * (size // len(block)))[:size]


@dataclass
class Place:
    """A repository with one generation, and beside it a data directory with pg_wal, and the program, for which the
    data directory is registered."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def program(self) -> Path:
        return Path(Layout("main", str(self.root)).archiver)

    def register(self, instance: str, data: Path, *repositories: Path) -> None:
        """As pg_ops_agent does."""
        path = Path(Layout(instance, str(self.root)).registration)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in (data, *repositories)))

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def wal(self) -> Path:
        return self.repository / GENERATION / "wal"

    def write(self, name: str, content: bytes) -> Path:
        path = self.data / "pg_wal" / name
        path.write_bytes(content)
        return path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run_in(self.data, *arguments)

    def run_in(self, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As the server of a data directory does."""
        command = [sys.executable, "-I", "-S", str(self.program), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=data)

    def push(self, path: Path, compression: str = "none") -> tuple[int, str]:
        """Exit code and what was said."""
        done = self.run("push", str(self.repository), GENERATION, compression, str(path))
        return done.returncode, done.stderr

    def check(self, compression: str = "none", data: Path | None = None) -> tuple[int, str]:
        """Exit code and what was said."""
        done = self.run("check", str(self.repository), GENERATION, compression, str(data or self.data))
        return done.returncode, done.stderr

    def fetch(self, name: str) -> tuple[int, bytes]:
        """Exit code and what was fetched."""
        target = self.data / "pg_wal" / "RECOVERYXLOG"
        target.unlink(missing_ok=True)
        done = self.run("fetch", str(self.repository), GENERATION, name, "pg_wal/RECOVERYXLOG")
        return done.returncode, target.read_bytes() if target.exists() else b""

    def become_standby(self) -> None:
        (self.data / "standby.signal").touch()

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.wal)): path.read_bytes() for path in self.wal.rglob("*") if path.is_file()}


def made(root: Path) -> Place:
    place = Place(root)
    place.wal.mkdir(parents=True)
    (place.data / "pg_wal").mkdir(parents=True)
    (place.wal.parent / archiver.IDENTITY).write_text("{}")
    place.program.parent.mkdir(parents=True)
    shutil.copy(archiver.__file__, place.program)
    place.register("main", place.data, place.repository)
    return place


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return made(tmp_path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        (FIRST, segment()),
        ("00000002000000FF000000A0.partial", segment("00000002000000FF000000A0")),
        ("000000010000000000000001.00000028.backup", b"START WAL LOCATION: 0/28\n"),
        ("00000002.history", b"1\t0/1A\tno recovery target specified\n"),
    ],
    ids=["segment", "partial", "backup", "history"],  # pytest puts an id into the environment of what is run here
)
def test_what_goes_in_comes_out(place: Place, compression: str, name: str, content: bytes) -> None:
    path = place.write(name, content)
    assert place.push(path, compression) == (0, "")
    before = place.files()
    assert len(before) == 1
    assert place.fetch(name) == (0, content)
    # Asked again, as after a crash of the server, it is content with what is there, however it is compressed now.
    assert place.push(path) == (0, "")
    assert place.files() == before


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_another_content_is_never_overwritten(place: Place, compression: str) -> None:
    place.push(place.write(FIRST, segment()), compression)
    before = place.files()
    code, said = place.push(place.write(FIRST, segment(seed=1)), compression)
    assert code == 1
    assert "different content" in said
    assert place.files() == before


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_torn_file_is_not_taken_for_the_same(place: Place, compression: str) -> None:
    path = place.write(FIRST, segment())
    place.push(path, compression)
    (stored,) = [file for file in place.wal.rglob("*") if file.is_file()]
    os.truncate(stored, stored.stat().st_size - 7)
    assert place.push(path, compression)[0] == 1
    assert place.fetch(FIRST)[0] == 126


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (FIRST, segment(identifier=1), "system identifier 1"),
        (FIRST, segment()[:-1], "an incomplete WAL segment"),
        (FIRST, b"", "not a WAL segment"),
        (FIRST, bytes(SIZE), "an incomplete WAL segment"),
        (FIRST, segment("000000010000000000000002"), "another segment"),
        ("recycled", b"x", "not the name of a WAL file"),
        ("00000001000000000000000g", segment(), "not the name of a WAL file"),
        (FIRST + ".old", segment(), "not the name of a WAL file"),
    ],
    ids=["foreign", "short", "empty", "zeroes", "another", "temporary", "lower case", "renamed"],
)
def test_what_does_not_belong_here_is_refused(place: Place, name: str, content: bytes, said: str) -> None:
    code, words = place.push(place.write(name, content))
    assert code == 1
    assert said in words
    assert place.files() == {}


def test_only_an_initialised_repository_is_written_to(place: Place) -> None:
    path = place.write(FIRST, segment())
    (place.wal.parent / archiver.IDENTITY).unlink()
    code, said = place.push(path)
    assert (code, place.files()) == (1, {})
    assert "is the repository mounted?" in said
    assert place.fetch(FIRST)[0] == 126


def test_nothing_that_is_amiss_stops_a_standby(place: Place) -> None:
    place.become_standby()
    place.push(place.write(FIRST, segment()), "gzip")
    assert place.fetch(FIRST) == (0, segment())
    assert place.fetch("000000010000000000000009") == (1, b"")
    (stored,) = [file for file in place.wal.rglob("*") if file.is_file()]
    os.truncate(stored, stored.stat().st_size - 7)
    assert place.fetch(FIRST) == (1, b"")
    place.repository.rename(place.root / "elsewhere")
    assert place.fetch(FIRST) == (1, b"")
    assert [path.name for path in (place.data / "pg_wal").iterdir()] == [FIRST]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_standby_does_not_wait_for_a_repository_that_does_not_answer(place: Place, compression: str) -> None:
    place.become_standby()
    place.program.write_text(place.program.read_text().replace("PATIENCE = 30.0", "PATIENCE = 0.1"))
    place.push(place.write(FIRST, segment()), compression)
    (stored,) = [file for file in place.wal.rglob("*") if file.is_file()]
    stored.unlink()
    os.mkfifo(stored)
    assert place.fetch(FIRST) == (1, b"")
    assert [path.name for path in (place.data / "pg_wal").iterdir()] == [FIRST]


def test_what_killed_fetches_have_left_is_swept(place: Place) -> None:
    place.push(place.write(FIRST, segment()))
    wal = place.data / "pg_wal"
    (wal / f"RECOVERYHISTORY.{1 << 23}.pgops-fetch").write_bytes(b"half")  # no process has a number so high
    others = wal / f"RECOVERYXLOG.{os.getpid()}.pgops-fetch"
    others.write_bytes(b"half")
    assert place.fetch(FIRST) == (0, segment())
    assert sorted(path.name for path in wal.iterdir()) == sorted([FIRST, "RECOVERYXLOG", others.name])


@pytest.mark.parametrize("damage", [0, 1, 39, 40, SIZE // 2, SIZE - 1])
def test_a_failed_fetch_leaves_nothing(place: Place, damage: int) -> None:
    place.push(place.write(FIRST, segment()))
    (stored,) = [file for file in place.wal.rglob("*") if file.is_file()]
    os.truncate(stored, damage)
    assert place.fetch(FIRST) == (126, b"")
    assert [path.name for path in (place.data / "pg_wal").iterdir()] == [FIRST]


def test_the_end_of_a_promotion_is_a_standbys(place: Place) -> None:
    """PostgreSQL removes the signal file, and then asks for the history of the old timeline."""
    (place.data / "postmaster.pid").touch()
    place.repository.rename(place.root / "elsewhere")
    assert place.fetch("00000001.history")[0] == 1
    (place.data / "recovery.signal").touch()
    assert place.fetch("00000001.history")[0] == 126


def test_a_check_tries_where_segments_go_and_not_a_history(place: Place) -> None:
    for name, content in ((FIRST, segment()), ("00000002.history", b"1\t0/1A\tno recovery target specified\n")):
        assert place.push(place.write(name, content)) == (0, "")
    before = place.files()
    assert place.check() == (0, "")
    assert place.files() == before


def test_what_is_not_there_is_told_apart_from_what_cannot_be_read(place: Place) -> None:
    assert place.fetch(FIRST) == (1, b"")
    assert place.fetch("00000009.history") == (1, b"")
    place.push(place.write(FIRST + ".partial", segment()))
    assert place.fetch(FIRST) == (1, b"")
    assert place.run("fetch").returncode == 126
    assert place.run("push").returncode == 1
    assert place.run().returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="root may look everywhere, and others own what they are denied")
@pytest.mark.parametrize("denied", ["wal", f"wal/{FIRST[:16]}"])
def test_what_may_not_be_looked_at_is_not_the_end_of_the_wal(denied: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        place = made(Path(folder))
        place.push(place.write(FIRST, segment()))
        (place.wal.parent / denied).chmod(0o700)
        command = ["/usr/bin/python3", "-IS", str(place.program), "fetch", str(place.repository), GENERATION]
        done = subprocess.run(
            [*command, FIRST, "/tmp/never"], check=False, capture_output=True, text=True, user="nobody"
        )
        assert (done.returncode, "Permission denied" in done.stderr) == (126, True)


def test_nor_is_what_nobody_thought_of(place: Place) -> None:
    """As with a Python that was built without zlib."""
    place.push(place.write(FIRST, segment()), "gzip")
    program = place.program.read_text()
    place.program.write_text(program.replace("import zlib", "import zlib_is_lacking as zlib"))
    assert place.fetch(FIRST) == (126, b"")
    code, said = place.push(place.write(FIRST, segment()), "gzip")
    assert (code, "zlib_is_lacking" in said, "Traceback" in said) == (1, True, False)


def test_what_is_hidden_and_of_others_stops_nothing(place: Place) -> None:
    """As a directory of snapshots, and what NFS keeps of a file that was deleted while it was open."""
    place.push(place.write(FIRST, segment()))
    folder = place.wal / FIRST[:16]
    (folder / ".snapshot").mkdir()
    (folder / ".nfs000000000000a").write_bytes(b"open elsewhere")
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    second = "000000010000000000000002"
    assert place.push(place.write(second, segment(second))) == (0, "")
    assert {".snapshot", ".nfs000000000000a"} <= {path.name for path in folder.iterdir()}


def test_what_killed_archivers_left_is_swept(place: Place) -> None:
    place.push(place.write(FIRST, segment()))
    folder = place.wal / FIRST[:16]
    host = os.uname().nodename
    (folder / f".~{FIRST}~{host}~{2**22 + 1}").write_bytes(b"left")
    (folder / f".~{FIRST}~elsewhere~1").write_bytes(b"in use on another host")
    (folder / f".~{FIRST}~{host}~{os.getpid()}").write_bytes(b"in use here")
    second = "000000010000000000000002"
    assert place.push(place.write(second, segment(second))) == (0, "")
    hidden = sorted(name.rpartition("/")[2] for name in place.files() if "/." in name)
    assert hidden == sorted([f".~{FIRST}~elsewhere~1", f".~{FIRST}~{host}~{os.getpid()}"])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_full_repository_fails_loudly_and_recovers_by_itself(small_disk: Path, compression: str) -> None:
    place = made(small_disk)
    content = segment(size=SIZE)
    source = small_disk.parent / FIRST
    source.write_bytes(content)
    disks.fill(small_disk)
    code, said = place.push(source, compression)
    assert code == 1
    assert "No space left" in said
    assert place.files() == {}
    (small_disk / "filler").unlink()
    assert place.push(source, compression) == (0, "")
    assert place.run("fetch", str(place.repository), GENERATION, FIRST, str(source) + ".back").returncode == 0
    assert Path(str(source) + ".back").read_bytes() == content


def test_a_program_that_is_missing_is_named(place: Place) -> None:
    path = place.write(FIRST, segment())
    command = [
        sys.executable,
        "-IS",
        str(place.program),
        "push",
        str(place.repository),
        GENERATION,
        "zstd",
        str(path),
    ]
    asked: dict[str, Any] = {"capture_output": True, "text": True, "env": {"PATH": "/nowhere"}, "cwd": place.data}
    done = subprocess.run(command, check=False, **asked)
    assert (done.returncode, place.files()) == (1, {})
    assert "zstd is not on this host" in done.stderr
    # Nor is what is there taken for another content where it cannot be looked at.
    (place.wal / FIRST[:16]).mkdir(exist_ok=True)
    (place.wal / FIRST[:16] / f"{FIRST}.zst").write_bytes(b"whatever")
    done = subprocess.run(command, check=False, **asked)
    assert (done.returncode, "zstd is not on this host" in done.stderr) == (1, True)


def test_a_copy_of_a_data_directory_does_not_archive(place: Place) -> None:
    path = place.write(FIRST, segment())
    copy = place.root / "copy"
    shutil.copytree(place.data, copy)
    # It is registered, as that of another cluster: a server for tests that was filled from production.
    place.register("tests", copy, place.root / "other")
    pushed = place.run_in(copy, "push", str(place.repository), GENERATION, "none", f"pg_wal/{FIRST}")
    assert (pushed.returncode, place.files()) == (1, {})
    assert f"{copy} is not the data directory of a node" in pushed.stderr
    assert "archive_mode = off" in pushed.stderr
    assert place.push(path) == (0, "")
    # What is there may be taken out by a copy, which recovers from it.
    fetched = place.run_in(copy, "fetch", str(place.repository), GENERATION, FIRST, "RECOVERYXLOG")
    assert (fetched.returncode, (copy / "RECOVERYXLOG").read_bytes()) == (0, segment())


def test_a_node_archives_after_its_directory_was_moved_behind_a_link(place: Place) -> None:
    path = place.write(FIRST, segment())
    moved = place.root / "moved"
    place.data.rename(moved)
    place.data.symlink_to(moved)
    assert place.push(path) == (0, "")


def test_a_server_archives_into_its_former_repository_until_its_settings_change(place: Place) -> None:
    place.register("main", place.data, place.root / "newer", place.repository)
    assert place.push(place.write(FIRST, segment())) == (0, "")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_check_tries_what_a_push_needs_and_leaves_nothing(place: Place, compression: str) -> None:
    assert place.run("check").returncode == 0
    assert place.check(compression) == (0, "")
    place.push(place.write(FIRST, segment()), compression)
    before = place.files()
    assert place.check(compression) == (0, "")
    assert place.files() == before
    code, said = place.check(compression, data=place.root)
    assert (code, "is not the data directory of a node" in said) == (1, True)
    (place.wal.parent / archiver.IDENTITY).unlink()
    code, said = place.check(compression)
    assert (code, "is the repository mounted?" in said) == (1, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("denied", ["", FIRST[:16]])
def test_a_check_fails_where_its_user_cannot_write(denied: str) -> None:
    # The directories of pytest are closed to others.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        _check_denied(made(Path(folder)), denied)


def _check_denied(place: Place, denied: str) -> None:
    place.push(place.write(FIRST, segment()))
    if denied:
        place.wal.chmod(0o777)
    else:
        (place.wal / FIRST[:16]).chmod(0o777)
    command = [*("/usr/bin/python3", "-IS", str(place.program), "check"), str(place.repository), GENERATION, "none"]
    done = subprocess.run([*command, place.data], check=False, capture_output=True, text=True, user="nobody")
    assert (done.returncode, f"Permission denied: '{place.wal / denied}" in done.stderr) == (1, True), done.stderr
