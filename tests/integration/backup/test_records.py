# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database tells what becomes of backups, and nothing depends on it."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from archives import Host
from backed import Backed

from pgops.backup import record
from pgops.errors import PgOpsError
from pgops.host.identity import as_user
from pgops.repository import attempts, backups, catalogue
from pgops.repository.attempts import Attempt

HISTORY = "SELECT to_jsonb(h) FROM pgops.backup_history AS h ORDER BY coalesce(h.started_at, h.requested_at)"
NOTHING = argparse.Namespace()


def history(backed: Backed) -> list[dict[str, Any]]:
    with backed.server.connect("pgops") as session:
        return [row[0] for row in session.execute(HISTORY.encode())]


def attempt(backup: str, began: datetime | None = None) -> Attempt:
    return Attempt(backup, "full", "db2/main", "torn", "it was due", began or datetime.now(timezone.utc))


def catalogued(backed: Backed) -> list[str]:
    """The errors of a run of the job catalogue."""
    errors: list[str] = catalogue.update(backed.configuration())["errors"]
    return errors


@pytest.mark.every_major
def test_a_backup_is_told_as_it_is(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    taken = backed.take()
    (row,) = history(backed)
    assert (row["backup_id"], row["status"], row["backup_type"]) == (taken["backup"], "completed", "full")
    assert (row["backup_file_size"], row["data_bytes"]) == (taken["stored_bytes"], taken["data_bytes"])
    assert row["backup_file_path"] == str(backed.path(taken))
    assert row["backup_method"] == "pg_basebackup"
    assert (row["checksum"], row["created_by"]) == (backed.kept(taken).manifest.checksum, "pgops")
    assert row["duration_seconds"] > 0
    assert catalogued(backed) == []
    assert history(backed) == [row]


def test_one_that_fails_is_told_with_its_error(make: Callable[..., Host], root: Any) -> None:
    backed = Backed.of(make())
    hook = root / "hook"
    hook.write_text("#!/bin/sh\necho no room for it >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(PgOpsError) as caught:
        backed.take(hook_before=str(hook))
    (row,) = history(backed)
    assert (row["status"], row["completed_at"], row["checksum"]) == ("failed", None, None)
    assert row["error_message"] == str(caught.value)


def test_without_the_ops_database_a_backup_is_taken_and_told_later(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    backed.server.value("ALTER DATABASE pgops RENAME TO away")
    taken = backed.take()
    assert ["was not told" in one for one in taken["warnings"]] == [True, True]
    backed.server.value("ALTER DATABASE away RENAME TO pgops")
    assert history(backed) == []
    assert catalogued(backed) == []
    assert [row["backup_id"] for row in history(backed)] == [taken["backup"]]


def test_what_ran_before_has_been_killed(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    torn = "6c84fb90-12c4-11e1-840d-7b25c5ee775a"
    generation = str(backed.server.value("SELECT pgops.server_generation()", "pgops"))
    configuration = backed.configuration()
    as_user(backed.user, lambda: record.started(configuration, generation, attempt(torn)))
    assert [row["status"] for row in history(backed)] == ["running"]
    backed.take()
    rows = {row["backup_id"]: row for row in history(backed)}
    assert sorted(row["status"] for row in rows.values()) == ["completed", "failed"]
    assert "it was killed" in rows[torn]["error_message"]


def test_what_another_node_does_is_known_by_the_repository(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    one, other = "6c84fb90-12c4-11e1-840d-7b25c5ee775a", "6c84fb90-12c4-11e1-840d-7b25c5ee775b"
    generation = str(backed.server.value("SELECT pgops.server_generation()", "pgops"))
    place = backups.prepared(str(backed.host.repository), generation)
    with backups.alone(place):
        attempts.begin(place, attempt(one))
        assert catalogued(backed) == []
        (row,) = history(backed)
        assert (row["backup_id"], row["status"], row["node"], row["reason"]) == (
            one,
            "running",
            "db2/main",
            "it was due",
        )
        assert row["ended_at"] is None
        assert catalogued(backed) == []
        assert history(backed) == [row]
        attempts.fail(place, attempt(one), "there is no room")
    assert catalogued(backed) == []
    (row,) = history(backed)
    assert (row["status"], row["error_message"]) == ("failed", "there is no room")
    attempts.begin(place, attempt(other))  # and its process is killed
    assert catalogued(backed) == []
    rows = {row["backup_id"]: row for row in history(backed)}
    assert rows[one] == row
    assert (rows[other]["status"], "it was killed" in rows[other]["error_message"]) == ("failed", True)
    assert catalogued(backed) == []
    assert len(history(backed)) == 2


def test_a_failure_that_was_forgotten_is_not_told_again(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    generation = str(backed.server.value("SELECT pgops.server_generation()", "pgops"))
    place = backups.prepared(str(backed.host.repository), generation)
    old = datetime.now(timezone.utc) - timedelta(days=4000)
    noted = attempts.Attempts(failed=(Attempt(**{**vars(attempt(str(uuid.uuid4()), old)), "ended_at": old}),))
    attempts._write(place, noted)
    assert attempts.read(place) == noted
    assert catalogued(backed) == []
    assert history(backed) == []
