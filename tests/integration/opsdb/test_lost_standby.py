# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A lost synchronous standby hangs nothing of ours: neither a deployment nor a job waits for it in COMMIT."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from archives import Host
from deploying import collect, configured, deploy, inspect
from servers import Server

from pgops.metrics import partitions
from pgops.repository import catalogue
from pgops.statements import job as queries

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
EXTENSION = (
    "SET synchronous_commit = local; CREATE EXTENSION pg_stat_statements WITH SCHEMA public; "
    "GRANT USAGE ON SCHEMA public TO pgops"
)
SETTINGS = {"shared_preload_libraries": "pg_stat_statements", "compute_query_id": "on"}


@contextlib.contextmanager
def lost_standby(server: Server) -> Iterator[list[str]]:
    """A server whose commits wait for a standby that does not exist. Whoever waits for one is noted, and let go, so
    that the test ends."""
    waited: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            with contextlib.suppress(psycopg.OperationalError):  # the deployment restarts the server
                if server.value(WAITING):
                    waited.append("somebody waits for the lost standby")
                    _names(server, "")

    _names(server, "*")
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield waited
    finally:
        ended.set()
        watcher.join()
        _names(server, "")


def _names(server: Server, names: str) -> None:
    server.value(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    server.reload()


@pytest.fixture(name="host")
def _host(make: Callable[..., Host]) -> Host:
    host = make(settings=SETTINGS)
    host.server.value("ALTER SYSTEM SET synchronous_commit = on")
    return host


def test_nothing_waits_for_a_lost_standby(host: Host, tmp_path: Path) -> None:
    server, repository = host.server, {"repository": str(host.repository), "superuser": host.server.superuser}
    with lost_standby(server) as waited:
        deploy(server)
        deploy(server, retention_days=7)
        host.apply()
        server.value(
            EXTENSION,
            "pgops",
        )
        assert collect(server, tmp_path)["errors"] == []
        assert inspect(server, tmp_path)["errors"] == []
        assert partitions.maintain(configured(server, tmp_path)[0])["errors"] == []
        for _run in range(2):
            assert queries.collect(*configured(server, tmp_path))["errors"] == []
        host.wait_for(host.switch())
        assert catalogue.update(configured(server, tmp_path, **repository)[0])["errors"] == []
        assert waited == []
