# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups in tar files are read while they are written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tarred import FILES, laid_out
from waiting import until

from pgops.backup.following import Following

NAMES = ("16384.tar.gz", "base.tar.gz")


@pytest.fixture(name="written")
def _written(tmp_path: Path) -> Path:
    """A backup that is complete."""
    place = tmp_path / "written"
    place.mkdir()
    laid_out(place, FILES)
    return place


def copied(source: Path, place: Path, between: Callable[[str, int], None] = lambda _name, _size: None) -> None:
    """Write what pg_basebackup does, in its order and in pieces."""
    place.mkdir()
    for name in NAMES:
        content = (source / name).read_bytes()
        with (place / name).open("wb", buffering=0) as file:
            for at in range(0, len(content), 20):
                file.write(content[at : at + 20])
                between(name, at)
    (place / "backup_manifest").write_bytes((source / "backup_manifest").read_bytes())


def test_what_was_read_while_it_grew_is_sound(tmp_path: Path, written: Path) -> None:
    place = tmp_path / "backup"
    with Following(str(place), "gzip") as followed:
        copied(written, place)
        assert followed.sound(lambda: None)


def test_a_file_is_done_as_soon_as_a_later_one_is_written(tmp_path: Path, written: Path) -> None:
    place = tmp_path / "backup"
    with Following(str(place), "gzip") as followed:

        def between(name: str, at: int) -> None:
            if name == NAMES[1] and at:
                (place / name).touch()
                until(lambda: NAMES[0] in followed._sizes, "the first one is read", True)

        copied(written, place, between)
        assert followed.sound(lambda: None)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_damaged_while_it_was_written_is_not(tmp_path: Path, written: Path, name: str) -> None:
    content = bytearray((written / name).read_bytes())
    content[30] ^= 1
    (written / name).write_bytes(content)
    place = tmp_path / "backup"
    with Following(str(place), "gzip") as followed:
        copied(written, place)
        assert not followed.sound(lambda: None)


def test_what_is_shorter_or_longer_at_the_end_than_it_was_read_is_not(tmp_path: Path, written: Path) -> None:
    for change in (lambda path: os.truncate(path, 10), lambda path: path.write_bytes(path.read_bytes() + b"x")):
        place = tmp_path / "backup"
        with Following(str(place), "gzip") as followed:
            copied(written, place)
            assert followed.sound(lambda: None)
            change(place / "base.tar.gz")
            assert not followed.sound(lambda: None)
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


def test_without_a_manifest_or_with_files_of_others_it_is_not(tmp_path: Path, written: Path) -> None:
    place = tmp_path / "backup"
    with Following(str(place), "gzip") as followed:
        copied(written, place)
        (place / "notes").touch()
        assert not followed.sound(lambda: None)
        (place / "notes").unlink()
        (place / "backup_manifest").unlink()
        assert not followed.sound(lambda: None)


def test_a_copying_that_fails_leaves_nothing_running(tmp_path: Path, written: Path) -> None:
    place = tmp_path / "backup"

    def between(_name: str, at: int) -> None:
        if at > 40:
            raise RuntimeError("killed")

    followed = Following(str(place), "gzip")
    with pytest.raises(RuntimeError), followed:
        copied(written, place, between)
    assert not followed._thread.is_alive()
    with Following(str(tmp_path / "never"), "gzip") as followed:
        pass
    assert not followed._thread.is_alive()


def test_what_is_looked_at_meanwhile_ends_it(tmp_path: Path, written: Path) -> None:
    def look() -> None:
        raise RuntimeError("no room")

    place = tmp_path / "backup"
    copied(written, place)
    with pytest.raises(RuntimeError, match="no room"), Following(str(place), "gzip") as followed:
        followed.sound(look)
