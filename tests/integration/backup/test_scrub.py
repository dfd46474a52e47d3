# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""WAL that rots in the repository is found, wherever it does, and told; what is sound is not called damaged."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from archives import Host
from backed import Backed, flip, put_back
from servers import Server
from waiting import until

from pgops.backup import clients, expiry, records, scrub
from pgops.backup.scrub import Scrub
from pgops.host.identity import as_user
from pgops.repository import catalogue, damage, inventory

SEGMENT = 1 << 20
NOW = datetime(2026, 11, 29, tzinfo=timezone.utc)
# Records of all sizes: one is longer than two segments, so that one segment has nothing but a part of it.
WORK = """
CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 15000) AS n;
SELECT pg_logical_emit_message(false, 'long', string_agg(md5(n::text), '')) FROM generate_series(1, 80000) AS n;
UPDATE item SET text = md5(text) WHERE n % 3 = 0;
"""


class Scrubbed:
    """A server with a backup and WAL behind it; ``segments`` are those behind the backup, the last one of which was
    ended early."""

    def __init__(self, host: Host, compression: str) -> None:
        host.params = {"compression": compression}
        self.backed = Backed.of(host, compression=compression)
        self.backed.take()
        host.server.psql(WORK)
        last = host.switch()
        until(lambda: any(name.startswith(last) for name in host.archived()), f"{last} archived")
        made = self.backed.listing.backups[0].manifest
        names = sorted(name for name in host.archived() if "." not in name.removesuffix(".gz"))
        self.segments = [host.archived()[name] for name in names if name[8:24] > f"{made.stop_lsn // SEGMENT:016X}"]

    @property
    def readable(self) -> bool:
        """Whether the records of its WAL can be read here."""
        return records.readable(self.programs, self.backed.server.major)

    @property
    def programs(self) -> clients.Clients:
        server = self.backed.server
        return clients.readers([str(server.client_dir)], server.major)

    def read(self) -> dict[str, str]:
        """The damage that reading all WAL finds, without what the catalogue knows."""
        place = self.backed.place
        scratch = str(Path(self.backed.layout.keeping) / "scratch")
        run = Scrub(str(place.parent.parent), place.parent.name, self.programs, scratch)
        done: dict[str, Any] = as_user(self.backed.user, lambda: scrub.scrub(run, 7, NOW, everything=True), 600)
        return dict(done["damaged"])

    def update(self, **options: Any) -> list[str]:
        """The errors of the job catalogue."""
        done = as_user(self.backed.user, lambda: catalogue.update(self.backed.configuration(), **options), 600)
        return list(done["errors"])

    def value(self, query: str) -> Any:
        return self.backed.server.value(query, "pgops")


@pytest.fixture(name="scrubbed", params=["none", "gzip"])
def _scrubbed(request: pytest.FixtureRequest, make: Callable[..., Host]) -> Scrubbed:
    return Scrubbed(make(initdb=("--wal-segsize=1",), settings={"autovacuum": "off"}), request.param)


def name(path: Path) -> str:
    return path.name[:24]


@pytest.mark.every_major
def test_rot_is_found_wherever_it_is(scrubbed: Scrubbed) -> None:
    assert scrubbed.read() == {}
    _without_checksums(scrubbed)
    _with_other_contents(scrubbed)
    assert scrubbed.update() == []
    _with_checksums(scrubbed)
    assert scrubbed.backed.verify()["errors"] == []


def _without_checksums(scrubbed: Scrubbed) -> None:
    """A changed byte is found by what the segments themselves tell."""
    chosen = random.Random(16)
    whole = [path for path in scrubbed.segments if _is_full(path)]
    assert len(whole) > 3
    for path in whole:
        # Without its pg_waldump only the headers of pages tell, and the checksum of what is compressed.
        at = 8192 if path.suffix != ".gz" and not scrubbed.readable else chosen.randrange(path.stat().st_size)
        with put_back(path):
            flip(path, at)
            # A record is damaged from its beginning on, which may be in a segment before.
            assert scrubbed.read(), (path, at)
    assert scrubbed.read() == {}


def _is_full(path: Path) -> bool:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return any(content[-8192:])


