# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roles that are no superusers attack what runs with more rights than theirs: each attack ends in a refusal that
names it, and nothing of theirs has run."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from deploying import configured, deploy, inspect, target
from servers import Server

from pgops.errors import Conflict
from pgops.facts import gathering
from pgops.repository import catalogue

MARK = "Managed by pgops.fleet"
ROLES = ("pgops", "pgops_owner", "pgops_reader", "pgops_operator", "pgops_explain", "pgops_backup")
FACTS = {"gather_subset": ["all"], "database": "pgops", "database_sizes": False, "prefix": "/", "max_bytes": 0}
CAUGHT = "SELECT string_agg(DISTINCT what, ' ') FROM public.caught"


@pytest.fixture(name="bare")
def _bare(undeployed: Server) -> Server:
    return undeployed


@contextlib.contextmanager
def somebody(server: Server, options: str = "CREATEROLE CREATEDB") -> Iterator[str]:
    """A role, which with CREATEROLE may prepare others."""
    server.value(f"CREATE ROLE mallory LOGIN {options}")
    try:
        yield "mallory"
    finally:
        for database in ("pgops", "postgres"):
            with contextlib.suppress(Exception):
                server.psql("DROP OWNED BY mallory CASCADE", database)
        for role in ROLES:
            if server.value(f"SELECT to_regrole('{role}')"):
                with contextlib.suppress(Exception):
                    server.psql(f"REVOKE {role} FROM mallory CASCADE")
        with contextlib.suppress(Exception):
            server.psql("DROP DATABASE IF EXISTS pgops WITH (FORCE)")
        for role in ROLES:
            server.psql(f"DROP ROLE IF EXISTS {role}; DROP ROLE IF EXISTS {role}_former")
        server.psql("DROP ROLE IF EXISTS mallory")


def refused(server: Server, **params: object) -> str:
    """What a run says, and its check; nothing of it was done."""
    seen = "SELECT array_agg(rolname::text || coalesce(rolconfig::text, '') ORDER BY 1) FROM pg_roles"
    before = server.value(seen)
    said = []
    for check in (True, False):
        with pytest.raises(Conflict) as caught:
            deploy(server, check=check, **params)
        said.append(str(caught.value))
    assert server.value(seen) == before
    assert said[0] == said[1]
    return said[0]


def mend(server: Server, said: str, database: str = "postgres") -> None:
    """Run the statements that a refusal has ended with."""
    server.psql(re.split(r"has run: |then run there: |take it over: ", said)[-1], database)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.every_major
def test_a_role_that_somebody_prepared_is_not_adopted(bare: Server, role: str) -> None:
    with somebody(bare) as mallory:
        with bare.connect(user=mallory) as session:
            session.execute(f"CREATE ROLE {role}".encode())
            session.execute(f"COMMENT ON ROLE {role} IS '{MARK}'".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"ALTER ROLE {role} SET lc_messages TO 'C'".encode())
        said = refused(bare, explain=True, backup=True)
        assert f"role {role} exists" in said
        mend(bare, said)
        if bare.major >= 16:
            # Who creates a role is its administrator.
            said = refused(bare, explain=True, backup=True)
            assert f"mallory is a member of {role} with ADMIN OPTION" in said
            mend(bare, said)
        assert deploy(bare, explain=True, backup=True)["changed"]
        assert not deploy(bare, explain=True, backup=True)["changed"]


def test_a_session_that_became_the_role_before_makes_no_difference(bare: Server) -> None:
    """Its memberships end with the role that had them, but the session goes on."""
    with somebody(bare, "SUPERUSER") as mallory, bare.connect(user=mallory) as session:
        session.execute("CREATE ROLE pgops_owner")
        session.execute(f"COMMENT ON ROLE pgops_owner IS '{MARK}'".encode())
        bare.psql("ALTER ROLE mallory NOSUPERUSER; GRANT pgops_owner TO mallory")
        session.execute("SET ROLE pgops_owner")
        bare.psql("REVOKE pgops_owner FROM mallory")
        assert "nothing shows that pgops.fleet created it" in refused(bare)
        session.execute("SELECT current_user")


@pytest.mark.parametrize("role", ["pgops", "pgops_owner", "pgops_explain", "pgops_backup"])
@pytest.mark.every_major
def test_a_member_that_was_added_later_is_refused(bare: Server, role: str) -> None:
    deploy(bare, explain=True, backup=True)
    with somebody(bare, "") as mallory:
        bare.psql(f"GRANT {role} TO {mallory} WITH ADMIN OPTION")
        with bare.connect(user=mallory) as session:
            session.execute("SELECT 1")
        said = refused(bare, explain=True, backup=True)
        assert f"mallory is a member of {role} with ADMIN OPTION" in said
        mend(bare, said)
        assert not deploy(bare, explain=True, backup=True)["changed"]


