# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases of real servers are dumped: whole, of any name, and whatever they have by default."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import disks
import pytest
from archives import Host
from backed import LONG, Backed, flip, own, put_back
from dumping import DEBIAN, ODD, SHOP, archiving, commands, content, create, forked, held
from psycopg import sql
from servers import Server
from waiting import until

from pgops.backup import clients, dumper, work
from pgops.errors import Conflict, HostFailed, InvalidInput
from pgops.host.identity import as_user
from pgops.repository import catalogue
from pgops.repository.dumps import Dumped

BYTES = b"caf\xe9\xff"
HOSTILE = (
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "idle_session_timeout = '1ms'",
    "default_transaction_read_only = on",
    "default_transaction_isolation = serializable",
    "search_path = public",
    "role = nobody",
    "row_security = on",
    "client_encoding = LATIN1",
    "lc_monetary = 'C'",
    "DateStyle = 'SQL, DMY'",
    "quote_all_identifiers = on",
)
LOGIN = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') LIKE 'pgops dump%' THEN RAISE EXCEPTION 'not you'; END IF;
END$$;
CREATE EVENT TRIGGER door ON login EXECUTE FUNCTION refuse();
"""


def files_of(dumped: Dumped) -> list[Path]:
    """What lies beside dumps and in them, apart from what is no longer needed once one is complete."""
    return [path for path in Path(dumped.place).rglob("*") if path.is_file() and path.name != "lock"]


def history(backed: Backed, what: str = "status, database_name, backup_method") -> list[Any]:
    with backed.server.connect("pgops") as session:
        query = f"SELECT {what} FROM pgops.backup_history WHERE database_name IS NOT NULL ORDER BY started_at"
        return session.execute(query.encode()).fetchall()


@pytest.mark.every_major
def test_a_database_comes_back_as_the_runbook_says(make: Callable[..., Host]) -> None:
    """Whatever it and its roles have by default, and code of others is not run."""
    backed = archiving(make())
    server = backed.server
    create(server, ODD, "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    server.psql("CREATE ROLE nobody; CREATE ROLE clerk LOGIN PASSWORD 'secret'")
    server.psql(SHOP + (LOGIN if server.major >= 17 else ""), ODD)
    before = content(server, ODD)
    defaults = [*HOSTILE, *(["transaction_timeout = '1ms'"] if server.major >= 17 else [])]
    with server.connect() as session:
        for one in defaults:
            session.execute(sql.SQL("ALTER DATABASE {} SET " + one).format(sql.Identifier(ODD)))
    with server.connect() as session:
        for one in HOSTILE:
            session.execute(sql.SQL("ALTER ROLE {} SET " + one).format(sql.Identifier(server.superuser)))
        first = backed.dump(databases=[ODD])
        session.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(server.superuser)))
    assert first["errors"] == []
    # The globals that are restored below are those of now.
    done = backed.dump(databases=[ODD], jobs=2, interval_hours=0)
    assert (done["errors"], done["warnings"], [one["database"] for one in done["dumped"]]) == ([], [], [ODD])
    stored = held(backed, ODD).newest
    assert stored
    made = stored.dump
    assert (made.shown, made.encoding, made.cluster, made.node) == (ODD, "UTF8", "shop", "db1/main")
    assert made.server_version.startswith(f"{server.major}.")
    assert made.versions["pg_dump"] == clients.version(str(server.client("pg_dump")))
    assert set(made.versions) == {"pg_dump", "pg_dumpall"}
    assert made.completed_at > made.started_at
    assert (made.locale["collate"], made.from_standby, made.entries > 20) == ("C", False, True)
    path = Path(held(backed, ODD).place, stored.name)
    assert "SCRAM-SHA-256" in (path / "globals.sql").read_text()
    assert stat.S_IMODE((path / "globals.sql").stat().st_mode) == 0o600
    assert stat.S_IMODE((path / "data").stat().st_mode) == 0o700
    _follow_the_runbook(backed, path)
    assert content(server, "shop_restored") == before
    assert server.value("SELECT count(*) FROM pg_largeobject_metadata", "shop_restored") == 2


def _follow_the_runbook(backed: Backed, path: Path) -> None:
    server = backed.server
    steps = commands("A dump by PostgreSQL's own programs")
    assert [step[0] for step in steps] == ["cd", "sha256sum", "sudo", "sudo", "sudo"]
    login = ("-h", str(server.socket_dir), "-p", str(server.port), "-U", server.superuser)
    for step in steps[1:]:
        words = ["C" if word == "C.UTF-8" else word for word in step]
        if words[0] == "sha256sum":
            assert server.run("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(path), *words) == ""
            continue
        assert words[:3] == ["sudo", "-u", "postgres"]
        del words[:3]
        lock = words[: words.index("lock") + 1] if words[0] == "flock" else []
        name, *given = words[len(lock) :]
        program = [*lock, str(server.client(name)), *login, *given]
        if name == "pg_restore" and server.major < 17:
            # The programs of tests are of 18: on older servers they miss one parameter, and no more than that.
            program.remove("--exit-on-error")
            program = ["sh", "-c", '"$@" 2>&1 | grep -v transaction_timeout', "sh", *program]
            said = server.run("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(path), *program)
            assert said.partition("pg_restore: warning: errors ignored on restore: ")[0] == ""
            continue
        server.run("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(path), *program)


@pytest.mark.every_major(until=15)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_older_programs_compress_as_well(make: Callable[..., Host], compression: str) -> None:
    if not os.access(f"{DEBIAN}/pg_dump", os.X_OK):
        pytest.skip(f"{DEBIAN} has no pg_dump")
    backed = archiving(make(), dumps={"databases": ["shop"], "compression": compression}, bin_directory=DEBIAN)
    create(backed.server, "shop")
    backed.server.psql(SHOP, "shop")
    (done,) = backed.dump()["dumped"]
    endings = {path.suffix for path in Path(done["path"], "data").glob("[0-9]*.dat*")}
    assert endings == {".dat" if compression == "none" else ".gz"}
    assert work.dump_verify.verify(backed.configuration())["verified"] == 1


def test_databases_of_all_kinds(make: Callable[..., Host]) -> None:
    """What is not dumped is said; templates and what is excluded are not meant by all."""
    backed = archiving(make(), dumps={"databases": "all", "exclude": ["pgops", "postgres"]})
    server = backed.server
    for name in ("shop", "closed", "pattern"):
        create(server, name)
    with server.connect() as session:
        session.execute("ALTER DATABASE closed ALLOW_CONNECTIONS false")
        session.execute("ALTER DATABASE pattern IS_TEMPLATE true")
    create(server, "ascii", "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    with server.connect("ascii") as session:
        session.autocommit = True
        session.execute("SET client_encoding = 'SQL_ASCII'")
        session.execute(b'CREATE DATABASE "' + BYTES + b"\" TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    done = backed.dump()
    shown = BYTES.decode("utf-8", "backslashreplace")
    assert done["errors"] == []
    assert done["warnings"] == ["Database closed allows no connections, so it is not dumped."]
    assert sorted(one["database"] for one in done["dumped"]) == sorted(["shop", "ascii", shown])
    newest = held(backed, BYTES).newest
    assert newest
    assert (newest.dump.encoding, newest.dump.shown) == ("SQL_ASCII", shown)
    again = backed.dump()
    assert (again["dumped"], sorted(again["fresh"])) == ([], sorted(["shop", "ascii", shown]))
    create(server, "new")
    assert [one["database"] for one in backed.dump()["dumped"]] == ["new"]
    assert [one["database"] for one in backed.dump(interval_hours=0, databases=["pattern"])["dumped"]] == ["pattern"]
    assert [one["database"] for one in backed.dump("shop")["dumped"]] == ["shop"]
    server.value("DROP DATABASE new")
    assert backed.dump(databases=["new"])["errors"] == ["There is no database new to be dumped."]
    assert "no database is declared" in backed.dump(databases=[])["skipped"]


def test_a_flipped_byte_in_any_file_is_told(make: Callable[..., Host]) -> None:
    backed = archiving(make(), dumps={"databases": ["shop"], "compression": "none"})
    create(backed.server, "shop")
    backed.server.psql(SHOP, "shop")
    (done,) = backed.dump()["dumped"]
    assert work.dump_verify.verify(backed.configuration()) == {"verified": 1, "damaged": {}, "errors": []}
    checked = [path for path in files_of(held(backed, "shop")) if path.name not in ("checked.json", "attempt.json")]
    assert {path.name for path in checked} > {"manifest.json", "SHA256SUMS", "globals.sql", "toc.dat"}
    for path in (one for one in checked if one.stat().st_size):
        with put_back(path):
            flip(path)
            found = work.dump_verify.verify(backed.configuration())
            assert (found["verified"], list(found["damaged"])) == (0, [done["name"]]), path
    for path in checked:
        if path.name not in ("manifest.json", "lock"):
            with put_back(path):
                path.unlink()
                assert work.dump_verify.verify(backed.configuration())["verified"] == 0, path
    assert work.dump_verify.verify(backed.configuration())["verified"] == 1


@contextlib.contextmanager
def locked(server: Server, database: str, table: str) -> Iterator[None]:
    """Another session holds the strongest lock on a table."""
    with server.connect(database) as session, session.transaction():
        session.execute(sql.SQL("LOCK TABLE {}").format(sql.Identifier(table)))
        yield


def test_a_dump_does_not_wait_for_ever(make: Callable[..., Host]) -> None:
    backed = archiving(make(), dumps={"databases": ["shop", "other"], "lock_seconds": 1, "days": 0, "minimum": 0})
    server = backed.server
    for name in ("shop", "other"):
        create(server, name)
        server.psql("CREATE TABLE item (n integer)", name)
    assert backed.dump()["errors"] == []
    with locked(server, "shop", "item"):
        done = backed.dump(interval_hours=0)
    (error,) = done["errors"]
    assert error.startswith("Database shop was not dumped: ")
    assert [one["database"] for one in done["dumped"]] == ["other"]
    held_now = held(backed, "shop")
    assert (len(held_now.dumps), held_now.unfinished, held_now.failed) == (1, (), True)
    # Of what failed nothing expires, and all else does.
    assert len(held(backed, "other").dumps) == 1
    assert [row[:2] for row in history(backed)].count(("failed", "shop")) == 1
    assert backed.dump(interval_hours=0)["errors"] == []
    assert (len(held(backed, "shop").dumps), held(backed, "shop").failed) == (1, False)


def test_a_dump_gives_way(make: Callable[..., Host]) -> None:
    """Somebody alters a table while the dump goes on, here as it waits for another table."""
    backed = archiving(make(), dumps={"databases": ["shop"], "jobs": 2, "lock_seconds": 600, "yield_seconds": 1})
    server = backed.server
    create(server, "shop")
    server.psql("CREATE TABLE early (n integer); CREATE TABLE late (n integer)", "shop")
    with locked(server, "shop", "late"):
        child = forked(backed.dump)
        until(lambda: server.value(HOLDS_EARLY, "shop"), "locked by the dump")
        server.psql("ALTER TABLE early ADD m integer", "shop")  # waits, until the dump has given way
    os.waitpid(child, 0)
    assert "was given up, to let it go on" in history(backed, "error_message")[0][0]
    assert held(backed, "shop").dumps == ()
    assert backed.dump()["errors"] == []


HOLDS_EARLY = "SELECT count(*) FROM pg_locks WHERE relation = 'early'::regclass AND granted"


@pytest.mark.parametrize("victim", ["agent", "pg_dump"])
def test_what_was_killed_is_found_by_the_next_run(make: Callable[..., Host], victim: str) -> None:
    backed = archiving(make(), dumps={"databases": ["shop"], "jobs": 2, "lock_seconds": 600})
    server = backed.server
    create(server, "shop")
    server.psql("CREATE TABLE early (n integer); CREATE TABLE late (n integer)", "shop")

    def alone() -> None:
        os.setgid(65534) if os.geteuid() == 0 else None
        os.setuid(backed.user)
        work.dump_databases(backed.configuration(dumps=backed.declared["dumps"]), ())

    with locked(server, "shop", "late"):
        child = forked(alone)
        until(lambda: server.value(HOLDS_EARLY, "shop"), "locked by the dump")
        if victim == "agent":
            os.kill(child, signal.SIGKILL)
        else:
            for program in _children(child):
                os.kill(program, signal.SIGKILL)
        os.waitpid(child, 0)
        assert held(backed, "shop").dumps == ()
        assert held(backed, "shop").failed
        # What the killed agent left waits for the lock as before, and would keep the next run away.
        done = backed.dump("postgres")
    assert (done["errors"], len(done["dumped"])) == ([], 1)
    assert [row[:2] for row in history(backed)] == [("failed", "shop"), ("completed", "postgres")]
    assert (held(backed, "shop").unfinished, done["swept"] != []) == ((), victim == "agent")
    assert server.value(HOLDS_EARLY, "shop") == 0
    assert backed.dump()["errors"] == []


def _children(process: int) -> list[int]:
    """The programs that a process has started."""
    children = Path(f"/proc/{process}/task/{process}/children")
    found = [int(word) for word in children.read_text().split()]
    return [one for one in found if Path(f"/proc/{one}/comm").read_text().strip() == "pg_dump"]


def test_a_full_disk_fails_the_dump_and_leaves_room_again(
    root: Path, make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    with disks.small(root / "disk", "150m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        host = make()
        host.base = root / "disk" / "base"
        host.base.mkdir()
        own(host.base, host.server)
        backed = archiving(host, dumps={"databases": ["shop"], "compression": "none"})
        create(host.server, "shop")
        host.server.psql("CREATE TABLE item AS SELECT repeat('x', 1000) FROM generate_series(1, 200000)", "shop")
        monkeypatch.setattr("pgops.backup.source.RESERVE", 0)
        (error,) = backed.dump()["errors"]
        assert "No space left on device" in error
        assert (held(backed, "shop").dumps, held(backed, "shop").unfinished) == ((), ())
        host.server.psql("TRUNCATE item", "shop")
        assert backed.dump()["errors"] == []


def test_records_metrics_and_windows(make: Callable[..., Host]) -> None:
    """A dump is told to the ops database, which is made anew from the repository, and no window counts on it."""
    backed = archiving(make(), dumps={"databases": ["shop"]})
    create(backed.server, "shop")
    (done,) = backed.dump()["dumped"]
    row = history(
        backed,
        "status, backup_type, backup_method, backup_file_path, backup_file_size, checksum, duration_seconds > 0, "
        "wal_start_lsn IS NOT NULL, retention_until - completed_at, backup_id::text",
    )
    newest = held(backed, "shop").newest
    assert newest
    assert [str(part) for part in row[0]] == [
        *("completed", "full", "pg_dump", done["path"], str(done["stored_bytes"]), newest.dump.checksum),
        *("True", "True", "7 days, 0:00:00", done["id"]),
    ]
    files = list(Path(done["path"], "data").iterdir())
    assert done["stored_bytes"] == sum(path.stat().st_size for path in [*files, Path(done["path"], "globals.sql")])
    catalogued(backed)
    status = backed.server.value("SELECT obstacle FROM pgops.recovery_status", "pgops")
    assert status == "no base backup"
    before = history(backed, "backup_id, status, checksum, backup_file_size, completed_at")
    assert catalogued(backed, rebuild=True)["errors"] == []
    assert history(backed, "backup_id, status, checksum, backup_file_size, completed_at") == before
    # Somebody takes it away: that is said once.
    Path(done["path"], "manifest.json").unlink()
    (error,) = catalogued(backed)["errors"]
    assert "was not removed by pgops.fleet" in error
    assert catalogued(backed)["errors"] == []
    assert history(backed, "status") == [("expired",)]


def catalogued(backed: Backed, rebuild: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = as_user(
        backed.user, lambda: catalogue.update(backed.configuration(), rebuild=rebuild), LONG
    )
    return found


def test_what_expires(make: Callable[..., Host]) -> None:
    """By the module, whose check mode says what would go; of a database that was dropped the last one goes too."""
    dumps_ = {"databases": "all", "exclude": ["pgops", "postgres"], "days": 0, "minimum": 1, "interval_hours": 0}
    backed = archiving(make(), dumps=dumps_)
    for name in ("shop", "gone"):
        create(backed.server, name)
    backed.configure()
    assert backed.module("dump", check=True)["changes"] == [
        "create dump of database shop",
        "create dump of database gone",
    ]
    first = backed.module("dump")
    assert [one["database"] for one in first["dumped"]] == ["shop", "gone"]
    assert first["expired"] == []
    backed.server.value("DROP DATABASE gone")
    told = backed.module("expire", check=True)
    assert [one["database"] for one in told["dumps_removed"]] == ["gone"]
    assert len(held(backed, "gone").dumps) == 1
    second = backed.module("dump")
    assert {one.partition("Z-")[0][:8] for one in second["expired"]} <= {one["name"][:8] for one in first["dumped"]}
    assert len(second["expired"]) == 2
    assert (len(held(backed, "gone").dumps), len(held(backed, "shop").dumps)) == (0, 1)
    assert [one["reasons"] for one in backed.module("expire")["dumps_retained"]] == [["last", "minimum"]]
    assert [one["database"] for one in backed.module("list")["dumps"]] == ["shop"]
    assert catalogued(backed)["errors"] == []


def test_a_pinned_dump_stays_and_is_known(make: Callable[..., Host]) -> None:
    """By the module, as a backup is; whatever becomes of its database, and beside a whole retention."""
    backed = archiving(make(), dumps={"databases": ["shop"], "days": 0, "minimum": 0, "interval_hours": 0})
    create(backed.server, "shop")
    backed.configure()
    (first,) = backed.module("dump")["dumped"]
    subject = f"pin of dump {first['name']} of database shop"
    for check in (True, False):
        done = backed.module("pin", check, backup=first["name"], reason="audit")
        assert (done["changes"], done["backup"]) == ([f"create {subject}"], first["id"])
    assert not backed.module("pin", backup=first["id"], reason="audit")["changed"]
    assert [one["pinned"] for one in backed.module("list")["dumps"]] == ["audit"]
    assert catalogued(backed)["errors"] == []
    assert history(backed, "pinned") == [("audit",)]
    for _dump in range(2):
        backed.module("dump")
    assert [one.pin for one in held(backed, "shop").dumps] == ["audit", None]
    told = backed.module("expire", check=True)
    assert [one["reasons"] for one in told["dumps_retained"]] == [["pin"], ["last"]]
    # A dump is no backup: verified by its name it cannot be, only all of them.
    with pytest.raises(InvalidInput, match="has no backup"):
        backed.module("verify", backup=first["name"])
    assert backed.module("unpin", backup=first["id"])["changes"] == [f"remove {subject}"]
    assert catalogued(backed)["errors"] == []
    assert [one["id"] for one in backed.module("expire")["dumps_removed"]] == [first["id"]]
    assert catalogued(backed)["errors"] == []
    assert history(backed, "status, pinned")[0] == ("expired", None)


def test_hooks_surround_a_dump(make: Callable[..., Host], root: Path) -> None:
    """Of each database; what comes before keeps that from being dumped, what comes after its dumps from expiring."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a program of root's")
    backed = archiving(make(), dumps={"databases": "all", "exclude": ["pgops", "postgres"]})
    create(backed.server, "shop")
    create(backed.server, "-rf /", "TEMPLATE template0")
    said = root / "prefix" / "said"
    backed.server.write(said, "")
    hook = Path("/usr/local/lib/pgops-test-dump-hook")
    hook.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done >> {said}\n[ "$1$4" != "before-rf /" ] || exit 3\n')
    hook.chmod(0o755)
    try:
        done = backed.dump(hook_before=str(hook), hook_after=str(hook))
        (dumped,) = done["dumped"]
        assert dumped["database"] == "shop"
        (error,) = done["errors"]
        assert error.startswith("Database -rf / was not dumped: The hook ")
        assert said.read_text().splitlines() == [
            *("before", "shop", "dump", "shop"),
            *("after", "shop", "dump", "completed", dumped["path"], "shop"),
            *("before", "shop", "dump", "-rf /"),
        ]
        assert (held(backed, "shop").failed, held(backed, "-rf /").failed) == (False, True)
        assert ("failed", "-rf /", "pg_dump") in history(backed)
        hook.write_text("#!/bin/sh\necho no room >&2\nexit 4\n")
        done = backed.dump("shop", hook_after=str(hook))
        assert [one["database"] for one in done["dumped"]] == ["shop"]
        (error,) = done["errors"]
        assert error.startswith("The dump of database shop is good, but: The hook ")
        assert len(held(backed, "shop").dumps) == 2
        assert held(backed, "shop").failed  # so that nothing expires
        hook.chmod(0o775)
        with pytest.raises(InvalidInput, match="others than root can change"):
            backed.dump("shop", hook_before=str(hook))
    finally:
        hook.unlink()
    assert backed.dump("shop")["errors"] == []
    assert not held(backed, "shop").failed


