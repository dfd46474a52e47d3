# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_ops_facts against postgresql_info: time inside the module, on one server with the schema installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from deploying import collect, deploy
from figures import Figures
from servers import Server

ROOT = Path(__file__).parents[2]
REPEATS = 10
PEER = """
import importlib, io, json, sys, time
from ansible.module_utils import basic
module = importlib.import_module("ansible_collections.community.postgresql.plugins.modules.postgresql_info")
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": json.loads(sys.argv[1])}).encode()
basic._ANSIBLE_PROFILE = "legacy"
shown, sys.stdout = sys.stdout, io.StringIO()
began = time.perf_counter()
try:
    module.main()
except SystemExit:
    pass
spent, said, sys.stdout = time.perf_counter() - began, sys.stdout.getvalue(), shown
assert '"failed": true' not in said, said
print(spent * 1000)
"""
"""Inside the peer's main(), with what it imports already loaded."""
OURS = """
import json, sys, time
from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments, modules
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.facts import gathering
from ansible_collections.pgops.fleet.plugins.modules import pg_ops_facts
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
params = ArgumentSpecValidator(pg_ops_facts.SPEC).validate(json.loads(sys.argv[1])).validated_parameters
order = {"module": "pg_ops_facts", "params": params, "paths": {}, "_ansible_check_mode": False}
began = time.perf_counter()
said = modules.run(order, {})
spent = time.perf_counter() - began
assert not said.get("failed"), said
print(spent * 1000)
"""
"""Inside what carries out our order on a host, likewise."""
PROGRAMS = {"ours": OURS, "peer": PEER}


def measure(venv: Path, work: Path) -> Figures:
    """Milliseconds inside both, in turn."""
    figures = Figures("facts", "milliseconds inside the module, ten databases, schema installed")
    with Server.create(18) as server:
        for number in range(8):
            server.value(f"CREATE DATABASE db{number}")
        deploy(server)
        collect(server, work)
        arguments = {"login_user": "postgres", "login_port": server.port, "login_host": str(server.socket_dir)}
        for repeat in range(REPEATS):
            for name in sorted(PROGRAMS, reverse=bool(repeat % 2)):
                spent = _inside(venv, name, arguments)
                figures.add("all facts", name, spent)
                if name == "peer":
                    # it always measures databases, which ours does on request
                    figures.add("all facts and the sizes of databases", name, spent)
            sizes = {**arguments, "database_sizes": True}
            figures.add("all facts and the sizes of databases", "ours", _inside(venv, "ours", sizes))
            figures.add("subset min", "ours", _inside(venv, "ours", {**arguments, "gather_subset": ["min"]}))
    figures.promise({"all facts": 1.8})
    return figures


def _inside(venv: Path, name: str, arguments: dict[str, object]) -> float:
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-c", PROGRAMS[name], json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "build" / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    return float(done.stdout)
