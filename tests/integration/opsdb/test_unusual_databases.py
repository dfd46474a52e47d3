# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers and databases that lack what others have, and what others built on ours: named in the plan, never met in
the middle of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from deploying import SOURCES, deploy
from servers import Server

from pgops.errors import Conflict
from pgops.server.session import connect
from pgops.server.target import Target

FORMER = """-- object: function pgops.former()
CREATE OR REPLACE FUNCTION pgops.former() RETURNS integer LANGUAGE sql AS 'SELECT 1';
"""


def refused(server: Server, words: str, **params: object) -> None:
    """A run and its check say it, and have changed nothing."""
    for check in (True, False):
        with pytest.raises(Conflict, match=words):
            deploy(server, check=check, **params)


@pytest.mark.every_major
def test_a_server_without_the_database_postgres(major: int, new_server: Callable[..., Server]) -> None:
    server = new_server(major).start()
    server.value("DROP DATABASE postgres", "template1")
    place = Target(host=str(server.socket_dir), port=str(server.port), user=server.superuser)
    with connect(place) as session:
        assert session.database == "template1"
    assert deploy(server, check=True) == deploy(server)
    assert not deploy(server)["changed"]
    assert deploy(server, state="absent", purge=True)["changed"]


def test_a_server_without_template0_is_told_before_a_role_is_made(
    major: int, new_server: Callable[..., Server]
) -> None:
    server = new_server(major).start()
    server.value("ALTER DATABASE template0 IS_TEMPLATE false")
    server.value("DROP DATABASE template0")
    refused(server, "no database template0")
    assert server.value("SELECT count(*) FROM pg_roles WHERE rolname ~ '^pgops'") == 0
    server.value("CREATE DATABASE template0 TEMPLATE template1 IS_TEMPLATE true ALLOW_CONNECTIONS false")
    assert deploy(server)["changed"]


def test_an_ops_database_without_the_language_of_its_functions(undeployed: Server) -> None:
    deploy(undeployed)
    undeployed.psql("DROP SCHEMA pgops CASCADE", "pgops")
    undeployed.psql("DROP EXTENSION plpgsql", "pgops")
    refused(undeployed, "Run in pgops: CREATE EXTENSION plpgsql")
    undeployed.psql("CREATE EXTENSION plpgsql", "pgops")
    assert deploy(undeployed)["changed"]


def test_an_ops_database_without_the_schema_public(undeployed: Server) -> None:
    deploy(undeployed)
    undeployed.psql("DROP SCHEMA public; GRANT USAGE ON SCHEMA pgops TO PUBLIC", "pgops")
    assert deploy(undeployed, check=True) == deploy(undeployed)
    assert not deploy(undeployed)["changed"]


def test_what_is_no_longer_shipped_stays_while_others_use_it(deployed: Server) -> None:
    deploy(deployed, sources={**SOURCES, "sql/objects/read/former.sql": FORMER})
    deployed.psql("CREATE VIEW public.mine AS SELECT pgops.former() AS one", "pgops")
    for check in (True, False, False):
        left = deploy(deployed, check=check)
        assert not left["changed"]
        assert "function pgops.former() is no longer part of the schema, but stays: view public.mine" in str(
            left["warnings"]
        )
    deployed.psql("DROP VIEW public.mine", "pgops")
    assert deploy(deployed)["changes"] == ["remove function pgops.former()"]
    assert not deploy(deployed)["changed"]


def test_rights_where_nobody_can_log_in_are_named_before_a_removal(undeployed: Server, database: str) -> None:
    deploy(undeployed)
    undeployed.psql("CREATE TABLE public.theirs (); GRANT SELECT ON public.theirs TO pgops", database)
    undeployed.psql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    refused(undeployed, f"take no connections: {database}", state="absent")
    assert undeployed.value("SELECT count(*) FROM pg_roles WHERE rolname = 'pgops'") == 1
    undeployed.psql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    assert deploy(undeployed, state="absent")["changed"]


def test_event_triggers_of_others_are_named_before_a_removal(undeployed: Server, database: str) -> None:
    deploy(undeployed)
    undeployed.psql(
        "CREATE TABLE public.theirs (); GRANT SELECT ON public.theirs TO pgops; "
        "CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
        "ALTER FUNCTION public.on_ddl() OWNER TO pgops_reader; "
        "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.on_ddl()",
        database,
    )
    refused(undeployed, "event trigger watch, which calls public.on_ddl", state="absent")
    undeployed.psql("DROP EVENT TRIGGER watch", database)
    assert deploy(undeployed, state="absent")["changed"]
