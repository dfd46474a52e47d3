# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue says which backups are in the repository, from when to when they can bring the cluster back, and what
is gone that should be there."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from archives import Host
from deploying import configured, deploy
from keeping import manifest

from pgops.recovery.targets import position
from pgops.repository import backups, catalogue, dumps, removed, wal
from pgops.repository.manifests import Manifest

HISTORY = "SELECT to_jsonb(h) FROM pgops.backup_history AS h ORDER BY h.wal_end_lsn, h.backup_id"


class Kept:
    """A server that archives, with backups in its repository that consist of a manifest alone."""

    def __init__(self, host: Host) -> None:
        self.host = host
        deploy(host.server, backup=True)
        host.apply()
        self.configuration, self.layout = configured(
            host.server, host.prefix / "agent", repository=str(host.repository), superuser=host.server.superuser
        )

    def value(self, query: str) -> Any:
        return self.host.server.value(query, "pgops")

    @property
    def generation(self) -> str:
        return str(self.value("SELECT pgops.server_generation()"))

    @property
    def place(self) -> str:
        return backups.prepared(str(self.host.repository), self.generation)

    def update(self, **options: Any) -> list[str]:
        """The errors of a run."""
        errors: list[str] = catalogue.update(self.configuration, **options)["errors"]
        return errors

    def byte(self) -> int:
        return int(str(self.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")))

    def archive(self) -> str:
        name = self.host.switch()
        self.host.wait_for(name)
        return name

    def publish(self, name: str, start: int, **other: Any) -> Manifest:
        """A backup from a byte of the WAL to here."""
        self.value("SELECT pg_create_restore_point('in the backup')")
        made = manifest(
            id=str(uuid.uuid4()),
            system_identifier=self.generation.partition("-")[0],
            server_version=f"{self.host.server.major}.1",
            segment_bytes=1 << 20,
            start_lsn=start,
            stop_lsn=self.byte(),
            started_at=datetime.now(timezone.utc),
            completed_at=datetime.now(timezone.utc),
            **other,
        )
        with backups.alone(self.place), backups.begun(self.place, name) as path:
            backups.publish(path, made)
        return made

    def backup(self, name: str, **other: Any) -> Manifest:
        """A backup with all its WAL archived."""
        self.archive()
        made = self.publish(name, self.byte(), **other)
        self.archive()
        return made

    def history(self) -> list[dict[str, Any]]:
        with self.host.server.connect("pgops") as session:
            return [row[0] for row in session.execute(HISTORY.encode())]

    def state(self) -> tuple[bool | None, str | None]:
        """Whether the cluster can be recovered, and if not, why."""
        found = self.value(
            f"SELECT jsonb_build_array(recoverable, obstacle) FROM pgops.generation WHERE name = '{self.generation}'"
        )
        assert isinstance(found, list)
        return found[0], found[1]

    def windows(self) -> list[dict[str, Any]]:
        with self.host.server.connect("pgops") as session:
            query = "SELECT to_jsonb(w) FROM pgops.recovery_windows AS w ORDER BY w.timeline, w.start_lsn"
            return [row[0] for row in session.execute(query.encode())]


@pytest.fixture(name="kept")
def _kept(make: Callable[..., Host]) -> Kept:
    # Segments are small: autovacuum alone would fill one now and then.
    return Kept(make(initdb=("--wal-segsize=1",), settings={"autovacuum": "off"}))


@pytest.mark.every_major
def test_what_is_in_the_repository_is_in_the_history(kept: Kept) -> None:
    kept.archive()
    assert kept.update() == []
    assert kept.state() == (False, "no base backup")
    first = kept.backup("20260101T000000Z-full-1", compression="gzip", layout="tar", stored_bytes=123)
    second = kept.backup("20260102T000000Z-incremental-2", kind="incremental", parent=first.id)
    assert kept.update() == []
    one, other = kept.history()
    assert (one["backup_id"], one["backup_type"], one["status"]) == (first.id, "full", "completed")
    assert (one["backup_file_size"], one["compression_type"], one["layout"]) == (123, "gzip", "tar")
    assert one["backup_file_path"] == f"{kept.place}/20260101T000000Z-full-1"
    assert [position(one[name]) for name in ("wal_start_lsn", "wal_end_lsn")] == [first.start_lsn, first.stop_lsn]
    assert (other["backup_id"], other["parent_id"]) == (second.id, first.id)
    assert kept.state() == (True, None)
    (window,) = kept.windows()
    assert (position(window["start_lsn"]), window["backups"]) == (first.stop_lsn, [first.id, second.id])
    assert (window["newest"], window["recovery_basis"], window["recovery_seconds"] > 0) == (True, "assumed", True)
    assert [one["part"] for one in window["recovery_parts"]] == ["select", "combine", "verify", "replay", "start"]
    assert window["ends_at"] is not None
    # A rebuild knows the same, from nothing.
    before = kept.history()
    assert kept.update(rebuild=True) == []
    assert (kept.history(), kept.windows(), kept.state()) == (before, [window], (True, None))


def test_the_repository_is_read_without_locks_in_the_database(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """On slow storage that takes long, and whoever records a backup or a dump would wait."""
    kept.backup("one")
    locked: dict[str, list[int]] = {}

    def watched(module: Any, name: str) -> None:
        real = getattr(module, name)
        seen = locked.setdefault(f"{module.__name__}.{name}", [])

        def asked(*words: Any) -> Any:
            query = (
                "SELECT count(*) FROM pg_locks WHERE relation IN ('pgops.backup'::regclass, 'pgops.dump'::regclass)"
            )
            seen.append(int(str(kept.value(f"{query} AND pid <> pg_backend_pid()"))))
            return real(*words)

        monkeypatch.setattr(module, name, asked)

    watched(backups, "listed")
    watched(dumps, "databases")
    assert kept.update() == []
    assert all(seen and not any(seen) for seen in locked.values()), locked


def test_a_pin_and_a_damage_show(kept: Kept) -> None:
    kept.backup("one")
    kept.update()
    backups.pin(kept.place, "one", "for the audit")
    kept.update()
    assert kept.history()[0]["pinned"] == "for the audit"
    path = Path(kept.place) / "one" / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"full"', '"fuLl"'))
    (error,) = kept.update()
    assert "one" in error
    (row,) = kept.history()
    assert (row["status"], "damaged" in row["damage"]) == ("completed", True)
    assert kept.state() == (False, "no base backup")
    path.write_text(text)
    assert kept.update() == []
    assert (kept.history()[0]["damage"], kept.state()) == (None, (True, None))


def test_a_missing_segment_makes_it_unrecoverable_from_there_on(kept: Kept) -> None:
    kept.backup("one")
    names = [kept.archive() for _segment in range(3)]
    kept.update()
    assert kept.state() == (True, None)
    kept.host.archived()[names[1]].unlink()
    (error,) = kept.update()
    assert names[1] in error
    assert kept.state() == (False, f"missing segment {names[1]}")
    assert names[1] in str(kept.value("SELECT lost FROM pgops.recovery_status"))
    (window,) = kept.windows()
    assert window["missing_wal"] == names[1]
    # Another backup makes it whole from then on.
    kept.backup("two")
    assert kept.update() == []
    assert kept.state() == (True, None)
    assert [one["missing_wal"] == names[1] for one in kept.windows()] == [True, False]


def test_what_is_gone_without_us_is_told_and_what_we_removed_is_not(kept: Kept) -> None:
    ours, theirs = kept.backup("ours"), kept.backup("theirs")
    kept.backup("newest")
    kept.update()
    first = wal.Run(1, ours.start_lsn >> 20, (ours.stop_lsn - 1) >> 20)
    with backups.alone(kept.place):
        removed.note(kept.place, [ours.id], [first])
        assert backups.remove(kept.place, "ours")
        for number in range(first.first, first.last + 1):
            kept.host.archived()[wal.name(1, number, 1 << 20)].unlink()
    assert kept.update() == []
    shutil.rmtree(Path(kept.place) / "theirs")
    (error,) = kept.update()
    assert "backup theirs: It is no longer in the repository" in error
    rows = {row["backup_id"]: row for row in kept.history()}
    assert {rows[one.id]["status"] for one in (ours, theirs)} == {"expired"}
    assert (rows[ours.id]["error_message"], "no longer" in rows[theirs.id]["error_message"]) == (None, True)
    assert kept.update() == []


def test_a_repository_that_was_set_back_is_told(kept: Kept) -> None:
    kept.backup("first")
    kept.update()
    snapshot = shutil.copytree(kept.host.repository, kept.host.base / "snapshot", symlinks=True)
    last = kept.backup("last")
    with backups.alone(kept.place):
        removed.note(kept.place, [kept.history()[0]["backup_id"]])
        assert backups.remove(kept.place, "first")
    assert kept.update() == []
    lost = sorted(name for name in kept.host.archived() if len(name) == 24)
    shutil.rmtree(kept.host.repository)
    snapshot.rename(kept.host.repository)
    errors = " ".join(kept.update())
    assert "backup last: It is no longer in the repository" in errors
    assert "backup first: It had been removed, and is in the repository again" in errors
    assert "segments are no longer in the repository" in errors
    assert lost[-1] in errors
    assert {row["backup_id"] for row in kept.history() if row["status"] == "expired"} == {last.id}
    assert kept.update() == []


def test_a_killed_backup_is_failed_by_the_next_run(kept: Kept) -> None:
    kept.archive()
    kept.update()
    kept.value(
        "INSERT INTO pgops.backup (status, backup_type, generation, name, started_at, node, pid) "
        f"VALUES ('running', 'full', '{kept.generation}', 'torn', now(), 'db1/main', 1)"
    )
    with backups.alone(kept.place):  # somebody is taking it
        kept.update()
        assert [row["status"] for row in kept.history()] == ["running"]
    kept.update()
    (row,) = kept.history()
    assert (row["status"], row["completed_at"]) == ("failed", None)
    assert "it was killed, or its host went down" in row["error_message"]


def test_requests_that_nobody_carries_out_and_old_failures_end(kept: Kept) -> None:
    kept.archive()
    kept.value("SELECT pgops.create_database_backup()")
    kept.update()
    assert kept.history()[0]["status"] == "requested"
    kept.value("UPDATE pgops.backup SET requested_at = now() - interval '4 days'")
    kept.update()
    assert "not carried out" in kept.history()[0]["error_message"]
    kept.value("UPDATE pgops.backup SET ended_at = now() - interval '31 days'")
    kept.update()
    assert kept.history() == []


POINT = """
SELECT jsonb_build_array(base_backup_id, required_wal_files, required_segments, obstacle)
FROM pgops.recovery_points WHERE recovery_name = '{}'
"""


def test_a_recovery_point_whose_wal_is_lost_cannot_be_restored(kept: Kept) -> None:
    made = kept.backup("one")
    lost = kept.archive()
    kept.value("SELECT pgops.create_recovery_point('here')")
    kept.archive()
    kept.update()
    assert kept.value(POINT.format("here"))[0] == made.id  # type: ignore[index]
    kept.host.archived()[lost].unlink()
    (error,) = kept.update()
    assert lost in error
    assert kept.value(POINT.format("here")) == [None, None, None, f"missing segment {lost}"]


def test_what_a_verification_found_counts(kept: Kept) -> None:
    first, second = kept.backup("one"), kept.backup("two")
    when = datetime(2026, 1, 1, tzinfo=timezone.utc)
    backups.note_checked(kept.place, "one", [], when)
    backups.note_checked(kept.place, "two", ["base/1/2 is damaged"], when)
    assert kept.update() == []
    one, two = kept.history()
    assert (one["damage"], one["verified_at"][:10]) == (None, "2026-01-01")
    assert (two["damage"], two["verified_at"]) == ("base/1/2 is damaged", None)
    assert [window["backups"] for window in kept.windows()] == [[first.id]]
    backups.note_checked(kept.place, "one", ["it is damaged, too"], when)
    kept.update()
    assert kept.state() == (False, "no base backup")
    backups.note_checked(kept.place, "two", [], when)
    kept.update()
    assert (kept.state(), kept.windows()[0]["backups"]) == ((True, None), [second.id])


@pytest.mark.every_major
def test_a_recovery_point_names_its_backup_and_all_its_wal(kept: Kept) -> None:
    kept.archive()
    kept.value("SELECT pgops.create_recovery_point('too early')")
    kept.archive()
    made = kept.backup("one")
    kept.update()
    kept.archive()
    kept.value("SELECT pgops.create_recovery_point('here', 'before the release')")
    assert kept.value(POINT.format("here")) == [made.id, None, None, None]
    kept.update()
    assert kept.value(POINT.format("here")) == [None, None, None, "not archived yet"]
    last = kept.archive()
    kept.update()
    found = kept.value(POINT.format("here"))
    assert isinstance(found, list)
    first = wal.name(1, made.start_lsn >> 20, 1 << 20)
    names = sorted(name for name in kept.host.archived() if len(name) == 24 and first <= name <= last)
    assert found == [made.id, names, len(names), None]
    assert kept.value(POINT.format("too early")) == [None, None, None, "no base backup"]
    # The newest backup before it serves it.
    kept.value("SELECT pgops.create_recovery_point('later')")
    kept.archive()
    kept.update()
    assert kept.value(POINT.format("later"))[0] == made.id  # type: ignore[index]


def test_the_row_of_a_request_becomes_that_of_its_backup(kept: Kept) -> None:
    kept.archive()
    asked = str(kept.value("SELECT pgops.create_database_backup('full')"))
    made = replace(kept.backup("one"), id=asked)
    path = Path(kept.place) / "one" / "manifest.json"
    path.write_text(made.text())
    assert json.loads(path.read_text())["id"] == asked
    assert kept.update() == []
    (row,) = kept.history()
    assert (row["backup_id"], row["status"]) == (asked, "completed")
    assert row["created_by"] == kept.host.server.superuser


def test_a_copy_of_a_backup_in_another_generation_is_no_backup_of_it(kept: Kept) -> None:
    kept.backup("one")
    past = kept.host.repository / "7000000000000000001-14"
    shutil.copytree(kept.host.repository / kept.generation, past)
    (past / "generation.json").write_text(
        (past / "generation.json").read_text().replace(kept.generation.partition("-")[0], "7000000000000000001")
    )
    (error,) = kept.update()  # the copy of the manifest is of another cluster
    assert "one" in error
    assert [row["generation"] for row in kept.history()] == [kept.generation]


def test_the_repository_is_read_while_the_catalogue_is_free(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.publish("a", kept.byte())
    looks: list[str] = []

    def listed(place: str) -> backups.Listing:
        # On slow storage this takes long; whoever else wants the table must not wait for it.
        with kept.host.server.connect("pgops") as other, other.transaction():
            other.execute("LOCK TABLE pgops.backup IN ACCESS EXCLUSIVE MODE NOWAIT")
        looks.append(place)
        return before(place)

    before = backups.listed
    monkeypatch.setattr(backups, "listed", listed)
    assert kept.update() == []
    assert looks
    assert kept.value("SELECT count(*) FROM pgops.backup_history") == 1


def test_a_backup_that_is_removed_while_the_repository_is_read_stays_removed(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kept.publish("a", kept.byte())
    assert kept.update() == []
    backups.note_checked(kept.place, "a", ("torn",), datetime.now(timezone.utc))
    before = backups.listed

    def listed(place: str) -> backups.Listing:
        found = before(place)
        kept.host.server.psql(
            f"UPDATE pgops.backup SET status = 'expired', expired_at = now() WHERE backup_id = '{made.id}'", "pgops"
        )
        return found

    monkeypatch.setattr(backups, "listed", listed)
    kept.update()
    assert kept.value("SELECT status FROM pgops.backup_history") == "expired"
