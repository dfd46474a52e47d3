# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An instance on a host without an agent: deployed and watched over TCP alone, by a superuser and without one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploying import AGENT as LOCAL
from deploying import BUNDLE, DEFAULTS, agent_arguments, deploy, target, withdraw
from majors import EVERY_MAJOR, make_server
from servers import Server
from waiting import until

import playbooks
from pgops import cli
from pgops.agent import deploy as agent
from pgops.errors import InvalidInput, PermissionMissing
from pgops.facts import gathering
from pgops.instance import configuration, endpoints
from pgops.instance import passfile as credentials
from pgops.instance.layout import Layout
from pgops.opsdb import deploy as schema
from pgops.server.session import connect
from pgops.server.target import Target
from playbooks import Run

HBA = "local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n"
PLACE = {"name": "orders", "cluster": "orders", "node": "db.example.org/orders"}
AGENT = {**LOCAL, **PLACE, "ssl_mode": "verify-full", "user": "pgops", "validate": True, "sources": BUNDLE}


@dataclass(frozen=True)
class Remote:
    """A server that is reached over TLS only, and the file of the authority that its certificate is of."""

    server: Server
    authority: Path


@pytest.fixture(name="remote", scope="module", params=EVERY_MAJOR)
def _remote(request: pytest.FixtureRequest) -> Iterator[Remote]:
    server = make_server(request.param)
    authority = server.enable_tls()
    server.configure({"listen_addresses": "127.0.0.1, 127.0.0.2", "shared_preload_libraries": "pg_stat_statements"})
    server.write_hba(HBA)
    with server:
        yield Remote(server, authority)


@dataclass(frozen=True)
class Watcher:
    """A host, below a directory, whose agent watches a remote instance."""

    remote: Remote
    prefix: Path

    @property
    def layout(self) -> Layout:
        return Layout("orders", str(self.prefix))

    @property
    def password(self) -> str:
        return credentials.password(Path(self.layout.passfile).read_text()) or ""

    def keep(self, check: bool = False, **other: Any) -> dict[str, Any]:
        """What pg_ops_agent returns."""
        place = {"host": "localhost", "port": self.remote.server.port, "ca_cert": str(self.remote.authority)}
        return agent.converge(agent_arguments({**AGENT, **place, "prefix": str(self.prefix), **other}), check)

    def run(self, job: str) -> dict[str, Any]:
        """What a job of the installed agent says of itself."""
        command = [sys.executable, self.layout.launcher, "--instance", "orders", "--prefix", str(self.prefix), job]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


@pytest.fixture(name="watcher")
def _watcher(remote: Remote, tmp_path: Path) -> Iterator[Watcher]:
    yield Watcher(remote, tmp_path)
    withdraw(remote.server)


