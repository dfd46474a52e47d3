# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is damaged in a repository is found and named, and nothing is deleted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Host
from backed import Backed, flip, put_back

from pgops.errors import HostFailed
from pgops.repository import wal

Taken = tuple[Backed, dict[str, Any]]


@pytest.fixture(name="taken", params=["none", "gzip"])
def _taken(request: pytest.FixtureRequest, make: Callable[..., Host]) -> Taken:
    host = make()
    host.params = {"compression": request.param}
    backed = Backed.of(host, compression=request.param)
    return backed, backed.take()


def problems(taken: Taken) -> list[str]:
    """What a verification says of the backup, which is still there."""
    backed, done = taken
    found = backed.verify()
    assert found["verified"] == 0
    assert any(f"backup {done['name']} is damaged" in error for error in found["errors"])
    assert list(found["damaged"]) == [done["name"]]
    assert backed.path(done).is_dir()
    return list(found["damaged"][done["name"]])


def segment(taken: Taken) -> Path:
    """The first segment that the backup needs, in the repository."""
    made = taken[0].kept(taken[1]).manifest
    name = wal.name(made.timeline, made.start_lsn // made.segment_bytes, made.segment_bytes)
    (path,) = (path for path in taken[0].place.parent.joinpath("wal").rglob(f"{name}*") if ".backup" not in path.name)
    return path


def test_each_kind_of_damage_is_found(taken: Taken) -> None:
    backed, done = taken
    data = backed.path(done) / "data"
    plain = backed.declared["compression"] == "none"
    file = data / ("PG_VERSION" if plain else "base.tar.gz")
    with put_back(file):
        flip(file)
        assert ("PG_VERSION" if plain else "base.tar.gz") in problems(taken)[0]
    assert backed.kept(done).problems  # of the last verification, which is noted beside it
    found = backed.verify()
    assert (found["verified"], found["damaged"], found["wal_damaged"], found["errors"]) == (1, {}, {}, [])
    assert (backed.kept(done).problems, backed.kept(done).checked_at is None) == ((), False)
    if plain:
        with put_back(data / "backup_label"):
            flip(data / "backup_label")
            assert "backup_label" in problems(taken)[0]
    with put_back(data / "backup_manifest"):
        flip(data / "backup_manifest")
        assert problems(taken)[0] == "data/backup_manifest has another checksum"
        (data / "backup_manifest").unlink()
        assert problems(taken)[0] == "data/backup_manifest is missing"
    with put_back(backed.path(done) / "manifest.json"):
        flip(backed.path(done) / "manifest.json")
        assert "manifest.json is damaged" in problems(taken)[0]
    assert backed.verify()["verified"] == 1


def test_wal_that_is_missing_or_damaged_is_found(taken: Taken) -> None:
    backed, _done = taken
    path = segment(taken)
    name = path.name.partition(".")[0]
    with put_back(path):
        size = path.stat().st_size
        for left in (0, 10, 4096, size // 2, size - 1):
            os.truncate(path, left)
            assert name in problems(taken)[0]
        path.unlink()
        assert problems(taken)[0] == f"WAL segment {name} is missing"
    with put_back(path):
        # In the middle of its records: those of compressed files have a checksum of their own.
        flip(path, 200)
        assert name in problems(taken)[0]
    assert backed.verify()["verified"] == 1


def test_wal_that_is_damaged_fails_a_backup(make: Callable[..., Host]) -> None:
    host = make()
    backed = Backed.of(host)
    program = host.program
    # An archiver that loses the end of what it stores.
    text = program.read_text().replace(
        "            os.fsync(descriptor)\n", "            os.ftruncate(descriptor, 8192)\n"
    )
    assert text != program.read_text()
    program.write_text(text)
    with pytest.raises(HostFailed, match=r"WAL of the backup is damaged: .* is incomplete"):
        backed.take()
    assert (backed.listing.backups, backed.listing.unfinished) == ((), ())


def test_a_damaged_page_fails_a_backup_loudly(make: Callable[..., Host]) -> None:
    host = make(initdb=("--data-checksums",))
    backed = Backed.of(host)
    host.server.psql("CREATE TABLE item AS SELECT n FROM generate_series(1, 10000) AS n; CHECKPOINT")
    file = host.server.data_dir / str(host.server.value("SELECT pg_relation_filepath('item')"))
    flip(file, 8192 + 100)
    with pytest.raises(HostFailed, match="checksum") as caught:
        backed.take()
    assert str(host.server.value("SELECT pg_relation_filenode('item')")) in str(caught.value)
    assert (backed.listing.backups, backed.listing.unfinished) == ((), ())
