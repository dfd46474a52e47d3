# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked for in SQL is done by the agent, on the node that is backed up, and the rows tell what came of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from archives import Host
from backed import LONG, Backed
from servers import Server
from waiting import until

from pgops.backup import requests
from pgops.host.identity import as_user
from pgops.repository import backups, catalogue

HISTORY = "SELECT to_jsonb(h) FROM pgops.backup_history AS h ORDER BY coalesce(h.requested_at, h.started_at)"
NO_PROGRAMS = {"bin_directory": "/nowhere"}
EXPIRY = "SELECT to_jsonb(e) FROM pgops.expiry AS e"


def ask(backed: Backed, call: str = "create_database_backup()") -> str:
    return str(backed.server.value(f"SELECT pgops.{call}", "pgops"))


def served(backed: Backed, **declared: Any) -> dict[str, Any]:
    """What a run of the job does, as the server's user."""
    settings = backed.configuration(**declared)
    done: dict[str, Any] = as_user(backed.user, lambda: requests.serve(settings, backed.layout), LONG)
    return done


@contextlib.contextmanager
def writing(server: Server) -> Iterator[None]:
    """A process that ends segments of a primary all the time."""
    child = os.fork()
    if not child:
        try:
            while True:
                server.value("SELECT pg_switch_wal() FROM pg_create_restore_point('here')")
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def history(backed: Backed) -> list[dict[str, Any]]:
    with backed.server.connect("pgops") as session:
        return [row[0] for row in session.execute(HISTORY.encode())]


@pytest.mark.every_major
def test_what_is_asked_for_is_taken_as_it_was_asked(make: Callable[..., Host]) -> None:
    backed = Backed.of(make(), compression="gzip")
    assert served(backed)["taken"] == []
    asked = ask(backed)
    plain = ask(backed, "create_database_backup('differential', false)")
    done = served(backed)
    assert done["taken"][0] == asked
    rows = {row["backup_id"]: row for row in history(backed)}
    assert (rows[asked]["status"], rows[asked]["compression_type"]) == ("completed", "gzip")
    assert rows[asked]["created_by"] == backed.server.superuser
    assert rows[asked]["backup_file_size"] == backed.listing.by_id()[asked].manifest.stored_bytes
    # One that cannot be taken says why, and is not tried for ever.
    other = rows[plain]
    assert (other["status"] == "failed") == (plain not in backed.listing.by_id())
    if other["status"] == "completed":
        assert other["compression_type"] == "none"
    assert served(backed) == {"taken": [], "expired": None, "errors": []}
    assert ask(backed) != asked


def test_one_that_fails_is_failed_and_not_tried_again(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    asked = ask(backed)
    (error,) = served(backed, bin_directory="/absent")["errors"]
    assert asked in error
    (row,) = history(backed)
    assert (row["status"], row["error_message"] in error) == ("failed", True)
    assert served(backed)["taken"] == []


def test_while_another_backup_is_taken_it_waits(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    backed = Backed.of(make())
    backed.take()
    asked = ask(backed)
    monkeypatch.setattr("pgops.backup.take.PATIENCE", 0.0)
    with backups.alone(str(backed.place)):
        (error,) = served(backed)["errors"]
        assert "Another run is taking or expiring" in error
        assert history(backed)[-1]["status"] == "requested"
    assert served(backed)["taken"] == [asked]


@pytest.mark.every_major
def test_an_expiry_that_is_asked_for_releases_what_was_forecast(make: Callable[..., Host]) -> None:
    backed = Backed.of(make(), retention={"full_days": 0.0, "minimum_full": 1})
    taken = [backed.take()["backup"] for _backup in range(3)]
    assert ask(backed, "cleanup_old_backups()") == "0"  # not known yet
    backed.server.value("UPDATE pgops.expiry SET requested_at = NULL", "pgops")
    assert served(backed) == {"taken": [], "expired": None, "errors": []}
    assert ask(backed, "cleanup_old_backups()") == "2"
    done = served(backed)
    assert (len(done["expired"]["backups"]), done["errors"]) == (2, [])
    assert set(backed.listing.by_id()) == {taken[-1]}
    status = {row["backup_id"]: row["status"] for row in history(backed)}
    assert [status[one] for one in taken] == ["expired", "expired", "completed"]
    # The catalogue agrees: it was us, and so was the WAL.
    assert catalogue.update(backed.configuration())["errors"] == []
    assert served(backed)["expired"] is None
    assert ask(backed, "cleanup_old_backups()") == "0"
    state = backed.server.value(EXPIRY, "pgops")
    assert isinstance(state, dict)
    assert (state["error_message"], state["releasable"]) == (None, 0)


def test_until_when_backups_are_kept_is_told(make: Callable[..., Host]) -> None:
    backed = Backed.of(make(), retention={"full_days": 3.0})
    backed.take()
    served(backed)
    kept = "SELECT retention_until - completed_at = '3 days' FROM pgops.backup_history"
    assert backed.server.value(kept, "pgops") is True


def test_a_standby_that_is_backed_up_takes_it_once(
    make: Callable[..., Host], keep: Callable[[Server], Server]
) -> None:
    host = make(settings={"full_page_writes": "on", "archive_timeout": "1s"})
    host.params = {"timeout": 1}
    backed = Backed.of(host, source="db2/main")
    standby = keep(backed.server.standby()).start()
    asked = ask(backed)
    assert served(backed)["taken"] == []
    last = str(backed.server.value("SELECT pg_current_wal_insert_lsn()"))
    until(lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{last}'"), "replayed")
    there = Backed(Host(standby, backed.host.base, backed.host.prefix), {"source": "db2/main"})
    settings = there.configuration()
    settings = type(settings)(**{**vars(settings), "node": "db2/main"})

    def run() -> dict[str, Any]:
        done: dict[str, Any] = as_user(there.user, lambda: requests.serve(settings, there.layout), LONG)
        return done

    with writing(backed.server):
        done = run()
    assert done["errors"] == []
    assert done["taken"] == [asked]
    assert history(backed)[0]["status"] == "requested"  # a standby cannot write
    assert run()["taken"] == []
    assert catalogue.update(backed.configuration())["errors"] == []
    (row,) = history(backed)
    assert (row["status"], row["node"], row["from_standby"]) == ("completed", "db2/main", True)
    # One that fails there is told as well.
    asked = ask(backed)
    last = str(backed.server.value("SELECT pg_current_wal_insert_lsn()"))
    until(lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{last}'"), "replayed")
    settings = type(settings)(**{**vars(settings), "parts": {"backup": {**settings.parts["backup"], **NO_PROGRAMS}}})
    (error,) = run()["errors"]
    assert catalogue.update(backed.configuration())["errors"] == []
    failed = next(row for row in history(backed) if row["backup_id"] == asked)
    assert (failed["status"], failed["node"]) == ("failed", "db2/main")
    assert failed["error_message"] in error
