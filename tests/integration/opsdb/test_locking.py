# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time, and nobody but superusers decides whether there is one: whatever ordinary roles lock, runs and
jobs go on."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from deploying import DEFAULTS, collect, configured, deploy, target
from servers import Server
from waiting import PATIENCE

from pgops.errors import Busy, PgOpsError
from pgops.host.identity import acting_as
from pgops.metrics import partitions
from pgops.opsdb import deploy as schema
from pgops.server import locking
from pgops.server.locking import locked
from pgops.server.target import Target

NEEDED = "nothing"


@pytest.fixture(name="mallory")
def _mallory(deployed: Server) -> Iterator[Server]:
    """The server, with a role that may read the views, and nothing else."""
    deployed.psql("CREATE ROLE mallory LOGIN; GRANT pgops_reader TO mallory")
    yield deployed
    deployed.psql("DROP ROLE mallory")


@contextlib.contextmanager
def holding(server: Server, database: str, *statements: str) -> Iterator[psycopg.Connection]:
    with server.connect(database, user="mallory") as session:
        session.execute("BEGIN")
        for one in statements:
            session.execute(one.encode())
        yield session


ADVISORY = (
    "SELECT pg_advisory_lock(hashtext('pgops.fleet'), 1)",
    "SELECT pg_advisory_lock(hashtext('pgops.round_class'), n) FROM generate_series(0, 40) AS n",
    "SELECT pg_advisory_lock(hashtext('pgops.' || n), 0) FROM unnest('{rollup,query_usage,round_0}'::text[]) AS n",
    "SELECT pg_advisory_lock(hashtext('pgops.record_sample'), n) FROM generate_series(1, 1000) AS n",
)


def by_network(server: Server) -> Target:
    """The server as its superuser, where there is no lock file to be seen."""
    return target(server, host="127.0.0.1")


@pytest.mark.every_major
def test_advisory_locks_of_others_hold_up_nothing(mallory: Server, tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        for database in ("postgres", "pgops"):
            held.enter_context(holding(mallory, database, *ADVISORY))
        assert deploy(mallory, retention_days=12, metric_retention={"database_size_mb": 20})["changed"]
        with locked(by_network(mallory), NEEDED):
            pass
        assert collect(mallory, tmp_path)["errors"] == []
        assert partitions.maintain(configured(mallory, tmp_path)[0])["errors"] == []
        mallory.value("INSERT INTO pgops.system_metrics (metric_name, metric_value) VALUES ('mine', 1)", "pgops")


@pytest.mark.every_major
def test_what_runs_lock_is_closed_to_others(mallory: Server) -> None:
    with locked(by_network(mallory), NEEDED), mallory.connect(user="mallory") as session:
        for mode in ("ACCESS SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), session.transaction():
                session.execute(f"LOCK TABLE {locking.CATALOGUE} IN {mode} MODE".encode())
    with mallory.connect("pgops", user="mallory") as session:
        for mode in ("ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), session.transaction():
                session.execute(f"LOCK TABLE {locking.LEDGER} IN {mode} MODE".encode())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_the_lock_file_is_closed_to_other_users(deployed: Server) -> None:
    path = Path(f"{target(deployed).socket_path}.lock")
    with locked(target(deployed), NEEDED), acting_as(1), pytest.raises(PermissionError):
        path.open()


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "PATIENCE", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("reach", [target, by_network])
def test_a_second_run_is_told_who_runs(deployed: Server, reach: Callable[[Server], Target]) -> None:
    told = pytest.raises(Busy, match=f"process {os.getpid()} of this host|role postgres, program pgops")
    with locked(reach(deployed), NEEDED), told, locked(reach(deployed), NEEDED):
        pass
    with locked(reach(deployed), NEEDED):
        assert deployed.value("SELECT 1")


@pytest.mark.usefixtures("impatient")
def test_runs_of_one_who_is_no_superuser_lock_each_other_out(deployed: Server) -> None:
    deployed.psql("CREATE ROLE chief LOGIN; GRANT pgops_owner TO chief")
    try:
        chief = {"superuser": False, "ops_database": "pgops"}
        at = target(deployed, host="127.0.0.1", user="chief")
        told = pytest.raises(Busy, match="role chief")
        with locked(at, NEEDED, **chief), told, locked(at, NEEDED, **chief):  # type: ignore[arg-type]
            pass
        with locked(at, NEEDED, superuser=False, ops_database="nowhere"):
            pass
    finally:
        deployed.psql("DROP ROLE chief")


@pytest.mark.usefixtures("impatient")
def test_a_standby_is_locked_too(major: int, new_server: Callable[..., Server], keep: Callable[..., Server]) -> None:
    standby = keep(new_server(major).start().standby()).start()
    with locked(target(standby), NEEDED), pytest.raises(Busy), locked(target(standby), NEEDED):
        pass


def test_without_a_lock_file_a_table_is_locked(deployed: Server) -> None:
    """As where a proxy has put a socket there, or the server's group may read the file."""
    path = Path(f"{target(deployed).socket_path}.lock")
    path.chmod(0o640)
    try:
        with locked(target(deployed), NEEDED):
            seen = "SELECT count(*) FROM pg_locks WHERE relation = 'pg_authid'::regclass AND mode LIKE 'ShareUpdate%'"
            assert deployed.value(seen) == 1
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        path.chmod(0o600)


def test_two_runs_over_the_network_both_end_well(undeployed: Server) -> None:
    def run(_number: int) -> object:
        try:
            words = {"cluster": "far", "node": "far/main", "remote": True, "password": "secret"}
            far = target(undeployed, host="127.0.0.1", sslmode="disable")
            return schema.converge(far, {**DEFAULTS, **words}, False)["changed"]
        except PgOpsError as error:
            return error

    with ThreadPoolExecutor() as threads:
        results = [one.result(PATIENCE) for one in [threads.submit(run, number) for number in range(2)]]
    assert sorted(results, key=str) == [False, True]


def test_a_reader_who_holds_up_a_run_is_named(mallory: Server) -> None:
    mallory.value("COMMENT ON VIEW pgops.metrics IS 'x'; DROP FUNCTION pgops.collector_locks()", "pgops")
    mallory.value("GRANT SELECT ON pgops.metrics TO PUBLIC", "pgops")
    with holding(mallory, "pgops", "SELECT count(*) FROM pgops.metrics") as session:
        process = session.info.backend_pid
        with pytest.raises(Busy, match=f"process {process} of role mallory.*pg_terminate_backend.{process}"):
            deploy(mallory)
    assert deploy(mallory)["changed"]