def test_the_agent_draws_a_password_and_keeps_it(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgops.server.target.SOCKET_DIRECTORIES", (str(watcher.remote.server.socket_dir),))
    predicted = watcher.keep(check=True)
    done = watcher.keep()
    assert done["changes"] == predicted["changes"]
    assert (done["diff"], done["prediction"]) == (predicted["diff"], predicted["prediction"])
    passfile = Path(watcher.layout.passfile)
    assert passfile.stat().st_mode & 0o777 == 0o600
    assert len(watcher.password) >= 40
    assert watcher.password not in json.dumps(done)
    before = passfile.read_text()
    assert not watcher.keep()["changed"]
    assert passfile.read_text() == before
    kept = json.loads(Path(watcher.layout.agent_file).read_text())
    # A server of the watcher's own at the same port is another one.
    assert (kept["format"], kept["real_paths"]) == (3, {})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"host": "/run/postgresql"}, "name or address of a single host"),
        ({"host": "a,b"}, "name or address of a single host"),
        ({"socket_directory": "/run"}, "cannot be set for a remote"),
        ({"ssl_mode": "disable", "host": ""}, "is only for a remote instance"),
    ],
)
def test_what_cannot_be_meant_is_refused(watcher: Watcher, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        watcher.keep(**wrong)


@pytest.fixture(name="watching")
def _watching(watcher: Watcher) -> Watcher:
    """A watcher whose agent is let in."""
    watcher.keep()
    deploy(watcher.remote.server, password=watcher.password, cluster="orders", node=AGENT["node"])
    return watcher


def samples(server: Server) -> Any:
    return server.value("SELECT count(*) FROM pgops.system_metrics", "pgops")


def test_all_databases_are_measured_over_tls(watching: Watcher) -> None:
    server = watching.remote.server
    with server.database() as name:
        server.value("CREATE TABLE goods AS SELECT FROM generate_series(1, 10)", name)
        done = watching.run("collect")
        measured = server.value(
            f"SELECT count(*) FROM pgops.system_metrics WHERE database_name = '{name}' "
            "AND metric_name LIKE 'table%' AND node = 'db.example.org/orders'",
            "pgops",
        )
    assert (done["ok"], done["sink"], done["errors"]) == (True, "local", [])
    assert measured > 0  # type: ignore[operator]
    assert samples(server) == done["samples"]


def test_no_session_of_the_agent_is_in_the_clear_or_stays_when_it_is_cut_off(watching: Watcher) -> None:
    with connect(endpoints.agent(configuration.load(watching.layout), "collect")) as session:
        about = session.row(
            "SELECT s.ssl, a.client_addr::text AS address, current_setting('tcp_keepalives_idle') AS idle, "
            "current_setting('tcp_user_timeout') AS unheard "
            "FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid) WHERE pid = pg_backend_pid()"
        )
    assert about == {"ssl": True, "address": "127.0.0.1/32", "idle": "30", "unheard": "60000"}


def test_the_other_jobs_work_or_say_why_not(watching: Watcher) -> None:
    maintained = watching.run("maintain")
    assert (maintained["ok"], maintained["errors"]) == (True, [])
    assert maintained["created"] > 0
    assert "has no extension pg_stat_statements" in watching.run("queries")["skipped"]
    assert "own user on its host" in watching.run("inspect")["skipped"]
    assert "own user on its host" in watching.run("catalogue")["skipped"]
    watching.run("collect")
    exported = watching.prefix / "values.prom"
    command = ["--output", str(exported)]
    assert cli.main(["--instance", "orders", "--prefix", str(watching.prefix), "export", *command]) == 0
    assert 'node="db.example.org/orders"' in exported.read_text()


@pytest.mark.parametrize("wrong", [{"ca_cert": None}, {"host": "127.0.0.2"}, {"password": "another"}])
def test_a_server_that_is_not_the_one_meant_learns_nothing(watching: Watcher, wrong: dict[str, Any]) -> None:
    watching.keep(**wrong)
    done = watching.run("collect")
    assert (done["ok"], done["code"]) == (False, "login_refused")
    assert samples(watching.remote.server) == 0


def test_without_an_authority_the_password_proves_the_server(watching: Watcher) -> None:
    watching.keep(ssl_mode="require", ca_cert=None)
    assert watching.run("collect")["ok"]
    server = watching.remote.server
    # Somebody who only passes everything on cannot bind the password to the TLS that the agent speaks.
    server.write_hba(HBA.replace("scram-sha-256", "trust"))
    server.reload()
    try:
        assert "channel binding" in watching.run("collect")["error"]
    finally:
        server.write_hba(HBA)
        server.reload()


def test_plain_text_is_refused_unless_it_is_asked_for(watching: Watcher) -> None:
    server = watching.remote.server
    server.write_hba(HBA.replace("hostssl", "hostnossl"))
    server.reload()
    try:
        assert watching.run("collect")["code"] == "login_refused"
        watching.keep(ssl_mode="disable")
        assert watching.run("collect")["ok"]
    finally:
        server.write_hba(HBA)
        server.reload()


def test_ones_own_collectors_are_tried_as_the_agent(watching: Watcher) -> None:
    wrong = "-- collector: own\n-- metric: own_things\nSELECT count(*) AS own_things FROM pg_authid\n"
    for check in (True, False):
        with pytest.raises(InvalidInput, match="member of pg_monitor only"):
            watching.keep(check, collectors=[wrong])
    inside = f"-- scope: database\n-- databases: postgres\n{wrong}"
    with pytest.raises(InvalidInput, match="tested in database postgres: number 1, own: permission denied"):
        watching.keep(True, collectors=[inside])
    assert "warnings" not in watching.keep(True, collectors=[inside.replace("pg_authid", "pg_roles")])
    assert watching.keep(collectors=[wrong.replace("pg_authid", "pg_roles")])["changed"]


# --- deployed from afar


@pytest.fixture(name="administrator")
def _administrator(watcher: Watcher) -> Iterator[str]:
    """Who has what managed services give: CREATEROLE, CREATEDB, and pg_monitor to hand on."""
    server = watcher.remote.server
    server.psql("CREATE ROLE \"it's me\" LOGIN CREATEROLE CREATEDB PASSWORD 'his';")
    server.psql('GRANT pg_monitor TO "it\'s me" WITH ADMIN OPTION')
    yield "it's me"
    withdraw(server)
    server.psql('DROP ROLE "it\'s me"')


@pytest.fixture(name="boss")
def _boss(watcher: Watcher) -> Iterator[str]:
    server = watcher.remote.server
    server.psql("CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'his'")
    yield "boss"
    server.psql("DROP ROLE boss")


def far(watcher: Watcher, user: str, check: bool = False, **other: Any) -> dict[str, Any]:
    """What pg_ops_schema returns, from the watcher."""
    words = {"cluster": "orders", "node": AGENT["node"], "remote": True, "passfile": watcher.layout.passfile}
    login = target(
        watcher.remote.server,
        host="localhost",
        user=user,
        password="his",
        sslmode="verify-full",
        sslrootcert=str(watcher.remote.authority),
    )
    return schema.converge(login, {**DEFAULTS, **words, **other}, check)


def deployed_from_afar(watcher: Watcher, user: str) -> None:
    """Predicted, done as predicted, done, and measured."""
    server = watcher.remote.server
    predicted = far(watcher, user, check=True)
    watcher.keep()
    done = far(watcher, user)
    assert (done["changes"], done["prediction"]) == (predicted["changes"], predicted["prediction"])
    assert "warnings" not in done
    assert watcher.password not in json.dumps(done)
    again = far(watcher, user)
    assert (again["changes"], again.get("warnings")) == ([], None)
    collected = watcher.run("collect")
    assert (collected["ok"], samples(server)) == (True, collected["samples"])
    assert server.value("SELECT pgops.collect_database_metrics()", "pgops")


def test_a_superuser_deploys_from_afar(watcher: Watcher, boss: str) -> None:
    deployed_from_afar(watcher, boss)
    assert "server settings" in far(watcher, boss)["skipped_reason"]


@pytest.mark.every_major
def test_an_administrator_deploys_without_superuser(watcher: Watcher, administrator: str) -> None:
    deployed_from_afar(watcher, administrator)
    assert "lc_messages" in far(watcher, administrator)["skipped_reason"]


EDITED = {
    "update function pgops.server_epoch()": (
        "CREATE OR REPLACE FUNCTION pgops.server_epoch() RETURNS text LANGUAGE sql AS 'SELECT NULL::text'"
    ),
    "update function pgops.primary_node_id()": ("GRANT EXECUTE ON FUNCTION pgops.primary_node_id() TO PUBLIC"),
    "create view pgops.system_metrics": "DROP VIEW pgops.system_metrics CASCADE",
    "update rights on schema pgops": "REVOKE USAGE ON SCHEMA pgops FROM pgops",
    "update rights on database pgops": (
        "GRANT CONNECT ON DATABASE pgops TO PUBLIC; REVOKE CONNECT ON DATABASE pgops FROM pgops"
    ),
    "update role pgops": "ALTER ROLE pgops CREATEROLE CREATEDB CONNECTION LIMIT 3; REVOKE pg_monitor FROM pgops",
    "update password of role pgops": "ALTER ROLE pgops PASSWORD 'another'",
    "create collector locks": "DELETE FROM pgops.collector",
}


def test_without_superuser_what_was_changed_is_put_back(watcher: Watcher, administrator: str) -> None:
    watcher.keep()
    far(watcher, administrator)
    with watcher.remote.server.connect("pgops") as admin:
        # As who may do so: what a superuser grants, nobody else can take back.
        admin.execute(f"""SET SESSION AUTHORIZATION "{administrator}"; {"; ".join(EDITED.values())}""".encode())
    predicted = far(watcher, administrator, check=True)
    done = far(watcher, administrator)
    assert done["changes"] == predicted["changes"]
    assert set(EDITED) <= set(done["changes"])
    again = far(watcher, administrator)
    assert (again["changes"], again.get("warnings")) == ([], None)
    assert watcher.run("collect")["ok"]


@pytest.mark.every_major
def test_without_superuser_all_goes_away_again(watcher: Watcher, administrator: str) -> None:
    server = watcher.remote.server
    state = (
        "SELECT (SELECT array_agg(rolname ORDER BY 1) FROM pg_roles)::text "
        "|| (SELECT array_agg(datname ORDER BY 1) FROM pg_database)"
    )
    before = server.value(state)
    watcher.keep()
    far(watcher, administrator)
    watcher.run("collect")
    gone = far(watcher, administrator, state="absent", check=True)
    assert far(watcher, administrator, state="absent")["changes"] == gone["changes"] == ["remove role pgops"]
    assert samples(server) > 0
    assert not far(watcher, administrator, state="absent")["changed"]
    assert far(watcher, administrator)["changed"]
    with connect(endpoints.agent(configuration.load(watcher.layout), "collect")):  # who collects is no obstacle
        far(watcher, administrator, state="absent", purge=True)
    assert server.value(state) == before


def test_without_superuser_the_database_goes_while_autovacuum_works_in_it(
    watcher: Watcher, administrator: str
) -> None:
    server = watcher.remote.server
    watcher.keep()
    far(watcher, administrator)
    server.psql(
        "CREATE TABLE slow (a int) WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, "
        "autovacuum_vacuum_threshold = 1); INSERT INTO slow SELECT generate_series(1, 50000); DELETE FROM slow",
        "pgops",
    )
    server.value("ALTER SYSTEM SET autovacuum_naptime = 1")
    server.reload()
    try:
        works = (
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = 'pgops'"
        )
        until(lambda: server.value(works), "at work")
        far(watcher, administrator, state="absent", purge=True)
    finally:
        server.value("ALTER SYSTEM RESET autovacuum_naptime")
        server.reload()
    assert server.value("SELECT count(*) FROM pg_database WHERE datname = 'pgops'") == 0


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(
            'ALTER ROLE "it\'s me" NOCREATEROLE',
            'ALTER ROLE "it\'s me" CREATEROLE',
            marks=pytest.mark.every_major,
        ),
        ('ALTER ROLE "it\'s me" NOCREATEDB', 'ALTER ROLE "it\'s me" CREATEDB'),
        pytest.param(
            'REVOKE ADMIN OPTION FOR pg_monitor FROM "it\'s me"',
            'GRANT pg_monitor TO "it\'s me" WITH ADMIN OPTION',
            marks=pytest.mark.every_major(since=16),
        ),
    ],
)
def test_a_right_that_is_missing_is_named(watcher: Watcher, administrator: str, edit: str, words: str) -> None:
    server = watcher.remote.server
    watcher.keep()
    server.psql(edit)
    for check in (True, False):
        with pytest.raises(PermissionMissing) as refused:
            far(watcher, administrator, check)
        assert str(refused.value).endswith(f"Ask an administrator to run: {words}")
    server.psql(words)
    assert far(watcher, administrator)["changed"]


