# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make bench`: all benchmarks; what they measured goes to build/bench/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / room) for room in ("tests/support", "tests/workshop", "build/lib")]

import artifact  # noqa: E402

artifact.link_library()
os.environ.setdefault("PGOPS_TEST_ROOT", "/tmp")  # on a disk, as servers are

import alerts  # noqa: E402
import backups  # noqa: E402
import binaries  # noqa: E402
import deployments  # noqa: E402
import latencies  # noqa: E402
import peers  # noqa: E402
import pythons  # noqa: E402
import recoveries  # noqa: E402
import replays  # noqa: E402
import reports  # noqa: E402
import rounds  # noqa: E402
import segments  # noqa: E402
import storage  # noqa: E402
import throughput  # noqa: E402
from figures import Figures  # noqa: E402

BUILD = ROOT / "build" / "bench"
ON_A_HOST = ("deploy", "task", "throughput")


def main() -> int:
    """Run those that were named, or all."""
    BUILD.mkdir(parents=True, exist_ok=True)
    venv = ROOT / "build" / "venv-bench"
    pythons.make_venv(venv, ROOT / "requirements-bench.txt")
    with tempfile.TemporaryDirectory() as work:
        benchmarks: dict[str, Callable[[], Figures]] = {
            "collect": rounds.measure,
            "storage": storage.measure,
            "facts": lambda: reports.measure(venv, Path(work)),
            "alerts": alerts.measure,
            "archive": segments.measure,
            "backup": backups.measure,
            "peers": peers.measure,
            "latency": latencies.measure,
            "replay": replays.measure,
            "recovery": recoveries.measure,
            "deploy": lambda: deployments.measure(venv),
            "task": lambda: deployments.measure_facts(venv),
            "throughput": lambda: throughput.measure(venv),
        }
        failed = [name for name in sys.argv[1:] or benchmarks if not _measured(name, benchmarks[name])]
    tables = [path.read_text() for path in (BUILD / f"{name}.md" for name in benchmarks) if path.exists()]
    (BUILD / "results.md").write_text("\n".join([f"{os.cpu_count()} cores, {os.uname().machine}.", "", *tables]))
    sys.stdout.write(f"{BUILD / 'results.md'}\n")
    return 1 if failed else 0


def _measured(name: str, measure: Callable[[], Figures]) -> bool:
    """Run one, and keep what it says; whether all holds. One that fails does not keep the others from running."""
    if name in ON_A_HOST and not fleet():
        return _not_run(name, "hosts in containers cannot run on this machine")
    try:
        found = measure()
    except binaries.UnavailableError as error:
        return _not_run(name, str(error))
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        return False
    (BUILD / f"{name}.json").write_text(json.dumps(found.data(), indent=1))
    _tell(name, found.table())
    return not found.missed


def _not_run(name: str, why: str) -> bool:
    """Say that this machine cannot run one, which is no failure."""
    _tell(name, f"### {name}: not run, since {why}\n")
    return True


def _tell(name: str, text: str) -> None:
    (BUILD / f"{name}.md").write_text(text)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fleet() -> bool:
    """Start the host that is deployed to; whether there is one."""
    command = [sys.executable, str(deployments.FLEET), "up", deployments.HOST]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