def test_members_of_the_readers_are_what_it_is_for(bare: Server) -> None:
    deploy(bare)
    with somebody(bare, "") as mallory:
        bare.psql(f"GRANT pgops_reader TO {mallory}")
        assert not deploy(bare)["changed"]
        bare.psql(f"GRANT pgops_reader TO {mallory} WITH ADMIN OPTION")
        assert "member of pgops_reader with ADMIN OPTION" in refused(bare)


def test_a_superuser_may_be_a_member_of_anything(bare: Server) -> None:
    deploy(bare)
    with somebody(bare, "SUPERUSER") as mallory:
        bare.psql(f"GRANT pgops_owner, pgops TO {mallory}")
        assert not deploy(bare)["changed"]


def test_roles_of_a_former_version_are_known_by_the_agents(bare: Server) -> None:
    """Of which alone a superuser had set something."""
    deploy(bare)
    bare.psql("ALTER ROLE pgops_owner RESET ALL; ALTER ROLE pgops_reader RESET ALL")
    assert deploy(bare)["changes"] == ["update role pgops_owner", "update role pgops_reader"]
    assert not deploy(bare)["changed"]


def test_after_a_removal_an_agents_role_that_somebody_prepared_is_not_adopted(bare: Server) -> None:
    deploy(bare)
    deploy(bare, state="absent")
    with somebody(bare) as mallory:
        with bare.connect(user=mallory) as session:
            session.execute("CREATE ROLE pgops LOGIN")
            session.execute(f"COMMENT ON ROLE pgops IS '{MARK}'".encode())
        assert "role pgops exists" in refused(bare)


# --- code of others in the ops database


PLANTED = {
    "trigger snap on pgops.setting": (
        "CREATE TRIGGER snap AFTER INSERT OR UPDATE ON pgops.setting FOR EACH ROW EXECUTE FUNCTION pgops_trap.snap()"
    ),
    "trigger snap on pgops.generation": (
        "CREATE CONSTRAINT TRIGGER snap AFTER INSERT OR UPDATE ON pgops.generation DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION pgops_trap.snap()"
    ),
    "rule snap on pgops.setting": (
        "CREATE RULE snap AS ON UPDATE TO pgops.setting DO ALSO SELECT pgops_trap.act(new.name)"
    ),
    "policy snap on pgops.setting": (
        "ALTER TABLE pgops.setting ENABLE ROW LEVEL SECURITY; ALTER TABLE pgops.setting FORCE ROW LEVEL SECURITY; "
        "CREATE POLICY snap ON pgops.setting USING (pgops_trap.act(name))"
    ),
    "view pgops.migration in place of a table": (
        "ALTER TABLE pgops.migration RENAME TO former; "
        "CREATE VIEW pgops.migration AS SELECT * FROM pgops.former WHERE pgops_trap.act(name)"
    ),
    "constraint snap on table pgops.setting": (
        "ALTER TABLE pgops.setting ADD CONSTRAINT snap CHECK (pgops_trap.act(value))"
    ),
    "default value for column extra of table pgops.setting": (
        "ALTER TABLE pgops.setting ADD COLUMN extra boolean DEFAULT pgops_trap.act('')"
    ),
    "index pgops.snap": "CREATE INDEX snap ON pgops.setting (pgops_trap.act(value))",
    "table pgops.setting, which calls type pgops_trap.worded": (
        "CREATE DOMAIN pgops_trap.worded AS text CHECK (pgops_trap.act(value)); "
        "ALTER TABLE pgops.setting ADD COLUMN word pgops_trap.worded"
    ),
    "table pgops.setting, which calls type pgops_trap.pair": (
        "CREATE DOMAIN pgops_trap.worded AS text CHECK (pgops_trap.act(value)); "
        "CREATE TYPE pgops_trap.pair AS (word pgops_trap.worded); "
        "ALTER TABLE pgops.setting ADD COLUMN pair pgops_trap.pair"
    ),
    "table pgops_trap.heir, which inherits from pgops.setting": (
        "CREATE TABLE pgops_trap.heir () INHERITS (pgops.setting)"
    ),
}
AS_OWNER = (
    "SET ROLE pgops_owner; CREATE SCHEMA pgops_trap; "
    "CREATE FUNCTION pgops_trap.snap() RETURNS trigger LANGUAGE plpgsql AS "
    "$$BEGIN RESET ROLE; INSERT INTO public.caught VALUES (current_user); RETURN NULL; END$$; "
    "CREATE FUNCTION pgops_trap.go() RETURNS void LANGUAGE plpgsql AS "
    "$$BEGIN IF current_setting('application_name') LIKE 'pgops%' THEN RESET ROLE; "
    "INSERT INTO public.caught VALUES (current_user); END IF; END$$; "
    "CREATE FUNCTION pgops_trap.act(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS "
    "$$BEGIN PERFORM pgops_trap.go(); RETURN true; END$$; "
)


