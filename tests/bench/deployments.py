# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""site.yml against a playbook of the same outcome: first and second run, in turn, on one pristine container host."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

from figures import Figures

from pgops import sources
from pgops.agent import program as versions
from pgops.capabilities import ALL
from pgops.host import systemd
from pgops.instance.configuration import Configuration
from pgops.metrics import collectors
from pgops.opsdb import objects

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"
PEER = Path(__file__).parent / "peer" / "site.yml"
FLEET = ROOT / "tests" / "fleet" / "fleet.py"
INVENTORY = ROOT / "build" / "fleet" / "inventory.yml"
HOST = "pg18"
LIBRARY = ROOT / "plugins" / "module_utils" / "_pgops"
PAIRS = 4


def measure(venv: Path) -> Figures:
    """Seconds of the first and second run of both, PAIRS times."""
    figures = Figures("deploy", "seconds of a whole ansible-playbook, one host over SSH")
    ours = ["pgops.fleet.site"]
    peer = [str(PEER), *peer_variables()]
    for pair in range(PAIRS):
        order = [("ours", ours), ("peer", peer)] if pair % 2 == 0 else [("peer", peer), ("ours", ours)]
        for name, playbook in order:
            subprocess.run([sys.executable, str(FLEET), "reset", HOST], check=True, stdout=subprocess.DEVNULL)
            for run in ("first", "second"):
                figures.add(f"{run} run", name, _seconds(venv, playbook, second=run == "second"))
    figures.promise({"first run": 3.1, "second run": 5.3})
    return figures


FACTS = {
    "ours": ["-m", "pgops.fleet.pg_ops_facts", "--become"],
    "peer": ["-m", "community.postgresql.postgresql_info", "--become", "--become-user", "postgres"],
}


def measure_facts(venv: Path) -> Figures:
    """Seconds of a whole task that gathers facts, ad hoc, on a host that site.yml was run on."""
    figures = Figures("task", "seconds of a whole call of ansible that gathers all facts of one host over SSH")
    run(venv, ["ansible-playbook", "-i", str(INVENTORY), "--limit", HOST, "pgops.fleet.site"])
    for repeat in range(2 * PAIRS):
        for name in sorted(FACTS, reverse=bool(repeat % 2)):
            began = time.perf_counter()
            run(venv, ["ansible", HOST, "-i", str(INVENTORY), *FACTS[name]])
            figures.add("all facts", name, time.perf_counter() - began)
    figures.promise({"all facts": 1.2})
    return figures


def _seconds(venv: Path, playbook: list[str], second: bool) -> float:
    began = time.perf_counter()
    said = run(venv, ["ansible-playbook", "-i", str(INVENTORY), "--limit", HOST, *playbook])
    spent = time.perf_counter() - began
    if second and "changed=0" not in said:
        raise RuntimeError(f"{playbook[0]} changed something in its second run:\n{said}")
    return spent


def run(venv: Path, command: list[str]) -> str:
    """The output of a command of Ansible.

    Raises RuntimeError.
    """
    done = subprocess.run(
        [str(venv / "bin" / command[0]), *command[1:]],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def peer_variables() -> list[str]:
    """What the peer's playbook copies: the same agent, configuration, schema and units, made beforehand."""
    BUILD.mkdir(parents=True, exist_ok=True)
    configuration = Configuration("18-main", "search", f"{HOST}/18-main", socket_directory="/var/run/postgresql")
    program = versions.program(sources.shipped(str(LIBRARY)), "/usr/bin/python3")
    (BUILD / "agent.json").write_text(configuration.text())
    (BUILD / "schema.sql").write_text(_script())
    _archive(BUILD / "agent.tar", program.files)
    folder = BUILD / "units"
    folder.mkdir(exist_ok=True)
    jobs = [job for one in ALL if not one.switch for job in one.jobs if not job.switch]
    for job in jobs:
        command = ["/usr/local/lib/pgops/current/bin/pgops", "--instance", "18-main", job.name, *job.arguments]
        user = "postgres" if job.as_server else "pgops"
        service = systemd.service(
            "18-main", job.name, user, command, systemd.Limits(job.time_limit, ["/var/lib/pgops/18-main"])
        )
        (folder / f"pgops-18-main-{job.name}.service").write_bytes(service)
        timer = systemd.timer("18-main", job.name, job.calendar, job.jitter)
        (folder / f"pgops-18-main-{job.name}.timer").write_bytes(timer)
    values = {
        "bench_jobs": [job.name for job in jobs],
        "bench_archive": str(BUILD / "agent.tar"),
        "bench_configuration": str(BUILD / "agent.json"),
        "bench_script": str(BUILD / "schema.sql"),
        "bench_units": str(folder),
    }
    return ["-e", json.dumps(values)]


def _archive(path: Path, program: Mapping[str, str]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, text in sorted(program.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755 if name == "bin/pgops" else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))


def _script() -> str:
    found = sources.gather(str(LIBRARY), (".sql",), "sql")
    shipped = objects.shipped(sources.below(found, "sql/objects"))
    functions = [
        objects.collector_function(collectors.parse(text, file))
        for file, text in sources.below(found, "sql/collectors").items()
    ]
    parts = ["CREATE SCHEMA pgops AUTHORIZATION pgops_owner;", "SET ROLE pgops_owner;"]
    parts += sources.below(found, "sql/migrations").values()
    parts += [one.text for one in [*shipped, *functions]]
    return "\n".join(parts)
