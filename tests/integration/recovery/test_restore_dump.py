# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One database is restored from a dump by a command: whole, or not at all."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from archives import Host
from backed import LONG, Backed, flip, own
from dumping import DEBIAN, ODD, SHOP, archiving, commands, content, create, forked, held
from psycopg import sql
from servers import Server
from waiting import until

from pgops import cli
from pgops.agent import runner
from pgops.host.identity import as_user
from pgops.repository import backups

SCRATCH = "SELECT count(*) FROM pg_database WHERE datname LIKE 'pgops\\_restoring\\_%'"
BUSY = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pgops\\_restoring\\_%' AND query LIKE 'CREATE INDEX%'"
)
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pgops\\_restoring\\_%'"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'pgops\\_restoring\\_%'"
ELSEWHERE = """
CREATE TABLE item AS SELECT 1 AS n;
CREATE FUNCTION f(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF current_database() <> 'shop' THEN {}; END IF;
    RETURN n;
END$$;
CREATE INDEX ON item (f(n));
"""
"""A database that cannot be restored under another name."""


def tools(server: Server) -> str:
    """The programs of a server's own version."""
    found = str(server.client_dir) if server.tooled else {15: DEBIAN}.get(server.major, "")
    if not os.access(f"{found}/pg_restore", os.X_OK):
        pytest.skip(f"this machine has no pg_restore of PostgreSQL {server.major}")
    return found


def dumped(host: Host, *names: str, **options: Any) -> Backed:
    """A server with databases that are declared."""
    return archiving(host, dumps={"databases": list(names)}, bin_directory=tools(host.server), **options)


def where(backed: Backed) -> list[str]:
    """The server, for a command that knows no agent."""
    server = backed.server
    return [
        *("--repository", str(backed.host.repository), "--bin-directory", tools(server)),
        *("--port", str(server.port), "--socket-directory", str(server.socket_dir)),
        *("--superuser", server.superuser),
    ]


def run(backed: Backed, *words: str) -> tuple[int, str]:
    """The exit code and the output of pgops, as the server's user."""

    def called() -> list[Any]:
        text = io.StringIO()
        sys.stdout = sys.stderr = text
        return [cli.main(list(words)), text.getvalue()]

    code, output = as_user(backed.user, called, LONG)
    return int(code), str(output)


def restore(backed: Backed, *words: str) -> tuple[int, str]:
    return run(backed, "restore-dump", *where(backed), *words)


