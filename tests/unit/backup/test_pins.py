# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pins: which backup is meant, and what is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import keeping
import pytest
from keeping import GENERATION

from pgops.backup import pins
from pgops.errors import HostFailed, InvalidInput
from pgops.repository import archiver, backups

NEWER = "7412345678901234567-18"


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> str:
    place = keeping.generation(tmp_path / "shop")
    (tmp_path / "shop" / GENERATION / archiver.IDENTITY).write_text('{"major": 17}')
    keeping.backup(place, "a", id="1")
    keeping.backup(place, "b", id="2", stop_lsn=0x3000000)
    return str(tmp_path / "shop")


def pin_of(repository: str, name: str) -> str | None:
    place = backups.folder(repository, GENERATION)
    return next(kept.pin for kept in backups.listed(place).backups if kept.name == name)


def test_a_pin_is_made_changed_and_taken_away(repository: str) -> None:
    which = {"backup": "1", "name": "a", "title": "backup a", "generation": GENERATION}
    made = {**which, "before": None, "pinned": "before the move", "changed": True}
    assert pins.pin(repository, "a", " before\nthe  move ", check=True) == made
    assert pin_of(repository, "a") is None
    assert pins.pin(repository, "a", " before\nthe  move ") == made
    assert pin_of(repository, "a") == "before the move"
    assert pins.pin(repository, "1", "before the move") == {**made, "before": "before the move", "changed": False}
    assert pins.pin(repository, "1", "another")["changed"]
    assert pins.unpin(repository, "1", check=True)["changed"]
    assert pin_of(repository, "a") == "another"
    assert pins.unpin(repository, "1") == {**made, "before": "another", "pinned": None}
    assert pin_of(repository, "a") is None
    assert not pins.unpin(repository, "a")["changed"]


def test_the_newest_is_that_of_the_newest_version(repository: str) -> None:
    assert pins.find(repository, "newest").name == "b"
    shutil.copytree(os.path.join(repository, GENERATION), os.path.join(repository, NEWER))
    Path(repository, NEWER, archiver.IDENTITY).write_text('{"major": 18}')
    shutil.rmtree(os.path.join(repository, NEWER, "backup", "b"))
    assert pins.pin(repository, "newest", "why")["generation"] == NEWER
    assert pin_of(repository, "a") is None
    with pytest.raises(InvalidInput, match="more than one"):
        pins.pin(repository, "a", "why")


@pytest.mark.parametrize("reason", ["", " \n", "x" * 1001])
def test_a_pin_needs_a_reason(repository: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match="reason"):
        pins.pin(repository, "a", reason)
    assert pin_of(repository, "a") is None


def test_what_is_not_there_is_told(repository: str) -> None:
    with pytest.raises(InvalidInput, match=r"no backup c\. The newest ones are a, b"):
        pins.pin(repository, "c", "why")
    with pytest.raises(HostFailed, match="Is it mounted"):
        pins.pin(f"{repository}-absent", "a", "why")
    shutil.rmtree(os.path.join(repository, GENERATION, "backup"))
    with pytest.raises(InvalidInput, match="none at all"):
        pins.unpin(repository, "newest")