@pytest.mark.every_major(until=15)
def test_before_16_who_may_create_roles_gives_everything_away(watcher: Watcher, administrator: str) -> None:
    watcher.keep()
    watcher.remote.server.psql('REVOKE ADMIN OPTION FOR pg_monitor FROM "it\'s me"')
    assert far(watcher, administrator)["changed"]


@pytest.mark.every_major
def test_an_administrator_takes_over_what_a_superuser_made(watcher: Watcher, administrator: str) -> None:
    server = watcher.remote.server
    watcher.keep()
    deploy(server, cluster="orders", node=AGENT["node"])
    with pytest.raises(PermissionMissing) as refused:
        far(watcher, administrator)
    server.psql(str(refused.value).partition("Ask an administrator to run: ")[2])
    if server.major >= 16:
        assert "pgops, pgops_operator, pgops_owner, pgops_reader" in str(refused.value)
    assert "create password of role pgops" not in far(watcher, administrator, check=True)["changes"]
    assert "update password of role pgops" in far(watcher, administrator)["changes"]
    again = far(watcher, administrator)
    assert (again["changes"], again.get("warnings")) == ([], None)
    assert server.value("SELECT rolconfig FROM pg_roles WHERE rolname = 'pgops'") == ["lc_messages=C"]
    assert watcher.run("collect")["ok"]


