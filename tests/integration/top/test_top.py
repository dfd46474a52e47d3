# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`pgops top` on real servers: what it says of now and of the past, and that it bears what befalls a server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import artifact
import psycopg
import pytest
from clocks import Clock
from deploying import collect, configured, deploy, keep, rule
from servers import Server
from terminals import SEQUENCE, Terminal
from waiting import until
from watching import frozen

from pgops import cli
from pgops.host.identity import as_user
from pgops.top import command, live
from pgops.top.sessions import TEXT_BYTES

ALWAYS = {"name": "always", "metric": "connections_used_percent", "operator": ">", "threshold": -1.0, "lasts": "0"}
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
SECTIONS = ["alerts", "blocking", "sessions", "progress", "events"]
SMALL = {
    "max_connections": "12",
    "superuser_reserved_connections": "2",
    "track_activity_query_size": "1MB",
}
DRAWN = re.compile(r"\x1b\[(?:\?(?:1049|25)[hl]|H|[0-9;]*m)\Z")
"""What rich writes to move and to colour: the other screen, the cursor, home, colours."""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as another user")


class Top:
    """The command as people give it, on a host with one instance. ``meanwhile`` happens between its two looks."""

    def __init__(
        self, server: Server, state: Path, capsys: pytest.CaptureFixture[str], node: str = "db1/main"
    ) -> None:
        self.server, self.state, self.capsys = server, state, capsys
        self.settings, self.layout = configured(server, state, node, superuser=server.superuser)
        Path(self.layout.configuration).mkdir(parents=True)
        Path(self.layout.agent_file).write_text(self.settings.text())
        self.meanwhile: list[Callable[[], object]] = []

    def asked(self, *words: str) -> tuple[int, str]:
        self.capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "time", Clock(meanwhile=self.meanwhile))
            code = cli.main(["--prefix", str(self.state), "top", *words])
        said = self.capsys.readouterr()
        return code, said.out + said.err

    def data(self, *words: str) -> dict[str, Any]:
        code, said = self.asked("--json", *words)
        assert code == 0, said
        found: dict[str, Any] = json.loads(said)
        return found

    def terminal(self, **options: Any) -> Terminal:
        return Terminal("--prefix", str(self.state), "top", "--interval", "0.5", **options)


