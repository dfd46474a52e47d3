# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Defaults that end a session before it can set anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from deploying import collect, configured, deploy, inspect, target
from servers import Server

from pgops.facts import gathering
from pgops.metrics import partitions
from pgops.server.session import connect
from pgops.settings import present

FACTS = {"gather_subset": ["all"], "database": "pgops", "database_sizes": True, "prefix": "/", "max_bytes": 0}
BRIEF = (
    *("idle_in_transaction_session_timeout", "idle_session_timeout", "lock_timeout", "statement_timeout"),
    "transaction_timeout",
)


def brief(server: Server, whose: str) -> None:
    """Defaults of a millisecond for all that ends statements and sessions."""
    with server.connect() as session:
        for name in BRIEF if server.major >= 17 else BRIEF[:-1]:
            session.execute(f"ALTER {whose} SET {name} TO '1ms'".encode())


@pytest.mark.every_major
@pytest.mark.parametrize("whose", ["ROLE pgops", "DATABASE pgops", "ROLE pgops IN DATABASE pgops"])
def test_defaults_that_end_sessions_at_once_end_none_of_the_agents(
    deployed: Server, tmp_path: Path, whose: str
) -> None:
    brief(deployed, whose)
    configuration, _layout = configured(deployed, tmp_path)
    for _again in range(3):
        outcome = collect(deployed, tmp_path)
        assert (outcome["errors"], outcome["sink"]) == ([], "local")
        assert partitions.maintain(configuration)["errors"] == []


@pytest.mark.every_major
def test_defaults_that_end_sessions_at_once_end_none_of_a_superusers(undeployed: Server, tmp_path: Path) -> None:
    undeployed.value("CREATE ROLE dba LOGIN SUPERUSER")
    try:
        brief(undeployed, "ROLE dba")
        server = replace(undeployed, superuser="dba")
        deploy(server)
        assert not deploy(server)["changed"]
        assert inspect(server, tmp_path)["errors"] == []
        (facts,) = gathering.gather(target(server), FACTS)["ansible_facts"]["pg_ops"]["instances"]
        assert [facts[name]["error"] for name in ("server", "settings", "databases", "schema")] == [None] * 4
        with connect(target(server, as_is=True)) as session:
            found = present.read(session, ["transaction_timeout", "idle_session_timeout"], {})
        assert found.setting("idle_session_timeout") == "0"
    finally:
        undeployed.value("DROP OWNED BY dba")
        undeployed.value("DROP ROLE dba")