def test_where_the_agent_is_not_let_in_a_run_says_what_is_missing(watcher: Watcher, administrator: str) -> None:
    server = watcher.remote.server
    watcher.keep()
    server.write_hba(HBA.replace("\nhostssl", "\nhost all pgops all reject\nhostssl"))
    server.reload()
    try:
        for _run in range(2):
            (warning,) = far(watcher, administrator)["warnings"]
        assert warning.endswith('access rules: hostssl all "pgops" 127.0.0.1/32 scram-sha-256')
        assert not far(watcher, administrator)["changed"]
        server.write_hba(HBA.replace("\nhostssl", f"\n{warning.partition('access rules: ')[2]}\nhostssl"))
        server.reload()
        assert "warnings" not in far(watcher, administrator)
    finally:
        server.write_hba(HBA)
        server.reload()


def test_without_a_password_kept_nothing_is_done(watcher: Watcher, administrator: str) -> None:
    with pytest.raises(InvalidInput, match="Run pg_ops_agent first"):
        far(watcher, administrator)
    assert watcher.remote.server.value("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgops%'") == 0


def test_collectors_of_ones_own_are_tried_with_the_agents_rights(watcher: Watcher, administrator: str) -> None:
    wrong = "-- collector: own\n-- metric: own_things\nSELECT count(*) AS own_things FROM pg_authid\n"
    watcher.keep()
    for _run in range(2):
        with pytest.raises(InvalidInput, match="member of pg_monitor only"):
            far(watcher, administrator, collectors=[wrong])
        with pytest.raises(InvalidInput, match="tested in database postgres: number 1, own: permission denied"):
            far(watcher, administrator, collectors=[f"-- scope: database\n-- databases: postgres\n{wrong}"])
        far(watcher, administrator)
    right = wrong.replace("pg_authid", "pg_ls_waldir()")
    assert "create collector own" in far(watcher, administrator, collectors=[right])["changes"]


