# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What pg_dump is called with, and whether what it wrote is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgops.backup import dumper
from pgops.backup.clients import Clients
from pgops.backup.dump_options import Dumps
from pgops.backup.dumper import Dumper, Login
from pgops.errors import InvalidInput

LISTING = """;
; Archive created at 2026-11-29 12:00:00 UTC
;     TOC Entries: 9
;
218; 1259 16386 TABLE public item postgres
3421; 0 16386 TABLE DATA public item postgres
3430; 0 16390 TABLE DATA public price postgres
3440; 0 0 BLOBS - BLOBS
"""


def made(major: int = 17, server: int = 17, **declared: object) -> Dumper:
    login = Login("/run/postgresql", 5432, "postgres", "pgops dump 1", server)
    return Dumper(Clients("/bin", major), login, Dumps(**declared))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("major", "compression", "wanted"),
    [(15, "none", "0"), (15, "gzip", "6"), (16, "gzip", "gzip"), (18, "zstd", "zstd"), (17, "none", "none")],
)
def test_compression(major: int, compression: str, wanted: str) -> None:
    one = made(major, compression=compression)
    one.check()
    assert f"--compress={wanted}" in one.command("shop", "UTF8", "/there")


def test_an_older_program_has_no_other_compression() -> None:
    with pytest.raises(InvalidInput, match="cannot compress with lz4"):
        made(15, compression="lz4").check()


def test_no_name_is_taken_for_anything_else() -> None:
    """Neither for another parameter nor for an option; and the first 120 characters of a command, which errors show,
    have none."""
    command = made().command("a' host=evil \\", "LATIN1", "/there")
    assert command[-1].endswith("dbname='a\\' host=evil \\\\'")
    assert "--encoding=LATIN1" in command
    assert "hostaddr=''" in command[-1]


def test_settings_of_later_versions_are_given_to_those() -> None:
    assert "transaction_timeout" not in made(18, 16).login.words("shop")
    assert "event_triggers" not in made(18, 16).login.words("shop")
    assert "-c transaction_timeout=0" in made(18, 17).login.words("shop")
    assert "-c event_triggers=off" in made(18, 17).login.words("shop")
    assert "lc_monetary" not in made().login.words("shop")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["toc.dat", "3421.dat.gz", "3430.dat.gz", "blobs.toc", "blob_1.dat"], ""),
        (["toc.dat", "3421.dat", "3430.dat", "blobs_3440.toc"], ""),
        (["3421.dat", "3430.dat", "blobs.toc"], "toc.dat is missing"),
        (["toc.dat", "3421.dat", "blobs.toc"], "1 tables have no file, the first of them 3430.dat"),
        (["toc.dat", "3421.dat", "3430.dat", "3431.dat", "blobs.toc"], "3431.dat is in no table of contents"),
        (["toc.dat", "3421.dat", "3430.dat"], "the list of large objects is missing"),
    ],
)
def test_what_is_missing(names: list[str], wanted: str) -> None:
    assert dumper.incomplete(LISTING, names) == wanted


def test_checksums(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "toc.dat").write_bytes(b"toc")
    (tmp_path / "globals.sql").write_bytes(b"roles")
    checksum = dumper.seal(str(tmp_path))
    assert dumper.size(str(tmp_path)) == 8
    assert dumper.problems(str(tmp_path), checksum) == []
    (data / "more").write_bytes(b"")
    (data / "toc.dat").write_bytes(b"tac")
    (tmp_path / "globals.sql").unlink()
    assert dumper.problems(str(tmp_path), checksum) == [
        "globals.sql is missing",
        "data/more does not belong to it",
        "data/toc.dat has another checksum",
    ]
    assert dumper.problems(str(tmp_path), "another") == ["SHA256SUMS has another checksum"]
    (tmp_path / "SHA256SUMS").unlink()
    assert dumper.problems(str(tmp_path), checksum) == ["SHA256SUMS is missing"]
