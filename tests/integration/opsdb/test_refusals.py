# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work ends with one error that says what to do, and changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import binaries
import pytest
from deploying import DEFAULTS, deploy, target, withdraw
from servers import Server, free_port
from waiting import until

from pgops.errors import Conflict, InvalidInput, LoginRefused, PermissionMissing, PgOpsError, Unreachable, Unsupported
from pgops.facts import gathering
from pgops.opsdb import deploy as schema
from pgops.server import majors
from pgops.server.session import connect, listening

WHOLE = {"gather_subset": ["min"], "database": "pgops", "database_sizes": False, "prefix": "/", "max_bytes": 1 << 20}
RUN = """
import sys
sys.path[:0] = sys.argv[3:]
from deploying import DEFAULTS
from pgops.opsdb import deploy
from pgops.server.target import Target
deploy.converge(Target(host=sys.argv[1], port=sys.argv[2], user="postgres"), DEFAULTS, False)
"""


@pytest.fixture(name="bare")
def _bare(server: Server) -> Iterator[Server]:
    yield server
    withdraw(server)


def refused(kind: type[PgOpsError], server: Server, **params: object) -> PgOpsError:
    """The error of a deployment; it leaves no role behind."""
    before = server.value("SELECT count(*) FROM pg_roles")
    with pytest.raises(kind) as caught:
        deploy(server, **params)
    assert server.value("SELECT count(*) FROM pg_roles") == before
    assert caught.value.hint
    return caught.value


def test_a_server_that_is_down(major: int, new_server: Callable[..., Server]) -> None:
    with pytest.raises(Unreachable, match="Start the server"):
        deploy(new_server(major))


def test_a_version_that_is_too_old(new_server: Callable[..., Server]) -> None:
    server = new_server(binaries.UNSUPPORTED)
    server.start()
    before = server.value("SELECT count(*) FROM pg_roles")
    with pytest.raises(
        Unsupported, match=rf"is PostgreSQL {server.major}\. PostgreSQL {majors.OLDEST} is the oldest"
    ):
        deploy(server)
    assert server.value("SELECT count(*) FROM pg_roles") == before
    (found,) = gathering.gather(target(server), WHOLE)["ansible_facts"]["pg_ops"]["instances"]
    assert (found["support"], found["running"]) == ("too old", True)
    assert "upgrade the server" in found["error"]["message"]