def test_slow_queries_are_stored_once_somebody_made_the_extension(watcher: Watcher, administrator: str) -> None:
    server = watcher.remote.server
    watcher.keep()
    far(watcher, administrator)
    server.value("CREATE EXTENSION pg_stat_statements SCHEMA public", "pgops")
    server.value("GRANT USAGE ON SCHEMA public TO pgops, pgops_reader", "pgops")
    assert watcher.run("queries")["first"]
    server.value("SELECT count(*) AS of_what_was_run FROM generate_series(1, 1000)")
    done = watcher.run("queries")
    assert (done["ok"], done["sink"]) == (True, "local")
    assert server.value("SELECT count(*) FROM pgops.query_text WHERE query LIKE '%of_what_was_run%'", "pgops") == 1
    assert not far(watcher, administrator)["changed"]


def test_a_remote_standby_hands_its_samples_to_its_primary(
    watcher: Watcher, administrator: str, keep: Callable[[Server], Server]
) -> None:
    server = watcher.remote.server
    watcher.keep()
    far(watcher, administrator)
    server.write_hba(f"{HBA}local replication all trust\n")
    server.reload()
    standby = keep(server.standby()).start()
    replica = Watcher(Remote(standby, watcher.remote.authority), watcher.prefix / "replica")
    replica.prefix.mkdir()
    shared: dict[str, Any] = {"node": "replica/orders", "password": watcher.password}
    replica.keep(**shared, peers=[{"host": "localhost", "port": server.port}])
    assert far(replica, administrator, node="replica/orders")["skipped_reason"].startswith("standby")
    done = replica.run("collect")
    assert (done["ok"], done["sink"]) == (True, "primary")
    stored = "SELECT count(*) FROM pgops.system_metrics WHERE node = 'replica/orders'"
    assert server.value(stored, "pgops") == done["samples"]


# --- facts, and the playbooks