def _with_other_contents(scrubbed: Scrubbed) -> None:
    """What is cut off, or is something else, is found, and nothing else is called damaged by that."""
    path, other = scrubbed.segments[1:3]
    size = path.stat().st_size
    with put_back(path):
        for left in (size - 1, size // 2, 8192, 40, 39, 0):
            os.truncate(path, left)
            assert name(path) in scrubbed.read()
        shutil.copyfile(other, path)
        assert scrubbed.read()[name(path)] == "has the header of another segment"
        path.write_bytes(b"no WAL" * 200000)
        assert name(path) in scrubbed.read()
    assert scrubbed.read() == {}


def _with_checksums(scrubbed: Scrubbed) -> None:
    """A changed byte is found where it does no harm as well, behind the end of the WAL."""
    path = scrubbed.segments[-1]
    assert path.suffix == ".gz" or not _is_full(path)
    with put_back(path):
        flip(path, path.stat().st_size - 1)
        found = scrubbed.backed.verify()
        assert list(found["wal_damaged"]) == [name(path)]
        assert any(f"WAL segment {name(path)} " in error for error in found["errors"])


def test_rot_shows_as_a_gap_until_a_good_copy_is_there(scrubbed: Scrubbed) -> None:
    assert scrubbed.update() == []
    assert scrubbed.value("SELECT recoverable FROM pgops.recovery_status") is True
    path, place = scrubbed.segments[1], scrubbed.backed.place
    failed = "SELECT wal_filename FROM pgops.wal_archive_status WHERE status = 'failed'"
    gap = "SELECT first_wal FROM pgops.wal_archive_gaps"
    with put_back(path):
        os.truncate(path, path.stat().st_size - 1)
        assert list(scrubbed.backed.verify()["wal_damaged"]) == [name(path)]
        # A catalogue that is made from nothing does not take what is rotten for good.
        for rebuild in (False, True):
            scrubbed.update(rebuild=rebuild)
            seen = scrubbed.value("SELECT to_jsonb(s) FROM pgops.recovery_status AS s")
            assert (seen["recoverable"], seen["obstacle"]) == (False, f"damaged segment {name(path)}")
            assert (scrubbed.value(failed), scrubbed.value(gap)) == (name(path), name(path))
            assert scrubbed.value("SELECT missing_wal FROM pgops.recovery_windows") == name(path)
        held = inventory.read(str(place.parent.parent), place.parent.name)
        assert (list(held.rotten), held.runs) == ([name(path)], held.without([name(path)]).runs)
        assert name(path) in scrubbed.backed.verify()["wal_damaged"]
    assert inventory.read(str(place.parent.parent), place.parent.name).rotten == {}
    assert scrubbed.update() == []
    assert scrubbed.value("SELECT recoverable FROM pgops.recovery_status") is True
    assert (scrubbed.value(failed), scrubbed.value(gap)) == (None, None)
    assert scrubbed.backed.verify()["errors"] == []
    assert damage.read(str(place)).damaged == {}


def test_a_checksum_that_was_taken_of_rot_does_not_hide_it(make: Callable[..., Host]) -> None:
    scrubbed = Scrubbed(make(initdb=("--wal-segsize=1",), settings={"autovacuum": "off"}), "none")
    path = next(path for path in scrubbed.segments if _is_full(path))
    with put_back(path):
        flip(path, 8192)
        assert scrubbed.update(rebuild=True) == []
        assert name(path) in scrubbed.backed.verify()["wal_damaged"]
    # The good content is another than the one that was catalogued.
    assert scrubbed.backed.verify()["errors"] == []
    assert scrubbed.update() == []
    checksum = f"SELECT checksum FROM pgops.wal_archive_status WHERE wal_filename = '{name(path)}'"
    assert scrubbed.value(checksum) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert scrubbed.backed.verify()["errors"] == []


def test_a_segment_that_expires_is_damaged_no_longer(make: Callable[..., Host]) -> None:
    scrubbed = Scrubbed(make(initdb=("--wal-segsize=1",), settings={"autovacuum": "off"}), "none")
    path = scrubbed.segments[0]
    os.truncate(path, 100)
    assert list(scrubbed.backed.verify()["wal_damaged"]) == [name(path)]
    scrubbed.update()
    retention = {"full_days": 0, "other_days": 0, "minimum_full": 1}
    scrubbed.backed.take()
    done = as_user(
        scrubbed.backed.user,
        lambda: expiry.expire(scrubbed.backed.configuration(retention=retention), scrubbed.backed.layout, False),
        600,
    )
    assert done["errors"] == []
    assert not path.exists()
    assert scrubbed.update() == []
    status = f"SELECT status FROM pgops.wal_archive_status WHERE wal_filename = '{name(path)}'"
    assert scrubbed.value(status) == "expired"
    assert scrubbed.backed.verify()["errors"] == []


def test_crashes_and_promotions_are_no_damage(make: Callable[..., Host], keep: Callable[[Server], Server]) -> None:
    """A crash ends the WAL within a record, and a promotion begins a timeline within a segment."""
    scrubbed = Scrubbed(make(initdb=("--wal-segsize=1",), settings={"autovacuum": "off"}), "none")
    first = scrubbed.backed
    for _crash in range(5):
        with first.server.connect() as session:
            # Not waited for: what is written of it is not the end of a record.
            session.execute("SET synchronous_commit = off")
            session.execute("INSERT INTO item SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n")
            session.execute("SELECT pg_logical_emit_message(false, 'torn', repeat(md5('x'), 70000))")
            first.server.stop("immediate")
        first.server.start()
    standby = keep(first.server.standby()).start()
    first.server.psql(WORK.replace("item", "other"))
    last = first.server.value("SELECT pg_current_wal_flush_lsn()")
    until(lambda: standby.value(f"SELECT pg_last_wal_receive_lsn() >= '{last}'"), "received")
    first.server.stop()
    standby.promote()
    host = Host(standby, first.host.base, first.host.prefix, first.host.params, standby.data_dir)
    host.apply()
    standby.psql(WORK.replace("item", "third"))
    name = host.switch()
    until(lambda: name in host.archived(), f"{name} archived")
    assert {path.name[:8] for path in host.repository.glob("*/wal/*/*")} >= {"00000001", "00000002"}
    assert scrubbed.read() == {}
    # All of it was read: what both timelines have, and what only one has.
    held = inventory.stored(str(first.place.parent.parent), first.place.parent.name)
    assert {run.timeline for run in scrub.needed(held)} == {1, 2}