def test_a_version_that_is_too_new_is_taken_and_told(bare: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(majors, "NEWEST", bare.major - 1)
    for check_mode in (True, False):
        (warning,) = deploy(bare, check_mode)["warnings"]
        assert f"The server is PostgreSQL {bare.major}. " in warning
        assert f"tested with {majors.OLDEST} to {bare.major - 1}, " in warning
    (found,) = gathering.gather(target(bare), WHOLE)["ansible_facts"]["pg_ops"]["instances"]
    assert (found["support"], found["error"]) == ("too new", None)
    monkeypatch.undo()
    assert "warnings" not in deploy(bare)


def test_a_role_that_is_somebody_elses(bare: Server) -> None:
    bare.value("CREATE ROLE pgops")
    assert "COMMENT ON ROLE" in str(refused(Conflict, bare))


def test_a_database_that_is_somebody_elses(bare: Server) -> None:
    bare.value("CREATE DATABASE pgops")
    assert "pgops_database" in str(refused(Conflict, bare))


def test_a_database_in_another_encoding(bare: Server) -> None:
    bare.value("CREATE DATABASE pgops TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    assert "UTF8" in str(refused(Conflict, bare))


@pytest.mark.parametrize("name", ["a\nb", "", "x" * 64, "postgres"])
def test_a_name_that_no_database_can_have(bare: Server, name: str) -> None:
    with pytest.raises(InvalidInput):
        deploy(bare, database=name)


def test_a_role_that_is_no_superuser(bare: Server) -> None:
    bare.value("CREATE ROLE plain LOGIN")
    try:
        with pytest.raises(PermissionMissing, match="superuser"):
            schema.converge(target(bare, user="plain"), DEFAULTS, False)
    finally:
        bare.value("DROP ROLE plain")


def test_an_unknown_database_and_role(bare: Server) -> None:
    for other in ({"database": "nowhere"}, {"user": "nobody_of_that_name"}):
        with pytest.raises(LoginRefused, match="Correct the name of the"):
            connect(target(bare, **other))


def test_a_wrong_password(major: int, new_server: Callable[..., Server]) -> None:
    server = new_server(major)
    server.start()
    server.value("ALTER ROLE postgres PASSWORD 'right'")
    server.write_hba("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    server.reload()
    with pytest.raises(LoginRefused, match="password which was used"):
        connect(target(server, host="127.0.0.1", password="wrong", sslmode="disable"))
    with pytest.raises(LoginRefused, match="requires a password"):
        connect(target(server, host="127.0.0.1"))


def test_a_local_line_that_asks_for_a_password(new_server: Callable[..., Server]) -> None:
    server = new_server(18, auth="scram-sha-256").start()
    with pytest.raises(LoginRefused, match="requires a password even on its local socket") as caught:
        connect(target(server))
    assert "local all postgres peer" in caught.value.hint
    assert "pgops_login_user" in caught.value.hint


def test_a_broken_pg_hba(major: int, new_server: Callable[..., Server]) -> None:
    server = new_server(major)
    server.start()
    path = server.data_dir / "pg_hba.conf"
    broken = path.read_text() + "local all all nonsense\n"
    server.write_hba(broken)
    with pytest.raises(Conflict, match="Correct that line"):
        deploy(server)
    assert path.read_text() == broken


def test_peers_of_a_server_without_tls(bare: Server) -> None:
    assert "ssl = on" in str(refused(Conflict, bare, peers=["10.0.0.7"], password="x"))


def test_somebodys_rule_that_waits_for_tls_is_no_error(major: int, new_server: Callable[..., Server]) -> None:
    server = new_server(major)
    server.start()
    path = server.data_dir / "pg_hba.conf"
    server.write_hba(path.read_text() + "hostssl all all 10.0.0.0/8 scram-sha-256\n")
    deploy(server)
    assert not deploy(server)["changed"]


@pytest.fixture(name="pooler")
def _pooler(bare: Server, tmp_path: Path) -> Iterator[int]:
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists() and os.getuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-q", "-y", "pgbouncer"], check=False, capture_output=True)
    if not Path(program).exists():
        pytest.skip("pgbouncer is not on this machine")
    port = free_port()
    users = bare.write(bare.directory / "users.txt", '"postgres" ""\n')
    ini = bare.write(
        bare.directory / "bouncer.ini",
        f"[databases]\n* = host={bare.socket_dir} port={bare.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = trust\nauth_file = {users}\nunix_socket_dir =\n",
    )
    running = subprocess.Popen([program, str(ini)], stderr=subprocess.DEVNULL, **bare._identity())  # type: ignore[call-overload]
    try:
        until(lambda: listening(target(bare, host="127.0.0.1", port=str(port))), "listening")
        yield port
    finally:
        running.terminate()
        running.wait()


def test_a_pooler_instead_of_a_server(bare: Server, pooler: int) -> None:
    with pytest.raises(Unsupported, match="pooler"):
        connect(target(bare, host="127.0.0.1", port=str(pooler)))


def test_a_session_that_is_closed_is_gone(bare: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes its time would count against its role's connection limit, which the next session then meets."""
    monkeypatch.setattr("pgops.server.session.WAIT_FOR_END", 30.0)
    bare.value("CREATE ROLE single LOGIN CONNECTION LIMIT 1")
    try:
        for _ in range(10):
            with connect(target(bare, user="single")) as session:
                slow_to_go = (
                    "DO $$ BEGIN FOR i IN 1 .. 100 LOOP EXECUTE 'CREATE TEMP TABLE t' || i || '()'; END LOOP; END $$"
                )
                session.execute(slow_to_go)
    finally:
        bare.value("DROP ROLE single")


def test_a_refusal_blames_what_the_server_blames(bare: Server) -> None:
    bare.value("CREATE ROLE single LOGIN CONNECTION LIMIT 0")
    try:
        with pytest.raises(LoginRefused, match='too many connections for role "single"') as caught:
            connect(target(bare, user="single"))
        assert "pg_hba" not in str(caught.value)
        assert "raise the limit" in caught.value.hint
    finally:
        bare.value("DROP ROLE single")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root meets other users' sockets")
def test_a_socket_that_anybody_could_have_made_is_not_talked_to(bare: Server) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as fake:
        os.chmod(folder, 0o1777)  # noqa: S103
        path = f"{folder}/.s.PGSQL.5432"
        fake.bind(path)
        fake.listen()
        Path(f"{path}.lock").touch()
        for made in (path, f"{path}.lock"):
            os.chown(made, 65534, 65534)
        with pytest.raises(Unreachable, match="user nobody, in a directory where others can create a socket"):
            connect(target(bare, host=folder, port="5432", password="secret"))
        fake.setblocking(False)
        with pytest.raises(BlockingIOError):
            fake.accept()


SEEN = {
    "a role": "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pgops')",
    "the database": "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'pgops')",
    "a session in it": "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'pgops')",
}


@pytest.mark.parametrize("sign", SEEN)
def test_a_run_killed_in_the_middle_is_finished_by_the_next(bare: Server, sign: str) -> None:
    arguments = [str(bare.socket_dir), str(bare.port), *sys.path]

    def killed() -> bool:
        """Whether a run was killed when the sign was seen, and had not ended by then."""
        withdraw(bare)
        with subprocess.Popen([sys.executable, "-c", RUN, *arguments]) as run:
            until(lambda: bare.value(SEEN[sign]) or run.poll() is not None, sign, pause=0)
            run.send_signal(signal.SIGKILL)
        return run.returncode == -signal.SIGKILL

    until(killed, "killed")
    deploy(bare)
    assert not deploy(bare)["changed"]