@pytest.fixture(name="top")
def _top(deployed: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Top:
    return Top(deployed, tmp_path, capsys)


@pytest.fixture(name="own")
def _own(major: int, new_server: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Top:
    """Of a server of the test's own, with the agent's role and without an ops database."""
    server = new_server(major, settings=SMALL).start()
    server.psql("CREATE ROLE pgops LOGIN IN ROLE pg_monitor; CREATE ROLE crowd LOGIN")
    return Top(server, tmp_path, capsys)


@contextlib.contextmanager
def chain(server: Server) -> Iterator[list[int]]:
    """Three sessions: the first one is idle and holds a row, the second waits for it and holds another one, for which
    the third waits; their process ids."""
    with server.database() as name, contextlib.ExitStack() as stack:
        server.psql("CREATE TABLE t AS SELECT g AS a, 0 AS b FROM generate_series(1, 2) AS g", name)
        made = [server.connect(name, application_name=f"app {at}") for at in range(3)]
        sessions = [stack.enter_context(contextlib.closing(one)) for one in made]
        for session, row in zip(sessions, (1, 2)):
            session.execute(f"BEGIN; UPDATE t SET b = b + 1 WHERE a = {row}".encode())
        for at, row in ((1, 1), (2, 2)):
            sessions[at].pgconn.send_query(f"UPDATE t SET b = -1 WHERE a = {row}".encode())
            until(lambda: server.value(WAITING), "waiting", at)
        try:
            yield [session.info.backend_pid for session in sessions]
        finally:
            for session in sessions:
                server.value(f"SELECT pg_terminate_backend({session.info.backend_pid})")


@pytest.mark.every_major
def test_a_chain_of_sessions_that_block_each_other(top: Top) -> None:
    with chain(top.server) as (holder, middle, last):
        found = top.data()
        assert [(one["depth"], one["pid"], one["blocks"]) for one in found["blocking"]] == [
            (0, holder, 2),
            (1, middle, 1),
            (2, last, 0),
        ]
        first, second, third = found["blocking"]
        assert (first["state"], first["application"]) == ("idle in transaction", "app 0")
        assert first["query"] == "BEGIN; UPDATE t SET b = b + 1 WHERE a = 1"
        assert (second["wait"], second["lock_type"]) == ("Lock:transactionid", "transactionid")
        assert third["waits_seconds"] > 0
        assert {one["pid"] for one in found["sessions"]} >= {holder, middle, last}
        assert found["sessions"][0]["pid"] == holder
        head = found["head"]
        assert (head["role"], head["waiting_for_locks"], head["idle_in_transaction"]) == ("primary", 2, 1)
        code, said = top.asked("--once")
        assert code == 0
        lines = said.splitlines()
        at = lines.index("Who waits for whom: 3")
        assert [line.split()[0] for line in lines[at + 2 : at + 5]] == [str(pid) for pid in (holder, middle, last)]
        assert lines[at + 4].startswith(f"    {last}")


@pytest.mark.every_major
def test_what_a_server_is_and_does(top: Top) -> None:
    server = top.server
    top.meanwhile.append(lambda: server.psql("CREATE TABLE busy AS SELECT 1 AS a; DROP TABLE busy"))
    with server.connect("pgops") as session:
        found = top.data()
        assert [name for name in found if name in SECTIONS] == SECTIONS
        assert (found["node"], found["source"], found["missing"]) == ("db1/main", "server", {})
        head = found["head"]
        assert head["version"].startswith(str(server.major))
        assert head["connections"] >= 2
        assert head["connections_max"] == 50
        assert head["uptime_seconds"] > 0
        assert head["transactions_per_second"] > 0
        assert head["wal_bytes_per_second"] > 0
        assert head["cache_hit_percent"] > 0
        assert (head["standbys"], head["receiver"]) == ([], None)
        assert head["wraparound_percent"] < 1
        pid = session.info.backend_pid
        session.execute("BEGIN")
        session.execute("SELECT 'a', $$password = 'geheim'$$")
        found = top.data()
        (row,) = [one for one in found["sessions"] if one["pid"] == pid]
        assert "geheim" not in json.dumps(found)
        assert (row["state"], row["database"], row["type"]) == ("idle in transaction", "pgops", None)
        assert row["query"].startswith("SELECT '***'")


@pytest.mark.every_major
def test_prepared_transactions_and_maintenance(
    major: int, new_server: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_prepared_transactions": "2", "vacuum_cost_delay": "100ms", "vacuum_cost_limit": "1"}
    server = new_server(major, settings=settings).start()
    server.psql("CREATE ROLE pgops LOGIN IN ROLE pg_monitor; CREATE TABLE t AS SELECT generate_series(1, 20000)")
    server.psql("BEGIN; UPDATE t SET generate_series = 0 WHERE generate_series = 1; PREPARE TRANSACTION 'lost one'")
    top = Top(server, tmp_path, capsys)
    with contextlib.closing(server.connect()) as vacuuming, contextlib.closing(server.connect()) as waiting:
        vacuuming.pgconn.send_query(b"VACUUM t")
        waiting.pgconn.send_query(b"UPDATE t SET generate_series = 2 WHERE generate_series = 1")
        until(lambda: server.value(WAITING), "waiting", 1)
        until(lambda: server.value("SELECT count(*) FROM pg_stat_progress_vacuum"), "vacuuming", 1)
        found = top.data()
        (running,) = found["progress"]
        assert (running["operation"], running["pid"]) == ("VACUUM", vacuuming.info.backend_pid)
        assert (found["blocking"][0]["pid"], found["blocking"][0]["prepared"]) == (0, ["lost one"])
        assert "lost one" in [one["prepared"] for one in found["sessions"]]
        _code, said = top.asked()
        assert re.search(r"^prepared .* lost one$", said, re.MULTILINE)
        for session in (vacuuming, waiting):
            server.value(f"SELECT pg_terminate_backend({session.info.backend_pid})")


@pytest.mark.every_major
def test_a_standby(
    major: int, new_server: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = new_server(major).start()
    server.psql("CREATE ROLE pgops LOGIN IN ROLE pg_monitor")
    standby = server.standby()
    try:
        standby.start()
        until(lambda: server.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"), "on", 1)
        found = Top(standby, tmp_path / "standby", capsys).data()["head"]
        assert (found["role"], found["receiver"]["status"], found["receiver"]["paused"]) == (
            *("standby", "streaming", False),
        )
        (one,) = Top(server, tmp_path / "primary", capsys).data()["head"]["standbys"]
        assert (one["application"], one["state"]) == (standby.directory.name, "streaming")
    finally:
        standby.delete()


def test_without_an_ops_database_the_server_is_seen_all_the_same(own: Top) -> None:
    found = own.data()
    assert found["sessions"] == []
    assert found["alerts"] is found["events"] is None
    assert found["missing"]["alerts"] == 'database "pgops" does not exist'
    own.server.psql("CREATE DATABASE pgops OWNER pgops")
    assert own.data()["missing"]["events"].startswith("the database pgops has not been deployed to")
    own.server.psql("ALTER DATABASE pgops ALLOW_CONNECTIONS false")
    assert "not currently accepting connections" in own.data()["missing"]["alerts"]
    code, said = own.asked("--at", "1h")
    assert (code, said.startswith("pgops: There is no store to read the past from")) == (1, True)


@needs_root
def test_where_all_connections_are_taken_root_has_a_reserved_one(own: Top) -> None:
    with contextlib.ExitStack() as crowd:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                crowd.enter_context(own.server.connect(user="crowd"))
        code, said = own.asked("--once")
        assert code == 1
        assert "refused role pgops" in said
        Path(own.layout.keeping).mkdir()
        found = own.data()
        assert found["head"]["connections"] == 11
        assert found["missing"] == {"alerts": live.RESERVED, "events": live.RESERVED}


def test_a_server_that_hangs_is_said_to(own: Top, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ANSWERS", 2)
    with frozen(own.server):
        code, said = own.asked("--once")
    assert code == 1
    assert "takes connections, but does not answer within 2 s. Its processes may be stopped" in said


def test_a_server_that_is_down_is_said_to_be(own: Top) -> None:
    own.server.stop()
    code, said = own.asked("--once")
    assert code == 1
    assert "No PostgreSQL server listens on the local socket" in said


def test_the_page_names_all_keys(top: Top) -> None:
    assert collect(top.server, top.state)["errors"] == []
    named = set(re.findall(r"`(\w+)`", (artifact.ROOT / "docs" / "top.md").read_text()))
    for found in (top.data(), top.data("--at", "0m")):
        assert {*found, *found["head"]} <= named


def test_wrong_words_are_refused(own: Top) -> None:
    for words in (("--at", "soon"), ("--at", "2999-01-01 00:00"), ("--interval", "0"), ("--interval", "often")):
        code, _said = own.asked(*words)
        assert code == 2, words


def test_it_watches_a_server_that_goes_away_and_comes_back(own: Top) -> None:
    pytest.importorskip("rich")
    with own.server.connect() as session, own.terminal() as terminal:
        session.execute("BEGIN; SELECT 'here I am'")
        terminal.shows("here I am")
        terminal.press("s")
        terminal.shows("by statement")
        terminal.resize(20, 70)
        until(lambda: max(map(len, terminal.seen().splitlines())) <= 70, "narrow")
        with contextlib.suppress(psycopg.Error):
            own.server.stop()
            session.close()
        assert "here I am" in terminal.shows("NO ANSWER for")
        own.server.start()
        seen = until(terminal.seen, "seen again", lambda seen: "Sessions: none" in seen and "NO ANSWER" not in seen)
        assert "primary" in seen
        with frozen(own.server):
            terminal.shows("NO ANSWER for")
        until(terminal.seen, "seen again", lambda seen: "primary" in seen and "NO ANSWER" not in seen)
        terminal.press("q")
        assert terminal.ended() == 0
    assert terminal.written.endswith("\x1b[?25h\x1b[?1049l")


def test_it_begins_with_a_server_that_is_down(own: Top) -> None:
    pytest.importorskip("rich")
    own.server.stop()
    with own.terminal() as terminal:
        terminal.shows("NO ANSWER for")
        own.server.start()
        terminal.shows("primary")
        terminal.press("q")
        assert terminal.ended() == 0


def test_without_rich_it_says_what_to_install(own: Top, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('no rich here')")
    path = f"{tmp_path}:{Path(cli.__file__).parents[1]}"
    with own.terminal(PYTHONPATH=path) as terminal:
        assert terminal.ended() == 1
    assert "Install the package python3-rich" in terminal.written


@pytest.mark.every_major
def test_nothing_that_others_write_is_obeyed_by_a_terminal(own: Top) -> None:
    pytest.importorskip("rich")
    server = own.server
    evil = "\x1b[2J\u202e[bold red]x[/]\x07"
    server.value("CREATE DATABASE \"loo\x1b[2Jse\" TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        with (
            server.connect("loo\x1b[2Jse", application_name="a", client_encoding="SQL_ASCII") as session,
            own.terminal(width=200) as terminal,
        ):
            session.execute(b"BEGIN")
            session.execute(f"SELECT '{evil}', '".encode() + b"\xe4\xff" + b"x" * 1_000_000 + b"'")
            seen = terminal.shows("[bold red]x[/]")
            assert "\\u202e" in seen
            assert "loo\\x1b[2Jse" in seen
            terminal.press("q")
            assert terminal.ended() == 0
            assert all(DRAWN.match(one) for one in SEQUENCE.findall(terminal.written))
            assert "\u202e" not in terminal.written
            code, said = own.asked("--once")
            assert code == 0
            assert not {"\x1b", "\u202e", "\x07"} & set(said)
            (row,) = [one for one in own.data()["sessions"] if one["application"] == "a"]
            assert row["database"] == "loo\x1b[2Jse"
            assert len(row["query"].encode()) == TEXT_BYTES + len("\\xe4\\xff") - len(b"\xe4\xff")
    finally:
        server.value('DROP DATABASE "loo\x1b[2Jse" WITH (FORCE)')


def test_names_in_other_encodings(top: Top) -> None:
    with top.server.connect("postgres", client_encoding="SQL_ASCII") as session:
        session.execute(b"CREATE DATABASE loose TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        with top.server.connect("loose", client_encoding="SQL_ASCII") as session:
            session.execute(b'CREATE ROLE "\xe4nn"')
            session.execute(b'SET SESSION AUTHORIZATION "\xe4nn"')
            session.execute(b"BEGIN")
            session.execute(b"SELECT '\xe4'")
            (row,) = [one for one in top.data()["sessions"] if one["database"] == "loose"]
            assert row["query"] == "SELECT '\\xe4'"
            session.execute(b"ROLLBACK; RESET SESSION AUTHORIZATION")
            session.execute(b'DROP ROLE "\xe4nn"')
    finally:
        top.server.value("DROP DATABASE loose WITH (FORCE)")


def test_a_terminal_is_left_as_it_was_found(own: Top) -> None:
    pytest.importorskip("rich")
    with own.terminal() as terminal:
        terminal.shows("primary")
        terminal.process.terminate()
        assert terminal.ended() == 128 + signal.SIGTERM
    assert terminal.written.endswith("\x1b[?25h\x1b[?1049l")


@needs_root
def test_the_servers_user_looks_as_the_superuser(
    root: Path, major: int, new_server: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    top = Top(new_server(major), root / "prefix", capsys)
    Path(top.layout.keeping).mkdir()
    shutil.chown(top.layout.keeping, top.server.os_user)
    owner = Path(top.layout.keeping).stat().st_uid
    users = {
        uid: as_user(uid, lambda: command._logging_in(top.settings, top.layout).target.user) for uid in (owner, 1)
    }
    assert users == {owner: "postgres", 1: "pgops"}


@pytest.mark.every_major
def test_a_moment_of_the_past_is_read_from_the_store(top: Top) -> None:
    server, state = top.server, top.state
    rule(server, rules=[ALWAYS])
    keep(server, state)
    server.psql("ALTER SYSTEM SET work_mem = '63MB'")
    server.reload()
    try:
        with chain(server) as (holder, _middle, _last):
            for _minute in range(2):
                assert collect(server, state)["errors"] == []
            server.value("SELECT pgops.evaluate_alerts()", "pgops")
            assert keep(server, state)["errors"] == []
        at = str(server.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || 'Z'"))
        found = top.data("--at", at)
        assert (found["source"], found["node"]) == ("store", "db1/main")
        head = found["head"]
        assert (head["role"], head["waiting_for_locks"], head["idle_in_transaction"]) == ("primary", 2, 1)
        assert head["wal_bytes_per_second"] >= 0
        assert head["samples_to"] is not None
        assert [one["rule"] for one in found["alerts"]] == ["always"]
        assert found["blocking"][0]["pid"] == holder
        assert holder in [one["pid"] for one in found["sessions"]]
        assert "when an alert began to fire" in found["notes"]["sessions"]
        assert "work_mem: 4MB -> 63MB" in [one["text"] for one in found["events"]]
        assert found["statements"] is None
        assert "pgops_statements" in found["missing"]["statements"]
        code, said = top.asked("--at", at)
        assert code == 0
        assert "What fires: 1" in said
        assert "from the store: samples of " in said
    finally:
        server.psql("ALTER SYSTEM RESET work_mem")
        server.reload()


def test_what_the_store_does_not_have_it_says(top: Top, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = Top(top.server, tmp_path / "other", capsys, "db9/main").asked("--at", "1h")
    assert (code, said.startswith("pgops: The store knows no node db9/main.")) == (1, True)
    assert collect(top.server, top.state)["errors"] == []
    found = top.data("--at", "1h")
    assert found["head"]["connections"] is None
    assert found["blocking"] is found["sessions"] is None
    assert "no single sessions are stored" in found["missing"]["sessions"]
    _code, said = top.asked("--at", "1h")
    assert "the store has no samples of the ten minutes before" in said
    assert "connections -" in said


@pytest.mark.usefixtures("undeployed")
def test_a_deployed_instance_whose_role_is_gone(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(server)
    server.value("ALTER ROLE pgops NOLOGIN")
    code, said = Top(server, tmp_path, capsys).asked("--once")
    assert code == 1
    assert "is not permitted to log in" in said
