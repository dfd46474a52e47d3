# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups in tar files are verified as they are."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from tarred import FILES, laid_out

from pgops.backup import tars


@pytest.mark.parametrize("packed", [True, False])
def test_a_whole_one_has_no_problems(tmp_path: Path, packed: bool) -> None:
    laid_out(tmp_path, FILES, packed)
    assert tars.problems(str(tmp_path), "gzip" if packed else "none") == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**FILES, "base/1/1259": b"0ne" * 5000}, "base.tar.gz: base/1/1259 has another checksum"),
        ({**FILES, "base/1/1259": b"one"}, "base.tar.gz: base/1/1259 has 3 bytes, and not 15000"),
        ({**FILES, "base/1/9": b""}, "base.tar.gz: base/1/9 is not listed"),
        ({name: FILES[name] for name in list(FILES)[1:]}, "base/1/1259 is missing"),
        ({name: FILES[name] for name in FILES if "tblspc" not in name}, "pg_tblspc/16384/PG_18/5/7 is missing"),
    ],
)
def test_each_problem_is_named(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    laid_out(tmp_path, files)
    assert tars.problems(str(tmp_path), "gzip") == [said]


def test_what_a_server_writes_by_itself_need_not_be_listed(tmp_path: Path) -> None:
    laid_out(tmp_path, {**FILES, "standby.signal": b"", "postgresql.auto.conf": b"x", "pg_wal/0001": b"x"})
    assert tars.problems(str(tmp_path), "gzip") == []


@pytest.mark.parametrize("at", [0, 5, 30, -5, -1])
def test_a_flipped_bit_of_a_compressed_file_is_seen(tmp_path: Path, at: int) -> None:
    laid_out(tmp_path, FILES)
    path = tmp_path / "base.tar.gz"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    found = tars.problems(str(tmp_path), "gzip")
    assert found if at != 5 else found == []  # the fifth byte is the time that it was made


def test_a_header_that_cannot_be_read_is_not_the_end(tmp_path: Path) -> None:
    """What is packed by lz4 without checksums can have been changed anywhere."""
    laid_out(tmp_path, FILES, packed=False)
    path = tmp_path / "base.tar"
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1]
    content[second.offset + 150] ^= 1
    path.write_bytes(content + b"x" * 30000)
    (first, *_missing) = tars.problems(str(tmp_path), "none")
    assert first == "base.tar is damaged: the header of a file in it cannot be read"


@pytest.mark.parametrize("left", [0, 10, 100, -1])
def test_a_truncated_file_is_seen(tmp_path: Path, left: int) -> None:
    laid_out(tmp_path, FILES)
    path = tmp_path / "base.tar.gz"
    path.write_bytes(path.read_bytes()[:left])
    assert tars.problems(str(tmp_path), "gzip")


def test_files_that_do_not_belong_there_are_named(tmp_path: Path) -> None:
    laid_out(tmp_path, FILES)
    (tmp_path / "notes.txt").write_text("x")
    assert tars.problems(str(tmp_path), "gzip") == ["notes.txt does not belong to the backup"]


def test_many_problems_are_counted(tmp_path: Path) -> None:
    laid_out(tmp_path, {**FILES, **{f"base/2/{number}": b"" for number in range(50)}})
    found = tars.problems(str(tmp_path), "gzip")
    assert (len(found), found[-1]) == (21, "and 30 more")
