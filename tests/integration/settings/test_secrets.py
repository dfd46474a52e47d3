# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets among the settings are in force, and shown nowhere: however much Ansible is asked to show."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import Server
from waiting import until

import playbooks
from pgops.errors import SettingsRefused
from pgops.server import service
from pgops.server.session import connect
from pgops.server.target import Target
from pgops.settings import deploy as settings

MARK = "hunter2"
SECRETS: dict[str, Any] = {
    "primary_conninfo": f"host=127.0.0.1 user=repl password={MARK}",
    "archive_command": f"curl -sf -H 'Authorization: Bearer {MARK}' -T %p https://wal.example.org/%f",
    "restore_command": f"PGPASSWORD={MARK} fetch %f %p",
    "ssl_passphrase_command": f"echo {MARK}",
}
DEFAULTS: dict[str, Any] = {"state": "present", "lists": "merge", "instance": "main", "after_primary": False}


@pytest.fixture(name="own")
def _own(new_server: Callable[..., Server]) -> Server:
    return new_server(18).start()


def apply(server: Server, prefix: Path, restart: str = "never", **wanted: Any) -> dict[str, Any]:
    target = Target(host=str(server.socket_dir), port=str(server.port), user=server.superuser)
    params = {**DEFAULTS, "settings": wanted, "restart": restart, "prefix": str(prefix)}
    return settings.converge(target, params, False)


def test_what_is_shown_of_secrets_is_what_is_around_them(own: Server, tmp_path: Path) -> None:
    done = apply(own, tmp_path, **SECRETS, work_mem="8MB")
    after = {one["subject"]: one["after"] for one in done["prediction"]}
    assert after == {
        "setting primary_conninfo": "host=127.0.0.1 user=repl password=(hidden)",
        "setting archive_command": "curl (hidden)",
        "setting restore_command": "(hidden)",
        "setting ssl_passphrase_command": "(hidden)",
        "setting work_mem": "8MB",
    }
    assert MARK not in json.dumps(done)
    assert own.value("SHOW primary_conninfo") == SECRETS["primary_conninfo"]
    assert not apply(own, tmp_path, **SECRETS)["changed"]
    records = [path for path in tmp_path.rglob("*") if path.is_file() and MARK in path.read_text()]
    assert records
    assert {path.stat().st_mode & 0o777 for path in records} == {0o600}


def test_the_servers_words_about_a_change_are_quoted_without_its_secrets(own: Server, tmp_path: Path) -> None:
    own.value("ALTER SYSTEM SET log_statement = 'all'")
    own.value("SELECT pg_reload_conf()")
    with pytest.raises(SettingsRefused) as caught:
        apply(own, tmp_path, "if_required", **SECRETS, shared_buffers="7TB")
    assert "memory" in str(caught.value)
    assert MARK not in str(caught.value)
    with pytest.raises(SettingsRefused) as caught:
        apply(own, tmp_path, **SECRETS, ssl="on", ssl_cert_file=f"https://me:{MARK}@example.org/")
    assert MARK not in str(caught.value)


def test_what_others_have_the_server_log_meanwhile_is_not_quoted(own: Server) -> None:
    with connect(Target(host=str(own.socket_dir), port=str(own.port), user=own.superuser)) as session:
        found = service.of(session)
    assert found.log == str(own.log)
    marked = service.mark(found, "log")
    own.value("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 password=hunter2'")
    own.value("ALTER SYSTEM SET log_statement = 'all'")
    own.value("ALTER SYSTEM SET log_parameter_max_length_on_error = -1")
    own.value("SELECT pg_reload_conf()")
    until(lambda: own.value("SHOW log_statement"), "reloaded", "all")
    own.psql("CREATE TABLE t (token text UNIQUE CHECK (token <> 'hunter2'));")
    own.psql("INSERT INTO t VALUES ('hunter2 too');")
    for wrong in (
        "CREATE ROLE a\n PASSWORD 'hunter2'",
        "SELECT 1/0 AS error,\n 'hunter2'",
        "INSERT INTO t VALUES ('hunter2')",
        "INSERT INTO t VALUES ('hunter2 too')",
        "DO $$ BEGIN EXECUTE 'SELECT ''hunter2'', 1/0'; END $$",
    ):
        with contextlib.suppress(psycopg.Error):
            own.value(wrong)
    with contextlib.suppress(psycopg.Error), own.connect() as connection:
        connection.execute("SELECT 1 / (%s::text = 'hunter2')::int / 0", ["hunter2"], prepare=True)
    assert own.logged().count(MARK) > 10
    said = service.log_since(found, marked)
    assert "division by zero" in said
    assert MARK not in said
    assert not [line for line in service.quotable(service.lines_since(found, marked)) if MARK in line]


def test_ansible_shows_no_secrets(own: Server, tmp_path: Path) -> None:
    login = {"login_host": str(own.socket_dir), "login_port": own.port, "login_user": own.superuser}
    archiving = {"instance": "main", "cluster": "shop", "repository": str(tmp_path), "prefix": str(tmp_path)}
    tasks: list[dict[str, Any]] = [
        {"pgops.fleet.pg_ops_settings": {**login, "settings": "{{ pgops_settings }}", "login_passwrod": MARK}},
        {"pgops.fleet.pg_ops_settings": {**login, "settings": "{{ pgops_settings }}", "restart": MARK}},
        {"pgops.fleet.pg_ops_settings": {**login, "settings": {"app.secret": {"inside": MARK}}}},
        {"pgops.fleet.pg_ops_settings": {**login, "settings": {"work_mem": f"https://me:{MARK}@x/"}}},
        {"ansible.builtin.include_role": {"name": "pgops.fleet.pgops_settings"}},
        {"pgops.fleet.pg_ops_archiving": {**login, **archiving}},
        {"pgops.fleet.pg_ops_facts": login},
    ]
    variables = {
        "pgops_settings": {**SECRETS, "archive_mode": "on", "work_mem": "8MB"},
        "pgops_prefix": str(tmp_path),
        "pgops_instances": [{"name": "main", "port": own.port, "socket_directory": str(own.socket_dir)}],
        "pgops_login_user": own.superuser,
    }
    play = {"hosts": "all", "gather_facts": False, "vars": variables}
    play["tasks"] = [{**task, "ignore_errors": True} for task in tasks]
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    host = f"here ansible_connection=local ansible_inject_invocation=true ansible_python_interpreter={sys.executable}"
    (tmp_path / "hosts").write_text(f"{host}\n")
    run = playbooks.play(tmp_path / "hosts", tmp_path, str(tmp_path / "play.yml"), "-vvvv", "--diff")
    assert run.code == 0, run.text
    assert own.value("SHOW primary_conninfo") == SECRETS["primary_conninfo"]
    assert MARK not in run.text
    assert MARK not in json.dumps(run.outcomes)
    assert "+host=127.0.0.1 user=repl password=(hidden)" in run.text
    assert "archive_command = curl (hidden)" in run.text
    assert "login_passwrod" in run.text
