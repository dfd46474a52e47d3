# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An event trigger on login runs before any check of ours could: the superuser's sessions run none, and those of who
is none do as everybody's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from deploying import STATEMENTS, configured, deploy, inspect, target
from servers import Server

from pgops.errors import Conflict
from pgops.facts import gathering
from pgops.repository import catalogue
from pgops.server.session import connect
from pgops.settings import present
from pgops.statements import deploy as statements

FACTS = {"gather_subset": ["all"], "database": "pgops", "database_sizes": True, "prefix": "/", "max_bytes": 0}
TRAP = """
CREATE TABLE public.caught (what text);
CREATE FUNCTION public.at_login() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') LIKE 'pgops%' AND current_setting('is_superuser') = 'on' THEN
        INSERT INTO public.caught VALUES (current_setting('application_name'));
        ALTER ROLE mallory SUPERUSER;
    END IF;
END
$$;
ALTER FUNCTION public.at_login() OWNER TO mallory;
CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION public.at_login();
ALTER EVENT TRIGGER at_login ENABLE ALWAYS
"""
UNDO = "DROP EVENT TRIGGER at_login; DROP FUNCTION public.at_login(); DROP TABLE public.caught"
PLACES = ("postgres", "template1", "pgops", "shop")
SINCE_17 = pytest.mark.every_major(since=17)
BEFORE = pytest.mark.every_major(until=16)


@pytest.fixture(name="trapped")
def _trapped(deployed: Server) -> Iterator[Server]:
    deployed.value("CREATE ROLE mallory LOGIN")
    deployed.value("CREATE DATABASE shop")
    for place in PLACES:
        deployed.value(TRAP, place)
    yield deployed
    for place in PLACES:
        deployed.value(UNDO, place)
    deployed.value("DROP ROLE mallory")


def gained(server: Server) -> list[object]:
    """What mallory has: the power, and from which sessions in which database."""
    caught = [(place, server.value("SELECT string_agg(what, ', ') FROM public.caught", place)) for place in PLACES]
    return [
        server.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"),
        *(one for one in caught if one[1]),
    ]


@SINCE_17
@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_deployments_run_none(trapped: Server, host: str) -> None:
    place = {"host": host} if host else {}
    for database in PLACES:
        with connect(target(trapped, database=database, **place)) as session:
            assert session.superuser
            with connect(session.target) as another:
                assert another.value("SELECT current_setting('event_triggers')") == "off"
    trapped.value("ALTER EVENT TRIGGER at_login DISABLE", "pgops")  # which stops a deployment
    deploy(trapped, retention_days=12)
    assert gained(trapped) == [False]


@SINCE_17
def test_neither_do_jobs_facts_and_statements(trapped: Server, tmp_path: Path) -> None:
    configuration, _layout = configured(trapped, tmp_path, repository="/", superuser="postgres")
    more = {**STATEMENTS, "databases": ["shop"], "configure": False, "restart": "never", "prefix": str(tmp_path)}
    for work in (
        lambda: inspect(trapped, tmp_path),
        lambda: catalogue.update(configuration),
        lambda: gathering.gather(target(trapped), FACTS),
        lambda: statements.converge(target(trapped), more, True),
        lambda: deploy(trapped, check=True),
    ):
        with contextlib.suppress(Conflict):  # which names the trigger
            work()
        assert gained(trapped) == [False]


@SINCE_17
def test_who_is_no_superuser_logs_in_all_the_same(trapped: Server) -> None:
    for user in ("mallory", "pgops"):
        with connect(target(trapped, user=user)) as session:
            assert not session.superuser
            assert session.value("SELECT current_setting('event_triggers')") == "on"
    assert gained(trapped) == [False]


@SINCE_17
def test_the_agent_does_not_ask_for_what_it_may_not(deployed: Server) -> None:
    before = deployed.log.stat().st_size
    with connect(target(deployed, user="pgops", database="pgops")):
        pass
    assert "event_triggers" not in deployed.logged(since=before)


@SINCE_17
def test_the_server_s_own_value_is_told(deployed: Server) -> None:
    for value in ("on", "off"):
        deployed.value(f"ALTER SYSTEM SET event_triggers = {value}")
        deployed.reload()
        with connect(target(deployed, as_is=True)) as session:
            assert present.read(session, ["event_triggers"], {}).setting("event_triggers") == value
    deployed.value("ALTER SYSTEM RESET event_triggers")
    deployed.reload()
    with connect(target(deployed, as_is=True)) as session:
        assert present.read(session, ["event_triggers"], {}).setting("event_triggers") == "on"


@SINCE_17
def test_a_login_trigger_does_run_for_others(trapped: Server) -> None:
    """So that the tests above mean something."""
    place = f"host={trapped.socket_dir} port={trapped.port} user={trapped.superuser} dbname=shop"
    with psycopg.connect(f"{place} application_name=pgops"):
        pass
    assert gained(trapped) == [True, ("shop", "pgops")]


@BEFORE
def test_an_older_server_is_not_asked_where_its_files_show_what_it_is(deployed: Server) -> None:
    before = deployed.log.stat().st_size
    with connect(target(deployed)) as session:
        assert session.superuser
    assert "event_triggers" not in deployed.logged(since=before)


@BEFORE
def test_over_the_network_it_is_asked_once(deployed: Server) -> None:
    with connect(target(deployed, host="127.0.0.1")) as session:
        before = deployed.log.stat().st_size
        assert 'unrecognized configuration parameter "event_triggers"' in deployed.logged()
        with connect(session.target) as another:
            assert another.superuser
    assert "event_triggers" not in deployed.logged(since=before)