def about(server: Server, name: str) -> Any:
    """What a database is, apart from what is in it."""
    with server.connect() as session:
        query = (
            "SELECT pg_get_userbyid(datdba)::text, pg_encoding_to_char(encoding)::text, datcollate::text, "
            "datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        )
        return session.execute(query, [name]).fetchone()


@pytest.mark.every_major
def test_a_database_comes_back_under_another_name(make: Callable[..., Host]) -> None:
    """With its owners and rights, whatever its superuser has by default; and nothing is changed by a plan."""
    backed = dumped(make(), ODD)
    server = backed.server
    server.psql('CREATE ROLE "the clerk"; CREATE ROLE reader')
    create(server, ODD, "OWNER \"the clerk\" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    server.psql(SHOP + 'ALTER TABLE bag OWNER TO "the clerk"; GRANT SELECT ON item TO reader', ODD)
    before = content(server, ODD)
    assert backed.dump()["errors"] == []
    with server.connect() as session:
        for one in ("default_transaction_read_only = on", "statement_timeout = '1ms'", "role = reader"):
            session.execute(sql.SQL("ALTER ROLE {} SET " + one).format(sql.Identifier(server.superuser)))
    code, said = restore(backed, "--database", ODD, "--to", "copy", "--plan")
    with server.connect() as session:
        session.execute("SET default_transaction_read_only = off; SET role = none")
        session.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(server.superuser)))
    assert (code, said.endswith("Nothing was changed.\n")) == (runner.DONE, True), said
    assert about(server, "copy") is None
    code, said = restore(backed, "--database", ODD, "--to", "copy", "--jobs", "2")
    assert code == runner.DONE, said
    assert "vacuumdb" in said
    assert content(server, "copy") == before
    assert about(server, "copy") == about(server, ODD) == ("the clerk", "UTF8", "C", -1, None)
    assert server.value("SELECT count(*) FROM pg_largeobject_metadata", "copy") == 2
    code, said = restore(backed, "--database", ODD, "--to", "copy")
    assert (code, "There is a database copy already" in said) == (runner.FAILED, True)
    create(server, "empty", "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    code, said = restore(backed, "--database", ODD, "--into", "empty", "--json")
    assert code == runner.DONE, said
    told = json.loads(said.splitlines()[-1])
    assert (told["name"], told["existing"], told["dump"]["database"]) == ("empty", True, ODD)
    assert content(server, "empty") == before
    code, said = restore(backed, "--database", ODD, "--into", "empty")
    assert (code, "is not empty: it has" in said) == (runner.FAILED, True)
    assert server.value(SCRATCH) == 0


def test_the_runbook_needs_the_agents_configuration_alone(make: Callable[..., Host]) -> None:
    backed = dumped(make(), "shop", "other")
    create(backed.server, "shop")
    backed.server.psql("CREATE TABLE item AS SELECT 1 AS n", "shop")
    backed.dump("shop")
    path = Path(backed.layout.agent_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(replace(backed.configuration(), superuser=backed.server.superuser).text())
    own(path.parent, backed.server)
    plan, real, _analyze = commands("One database from a dump")
    for step in (plan, real):
        assert step[0] == "pgops"
        programs = ("--bin-directory", str(backed.server.client_dir))
        code, said = run(backed, "--prefix", str(backed.host.prefix), *step[1:], *programs)
        assert code == runner.DONE, said
    assert backed.server.value("SELECT n FROM item", "shop_restored") == 1


def test_what_the_server_lacks_is_told_before_anything_is_made(make: Callable[..., Host], root: Path) -> None:
    backed = dumped(make(), "shop")
    server = backed.server
    create(server, "shop")
    space = root / "prefix" / "space"
    space.mkdir()
    own(space, server)
    server.psql("CREATE ROLE clerk; CREATE ROLE reader; CREATE ROLE other")
    server.value(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.psql(
        "CREATE TABLE item (n integer) TABLESPACE fast; ALTER TABLE item OWNER TO clerk; "
        "GRANT SELECT ON item TO reader; INSERT INTO item VALUES (7)",
        "shop",
    )
    backed.dump()
    server.value("DROP DATABASE shop")
    for gone in ("TABLESPACE fast", "ROLE clerk", "ROLE reader", "ROLE other"):
        server.value(f"DROP {gone}")
    code, said = restore(backed, "--database", "shop", "--to", "copy", "--plan")
    assert (code, "The server has no roles clerk, reader, to whom" in said) == (runner.FAILED, True), said
    assert "CREATE ROLE clerk; CREATE ROLE reader; Their" in said
    code, said = restore(backed, "--database", "shop", "--to", "copy", "--no-owners")
    assert (code, "The server has no tablespace fast." in said) == (runner.FAILED, True), said
    assert (about(server, "copy"), server.value(SCRATCH)) == (None, 0)
    code, said = restore(backed, "--database", "shop", "--to", "copy", "--no-owners", "--no-tablespaces")
    assert code == runner.DONE, said
    owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'item' AND relacl IS NULL"
    assert (server.value("SELECT n FROM item", "copy"), server.value(owner, "copy")) == (7, server.superuser)
    server.psql("CREATE ROLE clerk; CREATE ROLE reader")
    code, said = restore(backed, "--database", "shop", "--to", "shop", "--no-tablespaces")
    assert code == runner.DONE, said
    assert server.value("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'item'", "shop") == "clerk"


def test_what_cannot_be_restored_is_told_before_anything_is_made(make: Callable[..., Host]) -> None:
    """A dump that is damaged, too large, of a newer version, or not there; and programs of another version."""
    backed = dumped(make(), "shop")
    create(backed.server, "shop")
    backed.server.psql("CREATE TABLE item AS SELECT n FROM generate_series(1, 1000) AS n", "shop")
    (done,) = backed.dump()["dumped"]
    path = Path(done["path"])
    made = held(backed, "shop").dumps[0].dump
    to = ("--database", "shop", "--to", "copy")
    manifest = path / backups.MANIFEST
    for changed, words in (
        (replace(made, data_bytes=10**15), "MB are free"),
        (replace(made, server_version="99.1"), "Restore it into PostgreSQL 99 or newer"),
    ):
        manifest.write_text(changed.text())
        code, said = restore(backed, *to)
        assert (code, words in said) == (runner.FAILED, True), said
    manifest.write_text(made.text())
    for words, told in (
        (("--database", "shop", "--to", "copy", "--dump", "never"), f"There are {path.name}."),
        (("--database", "other", "--to", "copy"), "There are dumps of: shop."),
        (("--database", "shop", "--to", "x" * 64), "cannot be the name"),
        (("--database", "shop", "--to", "pgops_restoring_1"), "cannot be the name"),
        (("--database", "shop", "--into", "never"), "There is no database never."),
        (("--database", "shop", "--into", "template1"), "is a template"),
        (
            (*to, "--bin-directory", "/nowhere"),
            f"There is no pg_restore of PostgreSQL {backed.server.major} in /nowhere.",
        ),
    ):
        code, said = restore(backed, *words)
        assert (code, told in said) == (runner.FAILED, True), said
    if os.access(f"{DEBIAN}/pg_restore", os.X_OK):
        code, said = restore(backed, *to, "--bin-directory", DEBIAN)
        assert (code, "pg_restore is of PostgreSQL 15" in said) == (runner.FAILED, True), said
    flip(next((path / "data").glob("[0-9]*.dat*")))
    code, said = restore(backed, *to)
    assert (code, "is damaged" in said) == (runner.FAILED, True), said
    assert (about(backed.server, "copy"), backed.server.value(SCRATCH)) == (None, 0)
    for words in (to[:2], (*to, "--into", "other"), (*to[2:],), (*to, "--jobs", "0"), (*to, "--port", "many")):
        assert restore(backed, *words)[0] == runner.USAGE


def test_what_fails_leaves_nothing_or_tells_what(make: Callable[..., Host]) -> None:
    backed = dumped(make(), "shop")
    server = backed.server
    create(server, "shop")
    server.psql(ELSEWHERE.format("RAISE EXCEPTION 'never here'"), "shop")
    assert backed.dump()["errors"] == []
    code, said = restore(backed, "--database", "shop", "--to", "copy", "--jobs", "2")
    assert (code, "The restore failed in phase restore: pg_restore failed: " in said) == (runner.FAILED, True), said
    assert "never here" in said
    assert (about(server, "copy"), server.value(SCRATCH)) == (None, 0)
    create(server, "empty")
    code, said = restore(backed, "--database", "shop", "--into", "empty")
    assert (code, "Database empty is partly filled: drop it" in said) == (runner.FAILED, True), said


def test_what_was_killed_never_has_the_name_and_is_told(make: Callable[..., Host]) -> None:
    backed = dumped(make(), "shop")
    server = backed.server
    create(server, "shop")
    server.psql(ELSEWHERE.format("PERFORM pg_sleep(600)"), "shop")
    assert backed.dump()["errors"] == []

    def alone() -> None:
        os.setgid(65534) if os.geteuid() == 0 else None
        os.setuid(backed.user)
        os.close(1)
        cli.main(["restore-dump", *where(backed), "--database", "shop", "--to", "copy"])

    child = forked(alone)
    until(lambda: server.value(BUSY), "creating the index")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    plan = ("--database", "shop", "--to", "copy", "--plan")
    # Its program goes on: that is not left.
    assert "was killed" not in restore(backed, *plan)[1]
    server.value("CREATE ROLE guest LOGIN")
    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        server.connect(str(server.value(SCRATCH.replace("count(*)", "datname"))), user="guest")
    until(lambda: server.value(END) is None and server.value(OPEN) == 0, "ended")
    code, said = restore(backed, *plan)
    assert code == runner.DONE, said
    # Nor does anybody take it for a database of users.
    everything = {"databases": "all", "exclude": ["shop", "pgops", "postgres"]}
    assert backed.dump(**everything)["dumped"] == []
    found = re.search(r"was left by a restore that was killed. To remove it: (DROP DATABASE pgops_\w+ .*)", said)
    assert found, said
    assert about(server, "copy") is None
    server.value(found[1])
    assert "was killed" not in restore(backed, *plan)[1]
    assert server.value(SCRATCH) == 0


def test_a_locale_of_another_provider_comes_back(make: Callable[..., Host]) -> None:
    backed = dumped(make(), "shop")
    options = "TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
    create(backed.server, "shop", options)
    backed.dump()
    code, said = restore(backed, "--database", "shop", "--to", "copy")
    assert code == runner.DONE, said
    query = "SELECT DISTINCT datlocprovider::text || datlocale FROM pg_database WHERE datname IN ('shop', 'copy')"
    assert backed.server.value(query) == "bC.UTF-8"
