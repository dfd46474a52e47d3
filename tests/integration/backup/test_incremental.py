# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups of what was changed since another one; restored by pg_combinebackup of the same version."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import Host
from backed import Backed, flip, own
from servers import Server

from pgops.errors import Conflict, HostFailed
from pgops.repository import chains

SETTINGS = {"summarize_wal": "on"}
TABLE = "CREATE TABLE item AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 20000) AS n"
SUM = "SELECT count(*) || ' ' || md5(string_agg(name, '' ORDER BY id)) FROM item"


def combined(backed: Backed, taken: dict[str, object]) -> Server:
    """A stopped server of a chain, that recovers to the end of its last backup."""
    line = chains.chain(backed.kept(taken), backed.listing.by_id())
    assert line
    other = Server._place(backed.server.major)
    folders = [str(backed.place / kept.name / "data") for kept in line]
    backed.server.run(backed.server.client("pg_combinebackup"), "--no-sync", *folders, "-o", other.data_dir)
    fetch = f"{backed.host.program} fetch {backed.host.repository} {backed.place.parent.name} %f %p"
    settings = {"archive_mode": "off", "restore_command": fetch, "recovery_target": "immediate"}
    other.configure({**other._listening(), **settings, "recovery_target_action": "promote"})
    other.write(other.data_dir / "recovery.signal", "")
    return other


def change(server: Server, number: int) -> str:
    """A change; what is in the table then."""
    server.psql(f"UPDATE item SET name = 'changed {number}' WHERE id % 100 = {number}; CHECKPOINT")
    return str(server.value(SUM))


@pytest.fixture(name="backed")
def _backed(make: Callable[..., Host]) -> Backed:
    host = make(settings=SETTINGS)
    if not host.server.tooled:
        pytest.skip("pg_combinebackup combines backups of its own version only")
    made = Backed.of(host, incremental=True, unsafe_incremental=True)
    made.server.psql(TABLE)
    return made


def test_a_chain_is_taken_and_restored_from_each_of_its_backups(backed: Backed) -> None:
    full = backed.take()
    assert (full["kind"], full["why"]) == ("full", "there is no full one yet")
    states = []
    taken = []
    for number, kind in enumerate(["auto", "incremental", "differential", "auto"]):
        states.append(change(backed.server, number))
        taken.append(backed.take(kind))
    first, second, differential, last = (backed.kept(one).manifest for one in taken)
    assert [one.kind for one in (first, second, differential, last)] == [
        *("incremental", "incremental", "differential", "incremental")
    ]
    assert [first.parent, second.parent, differential.parent, last.parent] == [
        *(full["backup"], first.id, full["backup"], differential.id)
    ]
    assert first.stored_bytes < backed.kept(full).manifest.stored_bytes / 2
    assert first.data_bytes > 10_000_000
    verified = backed.verify()
    assert (verified["verified"], verified["errors"]) == (5, [])
    for one, state in zip(taken, states):
        with combined(backed, one) as server:
            assert server.value(SUM) == state


def test_an_expected_time_is_told_from_the_one_before(backed: Backed) -> None:
    first = backed.take("full")
    assert (first["expected_seconds"], first["wal_waiting"]) == (None, 0)
    second = backed.take("full")
    assert second["expected_seconds"] > 0
    assert second["expected_bytes"] > first["stored_bytes"] / 2


def test_a_damaged_backup_is_not_added_to(backed: Backed) -> None:
    full = backed.take()
    flip(backed.path(full) / "data" / "global" / "pg_control", 8000)
    assert full["name"] in backed.verify()["damaged"]
    with pytest.raises(Conflict, match="is damaged, as its last verification showed"):
        backed.take("incremental")
    again = backed.take()
    assert (again["kind"], again["parent"]) == ("full", "")
    assert "is damaged" in again["why"]
    assert backed.take()["parent"] == again["backup"]


def test_after_a_promotion_the_next_one_is_full(backed: Backed, keep: Callable[[Server], Server]) -> None:
    backed.take()
    standby = keep(backed.server.standby()).start()
    backed.server.stop()
    standby.promote()
    other = Backed(
        Host(standby, backed.host.base, backed.host.prefix, backed.host.params, standby.data_dir), backed.declared
    )
    other.host.apply()
    with pytest.raises(Conflict, match="The server is on timeline 2"):
        other.take("incremental")
    taken = other.take()
    assert taken["kind"] == "full"
    assert "timeline 2" in taken["why"]
    assert other.kept(taken).manifest.timeline == 2
    assert other.take()["kind"] == "incremental"


def test_after_a_failed_attempt_the_next_one_is_full(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    backed.take()
    monkeypatch.setattr("pgops.backup.source.RESERVE", 1 << 40)
    monkeypatch.setattr("pgops.backup.source.check_room", lambda *_room: None)
    with pytest.raises(HostFailed):
        backed.take(max_rate_mb=1.0)
    monkeypatch.undo()
    again = backed.take()
    assert (again["kind"], again["why"]) == ("full", "the last attempt to take a backup failed")
    assert backed.take()["kind"] == "incremental"


@pytest.mark.every_major(since=18, until=18)  # 19.0 has it corrected, and of 17 the tests have no programs
def test_minor_versions_with_the_error_are_refused(backed: Backed) -> None:
    backed.take()
    with pytest.raises(Conflict, match=r"corrected in 17\.13 and 18\.7") as caught:
        backed.take("incremental", unsafe_incremental=False)
    assert "pgops_backup_unsafe_incremental" in caught.value.hint
    again = backed.take(unsafe_incremental=False)
    assert again["kind"] == "full"


def test_a_parent_that_is_gone_is_a_problem_of_what_added_to_it(backed: Backed) -> None:
    full = backed.take()
    added = backed.take()
    shutil.move(backed.path(full), backed.host.base / "elsewhere")
    assert added["kind"] == "incremental"
    found = backed.verify()
    assert "a backup that it adds to is not in the repository" in found["damaged"][added["name"]][0]
    assert backed.take()["kind"] == "full"


def test_chains_of_compressed_backups_are_verified(backed: Backed) -> None:
    backed.take(compression="gzip")
    change(backed.server, 1)
    added = backed.take(compression="gzip")
    assert (added["kind"], backed.kept(added).manifest.layout) == ("incremental", "tar")
    assert backed.verify()["verified"] == 2


def test_a_repository_that_was_copied_is_one(backed: Backed, root: Path) -> None:
    backed.take()
    backed.take()
    away = root / "away"
    shutil.move(backed.host.repository, away)
    # With new times, inodes and owners.
    shutil.copytree(away, backed.host.repository, symlinks=True, copy_function=shutil.copyfile)
    own(backed.host.repository, backed.server)
    assert backed.verify()["verified"] == 2
    assert backed.take()["kind"] == "incremental"
