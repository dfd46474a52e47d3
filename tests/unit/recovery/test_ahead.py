# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""WAL that is fetched ahead of replay: all that is whole, no more at a time than there is room for, and nothing
else."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

from pgops.recovery import ahead, line
from pgops.recovery.ahead import Ahead
from pgops.repository import archiver

MB = 1 << 20
SYSTEM = 7412345678901234567
GENERATION = f"{SYSTEM}-17"
LINE = line.to(1, {}, MB)


def segment(number: int, size: int = MB) -> bytes:
    """A segment whose header is right."""
    header = archiver.LONG_HEADER.pack(0xD116, archiver.XLP_LONG_HEADER, 1, number * MB, 0, SYSTEM, MB, 8192)
    return header.ljust(size, b"\1")


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> Path:
    """Segments 1 to 30; 7 is missing, 9 was cut off, 11 is another's."""
    repository = tmp_path / "shop"
    wal = repository / GENERATION / "wal"
    wal.mkdir(parents=True)
    (repository / GENERATION / archiver.IDENTITY).write_text("{}")
    for number in range(1, 31):
        path = wal / LINE.name(number)[:16] / LINE.name(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(segment(12 if number == 11 else number, MB - 1 if number == 9 else MB))
    (wal / LINE.name(7)[:16] / LINE.name(7)).unlink()
    return repository


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "pg_wal").mkdir(parents=True)
    ahead.prepare(str(data))
    return data


def test_all_that_is_whole_comes_and_no_more_than_there_is_room_for(
    repository: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "MOST_SEGMENTS", 5)
    spool = data / ahead.FOLDER
    bad = {7, 9, 11}
    with Ahead(str(repository), GENERATION, LINE, 1, 30, str(data)) as fetching:
        for number in sorted(set(range(1, 31)) - bad):
            path = spool / LINE.name(number)
            until(path.exists, f"{path.name} fetched", pause=0.001)
            there = [name for name in os.listdir(spool) if archiver.kind(name.lstrip("."))]
            assert len(there) <= 5
            assert path.read_bytes() == segment(number)
            path.unlink()
        assert fetching.fetched == 27
    assert os.listdir(spool) == [ahead.PROGRAM]


def test_what_replay_has_passed_makes_room(repository: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_SEGMENTS", 4)
    spool = data / ahead.FOLDER
    with Ahead(str(repository), GENERATION, LINE, 1, 30, str(data)):
        until((spool / LINE.name(4)).exists, "full", pause=0.001)
        # As if the program had been faster with the first three.
        (spool / LINE.name(4)).unlink()
        until((spool / LINE.name(5)).exists, "fetched on", pause=0.001)
        until((spool / LINE.name(1)).exists, "what is late removed", wanted=False, pause=0.001)


@pytest.mark.parametrize(("number", "code"), [(2, 0), (7, 1), (9, 126), (11, 126)])
def test_the_command_takes_what_is_there_and_fetches_the_rest(
    repository: Path, data: Path, number: int, code: int
) -> None:
    (data / "recovery.signal").touch()
    command = ahead.restore_command(str(repository), GENERATION, sys.executable)
    asked = command.replace("%f", LINE.name(number)).replace("%p", "pg_wal/RECOVERYXLOG")
    assert subprocess.run(["sh", "-c", asked], cwd=data, check=False, capture_output=True).returncode == code
    assert (data / "pg_wal" / "RECOVERYXLOG").exists() == (code == 0)
    (data / ahead.FOLDER / LINE.name(number)).write_text("spooled")
    assert subprocess.run(["sh", "-c", asked], cwd=data, check=False).returncode == 0
    assert (data / "pg_wal" / "RECOVERYXLOG").read_text() == "spooled"


def test_names_with_a_percent_sign_are_postgresqls_own_twice() -> None:
    command = ahead.restore_command("/back up/100%", GENERATION, "/usr/bin/python3")
    words = shlex.split(command.replace("%%", "%"))
    assert words[words.index("fetch") + 1] == "/back up/100%"
    assert "100%%" in command
