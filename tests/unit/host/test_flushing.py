# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is written is flushed meanwhile."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest import mock

import pytest
from waiting import until

from pgops.host import flushing
from pgops.host.flushing import Flushing


@pytest.fixture(name="flushed", autouse=True)
def _flushed() -> object:
    """The inodes that were flushed, each time."""
    inodes: list[int] = []
    with (
        mock.patch.object(flushing, "PAUSE", 0.01),
        mock.patch.object(os, "fdatasync", lambda descriptor: inodes.append(os.fstat(descriptor).st_ino)),
    ):
        yield inodes


def test_what_is_written_is_flushed_and_what_is_older_is_not(tmp_path: Path, flushed: list[int]) -> None:
    (tmp_path / "folder").mkdir()
    old, new = tmp_path / "old", tmp_path / "folder" / "new"
    old.touch()
    os.utime(old, (1, 1))
    with Flushing(str(tmp_path)):
        new.write_text("x")
        until(lambda: new.stat().st_ino in flushed, "it was flushed", True)
    assert old.stat().st_ino not in flushed


def test_an_error_of_the_disk_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with mock.patch.object(os, "fdatasync", broken):
        work = Flushing(str(tmp_path))
        with pytest.raises(OSError, match="Input/output"), work:
            until(work._thread.is_alive, "it ended", False)
        work = Flushing(str(tmp_path))

        def fail() -> None:
            with work:
                until(work._thread.is_alive, "it ended", False)
                raise RuntimeError("first")

        with pytest.raises(RuntimeError, match="first"):
            fail()


def test_what_goes_meanwhile_or_leads_elsewhere_is_no_error(tmp_path: Path, flushed: list[int]) -> None:
    other = tmp_path / "other"
    other.touch()
    os.utime(other, (1, 1))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(other)
    (tmp_path / "root" / "lost").symlink_to("nowhere")
    with Flushing(str(tmp_path / "root")):
        (tmp_path / "root" / "new").touch()
        until(lambda: bool(flushed), "something was flushed", True)
    assert other.stat().st_ino not in flushed
    with Flushing(str(tmp_path / "missing")):
        pass