def test_facts_tell_of_a_remote_instance_as_the_agent_sees_it(watching: Watcher) -> None:
    watching.run("collect")
    params = {"gather_subset": ["all"], "database": "pgops", "database_sizes": False, "max_bytes": 0}

    def facts(at: Target) -> dict[str, Any]:
        found = gathering.gather(at, {**params, "prefix": str(watching.prefix)})["ansible_facts"]["pg_ops"]
        (orders,) = [one for one in found["instances"] if one["name"] == "orders"]
        return dict(orders)

    orders = facts(Target(port="0"))
    assert (orders["host"], orders["running"], orders["role"]) == ("localhost", True, "primary")
    assert (orders["error"], orders["server"]["login_role"]) == (None, "pgops")
    assert orders["agent"]["node"] == AGENT["node"]
    server = watching.remote.server
    one = facts(target(server, host="localhost", user="nobody", sslmode="require"))
    assert (one["error"]["code"], one["agent"]["cluster"]) == ("login_refused", "orders")
    Path(watching.layout.passfile).unlink()
    assert facts(Target(port="0"))["error"]["code"] == "login_refused"


@pytest.fixture(name="inventory")
def _inventory(watcher: Watcher, administrator: str) -> Path:
    pytest.importorskip("ansible", reason="playbooks run on the controller only")
    server = watcher.remote.server
    orders = {"name": "orders", "host": "localhost", "port": server.port, "ca_cert": str(watcher.remote.authority)}
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "pgops_become": False,
        "pgops_prefix": str(watcher.prefix / "host"),
        "pgops_discover": False,
        "pgops_schedule_backend": "none",
        "pgops_settings": {"work_mem": "8MB"},
        "pgops_instances": [{**orders, "login_user": administrator, "login_password": "his secret"}],
    }
    server.psql(f"ALTER ROLE \"{administrator}\" PASSWORD 'his secret'")
    (watcher.prefix / "host").mkdir()
    path = watcher.prefix / "inventory.json"
    path.write_text(json.dumps({"all": {"hosts": {"watcher": host}}}))
    return path


def declared(inventory: Path) -> dict[str, Any]:
    """How the administrator of the inventory's one remote instance logs in to it."""
    (one,) = json.loads(inventory.read_text())["all"]["hosts"]["watcher"]["pgops_instances"]
    return {"login_host": one["host"], **{key: one[key] for key in ("login_user", "login_password", "ca_cert")}}


def test_playbooks_do_what_they_predict_once_and_undo_it(watcher: Watcher, inventory: Path) -> None:
    def play(name: str, *options: str) -> Run:
        run = playbooks.play(inventory, watcher.prefix, f"pgops.fleet.{name}", *options)
        assert run.code == 0, run.text
        assert "his secret" not in run.text + json.dumps(run.outcomes)
        return run

    predicted = play("site", "--check", "--diff")
    assert not list((watcher.prefix / "host").iterdir())
    done = play("site", "--diff", "-vvv")
    assert done.changes == predicted.changes != {}
    assert "pgops_settings: not applied to the remote instances orders" in done.text
    assert '"name": "maintain"' in done.text
    assert '"name": "inspect"' not in done.text
    assert play("site").changes == {}
    host = Watcher(watcher.remote, watcher.prefix / "host")
    assert host.password not in done.text
    assert host.run("collect")["ok"]
    assert samples(watcher.remote.server) > 0

    # One of several is taken away as the page says, and leaves its samples.
    page = (playbooks.ROOT / "docs/remote.md").read_text()
    here = {"prefix": str(watcher.prefix / "host")}
    there = {"login_port": watcher.remote.server.port, **declared(inventory)}
    tasks = [
        {name: {**given, **(there if name.endswith("pg_ops_schema") else here)}}
        for task in yaml.safe_load(re.findall(r"```yaml\n(- pgops.*?)```", page, re.DOTALL)[-1])
        for name, given in task.items()
    ]
    assert len(tasks) == 3
    book = watcher.prefix / "away.json"
    book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    run = playbooks.play(inventory, watcher.prefix, str(book))
    assert run.code == 0, run.text
    assert watcher.remote.server.psql("SELECT rolname FROM pg_roles WHERE rolname = 'pgops'") == ""
    assert samples(watcher.remote.server) > 0
    assert not (watcher.prefix / "host/etc/pgops").exists()

    assert play("remove", "-e", "pgops_purge=true").changes
    assert watcher.remote.server.value("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgops%'") == 0
    assert not (watcher.prefix / "host/etc/pgops").exists()
