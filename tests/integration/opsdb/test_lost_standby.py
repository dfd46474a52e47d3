# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A lost synchronous standby hangs nothing of ours: neither a deployment nor a job waits for it in COMMIT."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from archives import Host
from deploying import STATEMENTS, collect, configured, deploy, inspect, target
from servers import Server

from pgops.facts import gathering
from pgops.metrics import partitions
from pgops.repository import catalogue
from pgops.settings import deploy as settings
from pgops.statements import deploy as statements
from pgops.statements import explain
from pgops.statements import job as queries

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
EXTENSION = (
    "SET synchronous_commit = local; CREATE EXTENSION pg_stat_statements WITH SCHEMA public; "
    "GRANT USAGE ON SCHEMA public TO pgops"
)
WORK_MEM: dict[str, Any] = {
    "state": "present",
    "settings": {"work_mem": "5MB"},
    "lists": "merge",
    "restart": "never",
    "instance": "main",
    "after_primary": False,
}
FACTS = {"gather_subset": ["all"], "database": "pgops", "database_sizes": False, "prefix": "/", "max_bytes": 0}
SLOW = {"database_name": "postgres", "user_name": "buyer", "queryid": 1}
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


def test_neither_does_what_is_read_planned_and_removed(host: Host, tmp_path: Path) -> None:
    server = host.server
    server.psql("CREATE ROLE buyer")
    with lost_standby(server) as waited:
        deploy(server, explain=True)
        more = {**STATEMENTS, "prefix": str(host.prefix), "databases": ["postgres"], "restart": "never"}
        assert statements.converge(target(server), more, False)["changed"]
        configuration, layout = configured(server, tmp_path, explain=True, slow_query_ms=0.0)
        for _run in range(2):
            assert queries.collect(configuration, layout)["errors"] == []
        planned = explain.planned(configuration, {**SLOW, "query": "SELECT pg_catalog.pg_sleep(0)"})
        assert planned[1] is None
        (facts,) = gathering.gather(target(server), FACTS)["ansible_facts"]["pg_ops"]["instances"]
        assert facts["schema"]["error"] is None
        assert settings.converge(target(server), {**WORK_MEM, "prefix": str(host.prefix)}, False)["changed"]
        assert statements.converge(target(server), {**more, "state": "absent"}, False)["changed"]
        assert deploy(server, state="absent", purge=True)["changed"]
        assert waited == []