def test_a_standby_is_dumped(make: Callable[..., Host], keep: Callable[[Server], Server]) -> None:
    host = make()
    backed = archiving(host, dumps={"databases": ["shop"], "jobs": 2})
    create(host.server, "shop")
    host.server.psql(SHOP, "shop")
    standby = keep(host.server.standby()).start()
    until(lambda: standby.value("SELECT 1 FROM pg_database WHERE datname = 'shop'"), "there")
    until(lambda: standby.value(BOTH, "shop") == host.server.value(BOTH, "shop"), "the same")
    other = Backed(Host(standby, host.base, host.prefix), backed.declared)
    assert "standby" in other.dump()["skipped"]
    other.declared["source"] = "db1/main"
    (done,) = other.dump()["dumped"]
    newest = held(other, "shop").newest
    assert newest
    assert (newest.name, newest.dump.from_standby) == (done["name"], True)
    assert history(backed) == []
    assert catalogued(backed)["errors"] == []
    assert [row[:2] for row in history(backed)] == [("completed", "shop")]


BOTH = "SELECT max(oid) FROM pg_class"


def test_an_old_server_would_run_what_owners_of_tables_put_in_their_place(
    make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed = archiving(make(), dumps={"databases": ["postgres"]})
    monkeypatch.setattr("pgops.backup.dump.GUARDED", "SELECT false")
    with pytest.raises(Conflict, match="CVE-2024-7348"):
        backed.dump()


@pytest.mark.every_major
def test_the_programs_sessions_have_their_own_settings(make: Callable[..., Host]) -> None:
    server = make().server
    with server.connect(options=dumper.options(server.major)) as session:
        shown = session.execute(
            "SELECT name, setting FROM pg_settings WHERE name IN "
            "('restrict_nonsystem_relation_kind', 'statement_timeout', 'event_triggers', 'search_path')"
        ).fetchall()
    found = dict(shown)
    assert found.pop("event_triggers", "off") == "off"
    assert found == {
        "restrict_nonsystem_relation_kind": "view,foreign-table",
        "statement_timeout": "0",
        "search_path": "pg_catalog,pg_temp",
    }


def test_a_program_that_is_missing_is_named(make: Callable[..., Host], root: Path) -> None:
    backed = archiving(make(), dumps={"databases": ["postgres"]})
    tools = root / "prefix" / "tools"
    tools.mkdir()
    for program in backed.server.client_dir.iterdir():
        (tools / program.name).symlink_to(program)
    (tools / "pg_restore").unlink()
    backed.declared["bin_directory"] = str(tools)
    with pytest.raises(HostFailed, match=r"pg_restore is not on this host"):
        backed.dump()
