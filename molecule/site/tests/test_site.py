# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is true on every host after site.yml."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

METRICS = {
    "active_connections",
    "cache_hit_ratio",
    "database_size_mb",
    "deadlocks",
    "table_size_mb",
    "waiting_locks",
}
PRIMARY = {"pg15": "pg15", "pg17": "pg17", "pg17b": "pg17", "pg18": "pg18"}
FORBIDDEN = [
    "SELECT * FROM pg_authid",
    "DELETE FROM pgops.round",
    "INSERT INTO pgops.metric (metric_name, category, unit, kind) VALUES ('x', 'security', 'x', 'gauge')",
    "UPDATE pgops.setting SET value = '1'",
    "CREATE TABLE pgops.mine (a integer)",
    "CREATE TABLE public.mine (a integer)",
    "CREATE TEMPORARY TABLE mine (a integer)",
    "CREATE DATABASE mine",
    "CREATE ROLE mine",
    "SET ROLE pgops_owner",
    "SET ROLE postgres",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_reload_conf()",
    "SELECT pgops.create_partition('round_0', '2000-01-01')",
    "COPY (SELECT 1) TO PROGRAM 'id'",
]


@pytest.fixture(name="name")
def _name(host: Any) -> str:
    return str(host.backend.name)


def query(host: Any, sql: str, user: str = "postgres", database: str = "pgops") -> Any:
    """A command's result: psql over the socket as an operating system's user."""
    return host.run(f"runuser -u {user} -- psql -XAtq -v ON_ERROR_STOP=1 -d {database} -c %s", sql)


def instance(host: Any) -> str:
    """The one instance of a host, as its configuration's directory names it."""
    (found,) = host.check_output("ls /etc/pgops").split()
    return str(found)


def wait_for(check: Any, seconds: int) -> Any:
    """What ``check`` gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(2)
    return check()


def test_timers_are_enabled_and_have_fired(host: Any) -> None:
    unit = f"pgops-{instance(host)}-collect"
    assert host.service(f"{unit}.timer").is_enabled
    assert host.service(f"{unit}.timer").is_running
    fired = f"systemctl show --property=LastTriggerUSec --value {unit}.timer"
    assert wait_for(lambda: host.check_output(fired).strip() not in ("", "n/a"), 120)


def test_samples_of_every_metric_and_database_arrive_from_every_node(host: Any, name: str) -> None:
    import testinfra

    primary = testinfra.get_host(f"podman://{PRIMARY[name]}")
    databases = set(query(primary, "SELECT datname FROM pg_database WHERE NOT datistemplate").stdout.splitlines())
    wanted = {f"{metric}|{database}" for metric in METRICS for database in databases}
    select = (
        "SELECT DISTINCT metric_name, database_name FROM pgops.system_metrics "
        f"WHERE node = '{name}/{instance(host)}' AND collected_at > now() - interval '10 minutes'"
    )
    found = wait_for(lambda: wanted <= set(query(primary, select).stdout.splitlines()), 120)
    assert found, wanted - set(query(primary, select).stdout.splitlines())


def refusals(host: Any, statements: list[str], database: str) -> list[str]:
    """The SQLSTATE that each statement ends with for the role pgops, '' for one that goes through."""
    script = "".join(f"{statement};\n\\echo :SQLSTATE\n" for statement in statements)
    done = host.run(
        "printf %s %s | runuser -u pgops -- psql -XAtq -v VERBOSITY=sqlstate -d %s 2>/dev/null",
        "%s",
        script,
        database,
    )
    return [line for line in done.stdout.splitlines() if len(line) == len("42501")]


def test_the_agents_role_is_refused_all_but_its_work(host: Any) -> None:
    allowed = {"42501", "25006"} if query(host, "SELECT pg_is_in_recovery()").stdout == "t\n" else {"42501"}
    states = refusals(host, FORBIDDEN, "pgops")
    assert len(states) == len(FORBIDDEN)
    assert [one for one in zip(FORBIDDEN, states) if one[1] not in allowed] == []
    assert query(host, "SELECT 1", user="pgops").stdout == "1\n"


def test_the_agents_role_reads_nobodys_tables(host: Any) -> None:
    select = (
        "SELECT string_agg(format('%I.%I', schemaname, relname), ' ') FROM pg_stat_user_tables "
        "WHERE has_table_privilege('pgops', relid, 'SELECT')"
    )
    databases = query(host, "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate").stdout
    for database in databases.splitlines():
        found = host.run("runuser -u postgres -- psql -XAtq -d %s -c %s", database, select)
        assert (found.rc, found.stdout.strip()) == (0, "")


def test_the_agents_role_may_only_watch(host: Any) -> None:
    select = (
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, "
        "(SELECT string_agg(g.rolname, ',' ORDER BY g.rolname) FROM pg_auth_members m "
        "JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) FROM pg_roles r WHERE rolname = 'pgops'"
    )
    version = int(query(host, "SHOW server_version_num").stdout)
    groups = "pg_monitor,pg_use_reserved_connections" if version >= 160000 else "pg_monitor"
    assert query(host, select).stdout == f"f|f|f|f|f|{groups}\n"


def test_settings_are_in_force_after_one_restart(host: Any) -> None:
    wanted = {
        "max_connections": "120",
        "work_mem": "8MB",
        "shared_preload_libraries": "pg_stat_statements",
        "archive_mode": "on",
    }
    assert {name: query(host, f"SHOW {name}").stdout.strip() for name in wanted} == wanted
    assert query(host, "SELECT count(*) FROM pg_settings WHERE pending_restart").stdout == "0\n"
    assert int(query(host, "SELECT count(*) FROM public.pg_stat_statements").stdout) > 0


def test_wal_is_archived_and_catalogued(host: Any) -> None:
    unit = f"pgops-{instance(host)}-catalogue"
    assert host.service(f"{unit}.timer").is_running
    host.run_expect([0], f"systemctl start {unit}.service")
    said = json.loads(host.check_output(f"journalctl -u {unit}.service -o cat | grep '^{{' | tail -n 1"))
    assert said["ok"]
    if query(host, "SELECT pg_is_in_recovery()").stdout == "t\n":
        assert "standby" in said["skipped"]
        return
    (found,) = query(host, "SELECT segments, continuous_since FROM pgops.wal_archive_generations").stdout.splitlines()
    segments, since = found.split("|")
    assert int(segments) > 0
    assert since
    assert query(host, "SELECT count(*) FROM pgops.wal_archive_gaps").stdout == "0\n"


def test_files_are_roots_and_secrets_nobodys(host: Any) -> None:
    found = instance(host)
    writable = host.check_output("find /usr/local/lib/pgops /etc/pgops ! -user root ! -name pgpass")
    assert writable == ""
    assert host.check_output("find /usr/local/lib/pgops /etc/pgops ! -type l -perm /022") == ""
    passfile = host.file(f"/etc/pgops/{found}/pgpass")
    assert passfile.exists == bool(json.loads(host.file(f"/etc/pgops/{found}/agent.json").content_string)["peers"])
    if passfile.exists:
        assert (passfile.user, passfile.mode) == ("pgops", 0o600)
        assert passfile.content_string.split(":")[-1].strip() not in host.check_output("journalctl -o cat")


def test_the_command_says_its_version(host: Any) -> None:
    assert host.run("pgops version").rc == 0
