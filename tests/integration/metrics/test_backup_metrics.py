# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Metrics of backups: what is wrong shows, and what is not known is no sample."""

from __future__ import annotations

from typing import Any

import pytest
from deploying import collect
from measuring import measure, row_of
from psycopg import sql
from servers import Server
from waiting import until

GENERATION = (
    "INSERT INTO pgops.generation (name, segment_bytes, repository, stored_bytes, backup_bytes, backups_seen_at, "
    "recoverable, obstacle) "
    "VALUES (pgops.server_generation(), 16777216, '/base/shop', 1048576, 2097152, now(), {}, {})"
)
SWITCHED_ON = "UPDATE pgops.setting SET value = 'true' WHERE name = 'backup'"


def backup(server: Server, status: str, ago: str, **columns: Any) -> None:
    """A row of a backup that took a minute and ended so long ago."""
    row = {"status": status, "backup_type": "full", "timeline": 1, **columns}
    names = sql.SQL(", ").join(map(sql.Identifier, row))
    query = sql.SQL(
        "INSERT INTO pgops.backup (generation, started_at, ended_at, {}) SELECT pgops.server_generation(), "
        "now() - {ago}::interval - interval '1 min', now() - {ago}::interval, {}"
    )
    with server.connect("pgops") as session:
        session.execute(query.format(names, sql.SQL(", ").join(map(sql.Literal, row.values())), ago=sql.Literal(ago)))


def whole(server: Server) -> dict[str, Any]:
    """The row of the cluster as a whole."""
    return row_of(measure(server, "backups", "pgops"), backup_type=None)


@pytest.mark.every_major
def test_without_a_backup_it_is_unrecoverable_however_healthy_archiving_is(deployed: Server) -> None:
    deployed.value(SWITCHED_ON, "pgops")
    deployed.value(GENERATION.format("false", "'no base backup'"), "pgops")
    found = whole(deployed)
    assert (found["recoverable"], found["recovery_window_seconds"], found["backups"]) == (0, 0, 0)
    assert (found["repository_size_mb"], found["backup_failed"]) == (3.0, None)
    (row,) = measure(deployed, "backups", "pgops")
    assert row["backup_age_seconds"] is None


@pytest.mark.every_major
def test_the_age_of_the_last_good_one_grows_while_others_fail(deployed: Server) -> None:
    deployed.value(SWITCHED_ON, "pgops")
    deployed.value(GENERATION.format("true", "NULL"), "pgops")
    backup(deployed, "completed", "3 days", stop_lsn="0/100", stored_bytes=1048576)
    backup(deployed, "completed", "2 days", stop_lsn="0/200", stored_bytes=2097152)
    backup(deployed, "expired", "1 day", stop_lsn="0/300")
    backup(deployed, "failed", "1 hour")
    backup(deployed, "completed", "2 hours", stop_lsn="0/250", backup_type="incremental", stored_bytes=0)
    rows = measure(deployed, "backups", "pgops")
    full = row_of(rows, backup_type="full")
    assert (full["backup_size_mb"], full["backup_duration_seconds"]) == (2.0, 60.0)
    assert 172_800 <= full["backup_age_seconds"] < 172_800 + deployed.age()
    assert row_of(rows, backup_type="incremental")["backup_age_seconds"] >= 7200
    found = row_of(rows, backup_type=None)
    assert (found["backup_failed"], found["backups"], found["backup_running_seconds"]) == (1, 3, None)
    age = full["backup_age_seconds"]
    until(
        lambda: row_of(measure(deployed, "backups", "pgops"), backup_type="full")["backup_age_seconds"] > age, "grown"
    )
    backup(deployed, "running", "0 s")
    assert whole(deployed)["backup_running_seconds"] >= 60


def test_the_window_is_the_one_that_reaches_to_now(deployed: Server) -> None:
    deployed.value(SWITCHED_ON, "pgops")
    deployed.value(GENERATION.format("true", "NULL"), "pgops")
    window = (
        "INSERT INTO pgops.recovery_window SELECT pgops.server_generation(), 1, '{}', '{}', now() - interval '{}', "
        "now() - interval '{}', 'X', '{{}}'"
    )
    deployed.value(window.format("0/100", "0/200", "9 h", "8 h"), "pgops")
    deployed.value(window.format("0/300", "0/400", "2 h", "1 h"), "pgops")
    assert whole(deployed)["recovery_window_seconds"] == 3600
    deployed.value("UPDATE pgops.generation SET recoverable = false", "pgops")
    assert whole(deployed)["recovery_window_seconds"] == 0
    deployed.value("UPDATE pgops.generation SET recoverable = NULL", "pgops")
    assert whole(deployed)["recovery_window_seconds"] is None


