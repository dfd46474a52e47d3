# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dumps in a repository: names of all bytes, manifests, and what is found there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgops.errors import Busy, InvalidInput
from pgops.repository import backups, dumps
from pgops.repository.dumps import Dump

GENERATION = "7412345678901234567-17"
NAMES = st.binary(min_size=1, max_size=63).filter(lambda name: b"\0" not in name)


def dump(**other: Any) -> Dump:
    noon = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
    usual: dict[str, Any] = {
        "id": "one",
        "database": "shop",
        "oid": 16385,
        "encoding": "UTF8",
        "owner": "clerk",
        "locale": {"provider": "c", "collate": "C", "ctype": "C", "locale": ""},
        "cluster": "orders",
        "node": "db1/main",
        "system_identifier": GENERATION.partition("-")[0],
        "server_version": "17.4",
        "versions": {"pg_dump": "17.4", "pg_dumpall": "17.4"},
        "timeline": 1,
        "snapshot_lsn": 1000,
        "started_at": noon,
        "completed_at": noon,
        "compression": "gzip",
        "stored_bytes": 10,
        "data_bytes": 100,
        "entries": 3,
        "checksum": "ab",
    }
    return Dump(**{**usual, **other})


@pytest.fixture(name="publish")
def _publish(tmp_path: Path) -> Callable[..., str]:
    """Make a dump of the repository ``tmp_path``."""

    def publish(name: str, **other: Any) -> str:
        made = dump(**{"id": f"id-{name}", **other})
        place = tmp_path / GENERATION / "dump" / made.database
        place.mkdir(parents=True, exist_ok=True)
        with backups.begun(str(place), name) as path:
            backups.publish(path, made)
        return path

    return publish


@given(NAMES, NAMES)
@example(b".", b"..")
@example(b"lock", b"attempt.json")
@example(b"a/b", b"a%2Fb")
def test_every_name_of_a_database_is_that_of_one_directory(name: bytes, other: bytes) -> None:
    key = dumps.key(name)
    assert dumps.name(key) == name
    assert (key == dumps.key(other)) == (name == other)
    assert len(key) < 255
    assert not set(key) & set("/. ~'\"")
    assert dumps.shown(key).isprintable() or not name.isascii() or not name.decode().isprintable()


@given(NAMES)
def test_a_manifest_is_read_as_it_was_written(name: bytes) -> None:
    made = dump(database=dumps.key(name))
    assert dumps.parse(made.text(), "manifest.json") == made


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_of_a_manifest_is_told(at: int, bit: int) -> None:
    text = bytearray(dump().text().encode())
    text[at % len(text)] ^= 1 << bit
    try:
        found = dumps.parse(text.decode("utf-8", "replace"), "manifest.json")
    except InvalidInput:
        return
    assert found == dump()  # white space alone


def test_a_newer_manifest_is_no_damaged_one() -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        dumps.parse('{"format": 99}', "manifest.json")


def test_what_is_there(tmp_path: Path, publish: Callable[..., str]) -> None:
    assert dumps.databases(str(tmp_path), GENERATION) == ()
    publish("later", snapshot_lsn=3000)
    publish("new", timeline=2, snapshot_lsn=10)
    path = publish("early", snapshot_lsn=500)
    publish("one", database="a%2Fb")
    (tmp_path / GENERATION / "dump" / "shop" / "left").mkdir()
    other, shop = dumps.databases(str(tmp_path), GENERATION)
    assert (other.key, [one.name for one in other.dumps]) == ("a%2Fb", ["one"])
    assert [one.name for one in shop.dumps] == ["early", "later", "new"]  # in the order of the WAL
    assert (shop.unfinished, dict(shop.damaged), shop.failed) == (("left",), {}, False)
    Path(path, backups.MANIFEST).write_text("{}")
    assert list(dumps.listed(shop.place).damaged) == ["early"]
    assert dumps.listed(shop.place).newest == shop.dumps[-1]


def test_damaged_ones_do_not_count_as_good(publish: Callable[..., str]) -> None:
    place = Path(publish("old")).parent
    publish("new", snapshot_lsn=2000)
    backups.note_checked(str(place), "new", ["toc.dat is missing"], datetime.now(timezone.utc))
    newest = dumps.listed(str(place)).newest
    assert newest
    assert newest.name == "old"


def test_a_dump_of_elsewhere_is_none_of_this_database(tmp_path: Path, publish: Callable[..., str]) -> None:
    path = Path(publish("one"))
    other = tmp_path / GENERATION / "dump" / "other"
    other.mkdir()
    path.rename(other / "one")
    assert "does not belong" in dumps.listed(str(other)).damaged["one"]
    publish("two", system_identifier="1")
    assert "two" in dumps.listed(str(path.parent)).damaged


def test_one_at_a_time(tmp_path: Path) -> None:
    with (
        dumps.alone(str(tmp_path)),
        pytest.raises(Busy, match="taking or expiring dumps"),
        dumps.alone(str(tmp_path)),
    ):
        pass


def test_a_killed_run_is_known(publish: Callable[..., str]) -> None:
    place = str(Path(publish("one")).parent)
    backups.attempt(place, "two")
    assert dumps.listed(place).failed
