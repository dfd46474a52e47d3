# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What modules return is what their RETURN documents, no more and no less."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import artifact
import binaries
import pytest
import yaml
from archives import Host
from backed import Backed
from backing import SMALL_SEGMENTS, Bank
from deploying import AGENT, BUNDLE, agent_arguments, deploy, rule, target, withdraw
from restoring import Restorer
from servers import Server

from pgops.agent import deploy as agent
from pgops.agent import schedule
from pgops.recovery import deploy as recovery
from pgops.recovery import points
from pgops.reports import reading
from pgops.repository import deploy as archiving
from pgops.settings import deploy as settings
from pgops.statements import deploy as statements

ANSIBLES = {"changed", "diff", "warnings"}
ONLY_SOMETIMES = {"code", "skipped_reason"}
JOB = {"name": "collect", "arguments": ["collect"], "calendar": "minutely", "jitter": 0, "time_limit": 50}


def documented(module: str) -> set[str]:
    """The keys of a module's RETURN."""
    tree = ast.parse((artifact.ROOT / "plugins" / "modules" / f"{module}.py").read_text())
    (text,) = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "RETURN"
        and isinstance(node.value, ast.Constant)
    ]
    return set(yaml.safe_load(text))


def returned(result: dict[str, Any]) -> set[str]:
    """The keys of a result that are the module's own."""
    return set(result) - ANSIBLES


def test_schema(server: Server) -> None:
    try:
        assert returned(deploy(server)) == documented("pg_ops_schema") - ONLY_SOMETIMES
    finally:
        withdraw(server)


def test_agent(tmp_path: Path) -> None:
    result = agent.converge(agent_arguments({**AGENT, "prefix": str(tmp_path), "sources": BUNDLE}), True)
    assert returned(result) == documented("pg_ops_agent") - ONLY_SOMETIMES


def test_schedule(tmp_path: Path) -> None:
    job = {**JOB, "user": "pgops", "writable": [], "background": False, "network": True, "enabled": True}
    params = {
        "instances": [{"name": "main", "jobs": [job]}],
        "state": "present",
        "backend": "none",
        "prefix": str(tmp_path),
    }
    assert returned(schedule.converge(params, True)) == documented("pg_ops_schedule") - ONLY_SOMETIMES


def test_settings(server: Server, tmp_path: Path) -> None:
    params = {"instance": "main", "state": "present", "lists": "merge", "restart": "never", "prefix": str(tmp_path)}
    wanted = {"settings": {"work_mem": "8MB"}, "after_primary": False}
    result = settings.converge(target(server), {**params, **wanted}, True)
    assert returned(result) == documented("pg_ops_settings") - ONLY_SOMETIMES


def test_statements(server: Server, tmp_path: Path) -> None:
    switches = dict.fromkeys(("track_planning", "track_utility", "track_io_timing", "configure"), True)
    words = {"state": "present", "restart": "never", "track": "top", "compute_query_id": "auto", "database": "pgops"}
    place = {"instance": "main", "prefix": str(tmp_path), "databases": [], "max": 5000}
    result = statements.converge(target(server), {**switches, **words, **place}, True)
    assert returned(result) == documented("pg_ops_statements") - ONLY_SOMETIMES


def test_alerts(server: Server) -> None:
    assert returned(rule(server, check=True)) == documented("pg_ops_alerts") - ONLY_SOMETIMES


def test_archiving(root: Path, server: Server) -> None:
    words = {"state": "present", "restart": "never", "compression": "none", "cluster": "shop", "instance": "main"}
    switches = {**dict.fromkeys(("replace", "another_server"), False), "fetch": True}
    place = {
        "repository": str(root / "shop"),
        "prefix": str(root),
        "after": [],
        "mount": None,
        "python": "",
        "timeout": 600,
    }
    result = archiving.converge(target(server), {**words, **switches, **place, "configure": True}, True)
    assert returned(result) == documented("pg_ops_archiving") - ONLY_SOMETIMES


def test_backup(root: Path, major: int, make: Callable[..., Host]) -> None:
    if major not in binaries.TOOLED:
        pytest.skip("the programs of a version's own are needed")
    backed = Backed.of(make())
    backed.configure()
    every: set[str] = set()
    for action in ("list", "take", "dump", "expire", "verify"):
        every |= returned(backed.module(action, check=True))
    assert every - ONLY_SOMETIMES == documented("pg_ops_backup") - ONLY_SOMETIMES


def test_recovery_point(undeployed: Server) -> None:
    try:
        deploy(undeployed, backup=True)
        params = {"name": "here", "description": None, "wait": False, "database": "pgops"}
        result = points.converge(target(undeployed), params, True)
        assert returned(result) == documented("pg_ops_recovery_point") - ONLY_SOMETIMES
    finally:
        withdraw(undeployed)


def test_restore(root: Path, major: int, make: Callable[..., Host]) -> None:
    if major not in binaries.TOOLED:
        pytest.skip("the programs of a version's own are needed")
    bank = Bank.opened(make(initdb=SMALL_SEGMENTS))
    bank.backup()
    restorer = Restorer(bank, root)
    result = recovery.converge(restorer.arguments(restorer.directory(), immediate=True), True)
    assert returned(result) == documented("pg_ops_restore") - ONLY_SOMETIMES


def test_report(deployed: Server) -> None:
    params = {
        "instances": [],
        "hours": 1.0,
        "ends_at": "",
        "points": 10,
        "packed": True,
        "connect_timeout": 10,
        "database": "pgops",
        "prefix": "/nowhere",
        "max_bytes": 65536,
        "statement_timeout": 30.0,
    }
    assert returned(reading.gather(target(deployed), params)) == documented("pg_ops_report") - ONLY_SOMETIMES


def test_every_module_is_tested_here() -> None:
    modules = {path.stem.removeprefix("pg_ops_") for path in (artifact.ROOT / "plugins" / "modules").glob("*.py")}
    assert {name for name in modules if f"test_{name}" not in globals()} == {"facts", "door"}  # a page, and Ansible's