@pytest.fixture(name="planting")
def _planting(deployed: Server) -> Iterator[Callable[[str], None]]:
    """Who plants something in our schema as its owner does, and is not seen in it any more."""
    deployed.value("CREATE TABLE public.caught (what text)", "pgops")
    with deployed.connect("pgops") as session:

        def plant(statements: str) -> None:
            session.execute((AS_OWNER + statements).encode())
            session.execute("RESET ROLE")
            session.execute("DELETE FROM public.caught")

        yield plant


@pytest.mark.parametrize("what", PLANTED)
def test_what_somebody_planted_stops_every_session_before_it_runs(
    deployed: Server, planting: Callable[[str], None], what: str, tmp_path: Path
) -> None:
    planting(PLANTED[what])
    deployed.value("DELETE FROM public.caught", "pgops")
    said = refused(deployed, retention_days=12)
    assert what in said
    for job in (
        lambda: inspect(deployed, tmp_path),
        lambda: catalogue.update(configured(deployed, tmp_path, repository="/", superuser="postgres")[0]),
    ):
        with pytest.raises(Conflict, match=re.escape(what)):
            job()
    (found,) = gathering.gather(target(deployed), FACTS)["ansible_facts"]["pg_ops"]["instances"]
    if os.geteuid() == 0:
        assert found["schema"]["error"]["code"] == "conflict"
    assert deployed.value("SELECT count(*) FROM public.caught", "pgops") == 0


def test_a_function_that_somebody_replaced_gains_nothing_from_an_inspection(
    deployed: Server, planting: Callable[[str], None], tmp_path: Path
) -> None:
    planting(
        "ALTER FUNCTION pgops.register_node(text, text, text, boolean, text) RENAME TO former; "
        "CREATE FUNCTION pgops.register_node(text, text, text, boolean, text) RETURNS integer LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM pgops_trap.go(); RETURN 1; END$$; "
        "GRANT EXECUTE ON FUNCTION pgops.register_node(text, text, text, boolean, text) TO pgops; "
        "GRANT USAGE ON SCHEMA pgops_trap TO pgops"
    )
    assert inspect(deployed, tmp_path)["sink"] != "local"
    assert deployed.value("SELECT count(*) FROM public.caught", "pgops") == 0


def test_what_is_refused_is_mended_by_the_statements_told(deployed: Server, planting: Callable[[str], None]) -> None:
    for what in (
        "trigger snap on pgops.setting",
        "rule snap on pgops.setting",
        "constraint snap on table pgops.setting",
    ):
        deployed.value("DROP SCHEMA IF EXISTS pgops_trap CASCADE", "pgops")
        planting(PLANTED[what])
        mend(deployed, refused(deployed), "pgops")
        assert "code of others" not in str(deploy(deployed))


def test_functions_of_others_in_our_schema_stop_the_run(deployed: Server) -> None:
    """One whose arguments fit better would be called in place of ours."""
    with somebody_in(deployed) as mallory:
        deployed.value(f"GRANT CREATE, USAGE ON SCHEMA pgops TO {mallory}", "pgops")
        with deployed.connect("pgops") as session:
            session.execute("SET ROLE mallory")
            session.execute("CREATE FUNCTION pgops.renew_shapes(text) RETURNS void LANGUAGE sql AS ''")
        said = refused(deployed)
        assert "function pgops.renew_shapes(text), which belongs to mallory" in said
        mend(deployed, said, "pgops")
        deploy(deployed)


def test_event_triggers_of_others_stop_the_run(deployed: Server) -> None:
    with somebody_in(deployed) as mallory:
        deployed.value(
            "CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
            f"ALTER FUNCTION public.on_ddl() OWNER TO {mallory}; "
            "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.on_ddl()",
            "pgops",
        )
        said = refused(deployed)
        assert "event trigger watch, which calls public.on_ddl() of mallory" in said
        mend(deployed, said, "pgops")
        assert not deploy(deployed)["changed"]
        deployed.value("ALTER FUNCTION public.on_ddl() OWNER TO postgres", "pgops")
        deployed.value("ALTER EVENT TRIGGER watch ENABLE", "pgops")
        assert not deploy(deployed)["changed"]


@contextlib.contextmanager
def somebody_in(server: Server) -> Iterator[str]:
    """A role without rights, while there is an ops database that stays."""
    server.value("CREATE ROLE mallory")
    try:
        yield "mallory"
    finally:
        server.value("DROP OWNED BY mallory CASCADE", "pgops")
        server.value("DROP ROLE mallory")
