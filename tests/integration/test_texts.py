# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbooks on this host: with variables as the command line gives them, and where a program is missing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Server

import playbooks

SECRET = "xoxb5abcdefghijklmnop"
TEXTS = {
    "pgops_statements": "true",
    "pgops_restart": "if_required",
    "pgops_settings": '{"work_mem": "8MB", "track_functions": "all"}',
    "pgops_discover": "yes",
    "pgops_query_texts": "off",
    "pgops_explain": "0",
    "pgops_statements_track_utility": "no",
    "pgops_statements_databases": "postgres, shop",
    "pgops_statements_max": "2000",
    "pgops_retention_days": "7",
    "pgops_metric_retention": '{"database_size_mb": 3}',
    "pgops_alert_rules": '[{"name": "connections", "severity": "warning", "threshold": "70"}]',
    "pgops_alert_channels": '[{"name": "desk", "severities": "warning,critical", "attempts": "3"}]',
    "pgops_alert_addresses": json.dumps({"desk": {"hook": f"json://127.0.0.1:9/{SECRET}"}}),
    "pgops_maintenance": '[{"name": "sunday", "labels": {"node": "x"}, "start_time": 1320, "duration": "2h"}]',
    "pgops_alert_retention_days": "30",
    "pgops_expected_standbys": "0",
    "pgops_jobs": '{"maintain": {"enabled": false}}',
    "pgops_packages": "[]",
    "pgops_cluster_hosts": "here",
    "pgops_purge": "true",
}


def placed(server: Server, root: Path) -> dict[str, Any]:
    """The variables of a server of tests, on this host."""
    return {
        "pgops_instances": [{"name": "main", "port": server.port, "socket_directory": str(server.socket_dir)}],
        "pgops_prefix": str(root / "prefix"),
        "pgops_schedule_backend": "none",
        "pgops_login_user": server.superuser,
        "pgops_user": server.os_user,
        "pgops_become": False,
    }


def test_site_and_remove_take_texts(new_server: Callable[..., Server], root: Path) -> None:
    server = new_server(18).start()
    server.value("CREATE DATABASE shop")
    place = placed(server, root)
    hosts = root / "hosts"
    hosts.write_text(f"here ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    quoted = [f"{name}='{value}'" for name, value in TEXTS.items()]
    given = ["-e", json.dumps(place), *(word for one in quoted for word in ("-e", one))]
    run = playbooks.play(hosts, root, "pgops.fleet.site", *given)
    assert run.code == 0, run.text
    assert server.value("SHOW work_mem") == "8MB"
    assert server.value("SHOW pg_stat_statements.max") == "2000"
    assert server.value("SHOW pg_stat_statements.track_utility") == "off"
    for database in ("pgops", "postgres", "shop"):
        with server.connect(database) as connection:
            assert connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'").fetchone()
    changed = "SELECT threshold_value FROM pgops.alert_rules WHERE source = 'inventory'"
    assert server.value(changed, "pgops") == 70
    channels = root / "prefix" / "etc" / "pgops" / "main" / "channels.json"
    assert SECRET in channels.read_text()
    assert server.value("SELECT start_time::text FROM pgops.silences", "pgops") == "22:00:00"
    rules = root / "rules"
    rules.mkdir()
    directory = f"pgops_prometheus_rules_directory={rules}"
    again = playbooks.play(
        *(hosts, root, "pgops.fleet.site", *given, "-e", directory, "--tags", "alerting", "--diff", "-vvv"),
        *("-e", json.dumps({"pgops_alert_addresses": {"desk": {"hook": f"json://127.0.0.1:9/{SECRET}2"}}})),
    )
    assert again.code == 0, again.text
    assert SECRET not in run.text + again.text + json.dumps(again.outcomes)
    assert f"{SECRET}2" in channels.read_text()
    (written,) = rules.iterdir()
    assert 'expr: "(pgops_connections_used_ratio' in written.read_text()
    given += ["-e", directory]
    run = playbooks.play(hosts, root, "pgops.fleet.remove", *given)
    assert run.code == 0, run.text
    assert server.value("SELECT count(*) FROM pg_database WHERE datname = 'pgops'") == 0
    assert not channels.exists()
    assert list(rules.iterdir()) == []


@pytest.mark.parametrize(
    "declared", ["pgops_archive_compression=zstd", "pgops_backup=yes pgops_backup_compression=zstd"]
)
def test_a_compressor_that_may_not_be_installed_is_missed_before_anything_changes(
    new_server: Callable[..., Server], root: Path, monkeypatch: pytest.MonkeyPatch, declared: str
) -> None:
    server = new_server(18).start()
    programs = root / "programs"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for found in Path(folder).iterdir() if Path(folder).is_dir() else ():
            if found.name != "zstd" and not (programs / found.name).is_symlink():
                (programs / found.name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))
    given = {**placed(server, root), "pgops_repository": str(root / "base")}
    local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    hosts = root / "hosts"
    hosts.write_text(f"one {local}\nother {local} {declared}\n")
    run = playbooks.play(hosts, root, "pgops.fleet.site", "-e", json.dumps({**given, "pgops_packages": []}))
    assert run.code != 0
    (failed,) = [said for said in run.outcomes if said["state"] == "failed"]
    assert failed["host"] == "other"
    assert "Install the package zstd" in failed["msg"]
    assert not any(said["changed"] for said in run.outcomes)
    assert not (root / "prefix" / "usr").exists()