@pytest.mark.every_major
def test_the_time_to_recover_is_no_sample_where_it_is_not_known(deployed: Server, tmp_path: Any) -> None:
    deployed.value(SWITCHED_ON, "pgops")
    deployed.value(GENERATION.format("true", "NULL"), "pgops")
    stored = (
        "SELECT array_agg(metric_value ORDER BY metric_value) FROM pgops.system_metrics "
        "WHERE metric_name ~ '^recovery_(time|part)_'"
    )

    def collected(change: str) -> object:
        """The samples that a collection adds, after a change."""
        deployed.value(change, "pgops")
        before = deployed.value(stored, "pgops") or []
        assert collect(deployed, tmp_path)["errors"] == []
        after = deployed.value(stored, "pgops") or []
        assert isinstance(before, list)
        assert isinstance(after, list)
        for one in before:
            after.remove(one)
        return after

    window = (
        "INSERT INTO pgops.recovery_window SELECT pgops.server_generation(), 1, '0/100', '0/200', now(), now(), 'X', "
        """'{}', true, 12.5, 'assumed', '[{"part": "copy", "seconds": 10.5, "basis": "elsewhere"}, """
        """{"part": "replay", "seconds": 2, "basis": "assumed"}]'"""
    )
    assert collected("SELECT 1") == []
    assert collected(window) == [2, 2, 10.5, 12.5]
    rows = measure(deployed, "recovery_time", "pgops")
    every = row_of(rows, part=None)
    assert (every["recovery_time_seconds"], every["recovery_time_guessed_seconds"]) == (12.5, 2)
    assert row_of(rows, part="copy")["recovery_part_seconds"] == 10.5
    assert row_of(rows, part="replay")["recovery_part_seconds"] == 2
    # That of a window which does not go to the newest WAL is not the time to recover.
    assert collected("UPDATE pgops.recovery_window SET newest = false") == []
    assert collected("UPDATE pgops.recovery_window SET newest = true, recovery_seconds = NULL") == []


def test_where_nothing_is_backed_up_there_is_nothing(deployed: Server, tmp_path: Any) -> None:
    deployed.value(GENERATION.format("false", "'no base backup'"), "pgops")
    backup(deployed, "failed", "1 hour")
    assert collect(deployed, tmp_path)["errors"] == []
    count = "SELECT count(*) FROM pgops.system_metrics WHERE metric_name IN ('recoverable', 'backup_failed')"
    assert deployed.value(count, "pgops") == 0
    deployed.value(SWITCHED_ON, "pgops")
    assert collect(deployed, tmp_path)["errors"] == []
    assert deployed.value(count, "pgops") == 2


def test_dumps_age_while_they_fail(deployed: Server) -> None:
    """By database; of one that was dropped nothing fails, and no backup is counted."""
    deployed.value(SWITCHED_ON, "pgops")
    deployed.value(GENERATION.format("true", "NULL"), "pgops")
    for status, name, ago, lsn in (
        ("completed", "postgres", "2 days", "0/100"),
        ("failed", "postgres", "1 hour", None),
        ("completed", "gone", "3 days", "0/50"),
        ("failed", "dropped", "1 hour", None),
        ("failed", "pgops", "1 hour", None),
    ):
        with deployed.connect("pgops") as session:
            session.execute(
                "INSERT INTO pgops.dump (dump_id, status, database_key, database_name, repository, generation, name, "
                "timeline, snapshot_lsn, stored_bytes, started_at, ended_at) SELECT gen_random_uuid(), %(status)s, "
                "%(name)s, %(name)s, '/base/shop', pgops.server_generation(), 'one', 1, %(lsn)s, 2097152, "
                "now() - %(ago)s::interval - interval '1 min', now() - %(ago)s::interval",
                {"status": status, "name": name, "ago": ago, "lsn": lsn},
            )
    found = measure(deployed, "dumps", "pgops")
    assert sorted(row["database"] for row in found) == ["gone", "pgops", "postgres"]
    one = row_of(found, database="postgres")
    assert one["dump_age_seconds"] >= 2 * 86400
    assert (one["dump_size_mb"], one["dump_duration_seconds"], one["dump_failed"]) == (2, 60, 1)
    assert row_of(found, database="pgops")["dump_failed"] == 1
    assert row_of(found, database="pgops")["dump_age_seconds"] is None
    assert row_of(found, database="gone")["dump_failed"] == 0
    every = whole(deployed)
    assert (every["backups"], every["backup_failed"], every["recoverable"]) == (0, None, 1)
    assert every["repository_size_mb"] == 3 + 2 * 2  # the WAL, the backups, and two dumps
