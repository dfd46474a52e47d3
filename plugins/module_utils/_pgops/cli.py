# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's door: ``pgops --instance NAME collect`` and its kind. Timers run it, people may."""

from __future__ import annotations

import argparse
import json
import logging.handlers
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import Busy, HostFailed, InvalidInput, PgOpsError
from .host.files import File, apply, exclusive, failure
from .instance import configuration
from .instance.layout import Layout
from .metrics import collect as collection
from .metrics import collectors, exposition, history, latest, partitions
from .metrics import repeat as repetition
from .repository import catalogue
from .sources import gather
from .statements import job as usage
from .version import VERSION

BUSY = 75
"""Exit code where the former run of the same job is still going (EX_TEMPFAIL of sysexits.h)."""

LOG_BYTES = 1024 * 1024

PATIENCE = 5
"""Seconds that a job which collects again and again waits for a collection that somebody else runs."""


def main(arguments: list[str] | None = None) -> int:
    """Run one job; returns the exit code: 0 done, if with errors in parts, 1 failed, 2 wrong usage, 75 still busy."""
    options = _parser().parse_args(arguments)
    if options.job == "version":
        sys.stdout.write(f"{VERSION}\n")
        return 0
    started = time.time()
    outcome, code = attempt(options)
    if options.job == "export" and options.output is None:
        # What it prints is for Prometheus.
        sys.stderr.writelines(f"{said}\n" for said in ([outcome["error"]] if code else outcome["warnings"]))
        return code
    outcome["duration_ms"] = round((time.time() - started) * 1000)
    log(options, {"job": options.job, **outcome})
    return code


def attempt(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """What came of a job, and its exit code."""
    try:
        layout = Layout(options.instance or only_instance(options.prefix), options.prefix)
        job = JOBS[options.job]
        step_down(job.home(layout))
        outcome = job.run(layout, options)
        errors = bool(outcome.get("errors"))
        return {"ok": not errors, **outcome}, int(errors and not outcome.get("delivered"))
    except PgOpsError as error:
        code = BUSY if isinstance(error, Busy) else 1
        return {"ok": False, "error": str(error), "code": error.code}, code
    except OSError as error:
        return {"ok": False, "error": str(failure(error, "The job's files cannot be written"))}, 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pgops", description="The agent of pgops.fleet on a PostgreSQL host.")
    parser.add_argument("--instance", help="the instance; may be left out where the host has only one")
    parser.add_argument("--prefix", default="/", help="where the agent was installed, if not below /")
    parser.add_argument("--rebuild", action="store_true", help="catalogue: forget what is known, look at every file")
    repeat = "collect: stay for the minute, and collect again what has a shorter interval, as the timer has it"
    parser.add_argument("--repeat", action="store_true", help=repeat)
    writes = "export: replace a file instead of printing: the one that the role's link leads to, or FILE"
    parser.add_argument("--output", help=writes, metavar="FILE", nargs="?", const="")
    parser.add_argument("job", choices=[*JOBS, "version"], help="what to do")
    return parser


def collect(layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Run the collectors that are due, once or for a minute."""
    path = os.path.join(layout.state, "collect")
    if not options.repeat:
        return _collected(layout, path, collection.collect)
    settings = configuration.load(layout)
    memory = history.Memory(path, PATIENCE)
    with exclusive(f"{path}.repeat.lock", seconds=0):
        return repetition.collect(settings, layout, installed(layout), memory)


def inspect(layout: Layout, _options: argparse.Namespace) -> dict[str, Any]:
    """Run the collectors that need to read all data."""
    if configuration.load(layout).host:
        return {"skipped": "remote: the server's own user on its host is needed", "errors": []}
    return _collected(layout, os.path.join(layout.keeping, "inspect"), collection.inspect)


def _collected(layout: Layout, path: str, run: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    settings = configuration.load(layout)
    memory = history.Memory(path)
    with memory.held() as remembered:
        outcome = run(settings, layout, installed(layout), remembered)
    return {**outcome, "errors": [*outcome["errors"], *memory.errors]}


def count_queries(layout: Layout, _options: argparse.Namespace) -> dict[str, Any]:
    """Store what statements did."""
    settings = configuration.load(layout)
    with exclusive(f"{layout.state}/queries.lock", seconds=0):
        return usage.collect(settings, layout)


def maintain(layout: Layout, _options: argparse.Namespace) -> dict[str, Any]:
    """Make and drop partitions."""
    settings = configuration.load(layout)
    with exclusive(f"{layout.state}/maintain.lock", seconds=0):
        return partitions.maintain(settings)


def keep_catalogue(layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Note what is in the repository."""
    settings = configuration.load(layout)
    if not settings.repository:
        hint = "Set pgops_repository and run site.yml (docs/archiving.md)."
        raise InvalidInput("This instance has no repository.", hint)
    with exclusive(f"{layout.keeping}/catalogue.lock", seconds=0):
        return catalogue.update(settings, options.rebuild)


def export(layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Print the newest values for Prometheus, or write them to a file that all may read."""
    path = layout.exported if options.output == "" else options.output
    if path is not None and not os.path.isabs(path):
        raise InvalidInput(f"--output {path} is no absolute path.")
    settings = configuration.load(layout)
    found, now = installed(layout), time.time()
    inspected, warnings = _inspected(layout, found)
    own = latest.present([layout.latest, layout.latest_repeated, layout.latest_queries], now)
    present = [*own, *(run for run in inspected if run.present(now))]
    known = collectors.metrics(found).values()
    text = exposition.exposition(known, present, settings.cluster, settings.node).encode()
    if path is not None:
        apply([File(path, text, 0o644)])
    else:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    return {"samples": sum(len(run.samples) for run in present), "warnings": warnings}


def _inspected(layout: Layout, found: Sequence[collectors.Collector]) -> tuple[list[latest.Run], list[str]]:
    """What the server's user has measured, and what is in the way; all else is exported all the same."""
    given = [collectors.INSPECTION, *(one for one in found if one.rights == "all_data")]
    metrics = {one.name: [metric.name for metric in one.metrics] for one in given}
    try:
        return latest.received(layout.inspected, metrics), []
    except HostFailed as error:
        return [], [str(error)]


@dataclass(frozen=True)
class Job:
    """Something that the agent does, and the directory of whoever does it: for its lock and its log."""

    run: Callable[[Layout, argparse.Namespace], dict[str, Any]]
    home: Callable[[Layout], str]


JOBS = {
    "collect": Job(collect, lambda layout: layout.state),
    "queries": Job(count_queries, lambda layout: layout.state),
    "inspect": Job(inspect, lambda layout: layout.keeping),
    "maintain": Job(maintain, lambda layout: layout.state),
    "export": Job(export, lambda layout: layout.state),
    "catalogue": Job(keep_catalogue, lambda layout: layout.keeping),
}


def installed(layout: Layout) -> list[collectors.Collector]:
    """The collectors that came with the agent, and the user's own; files that only root may write.

    Raises InvalidInput.
    """
    library = os.path.dirname(os.path.abspath(__file__))
    texts = [
        *gather(library, (".sql",), "sql/collectors").items(),
        *gather(layout.collectors, (".sql",)).items(),
    ]
    return [collectors.parse(text, path) for path, text in texts]


def only_instance(prefix: str) -> str:
    """The name of the host's one configured instance.

    Raises InvalidInput where there is none, or several.
    """
    folder = Layout("any", prefix).configurations
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    if len(names) != 1:
        known = f"This host has the instances {', '.join(names)}." if names else "No instance is configured here."
        raise InvalidInput(known, "Name one with --instance.")
    return names[0]


def step_down(home: str) -> None:
    """As root, become the user of a job's directory: what a person tries by hand runs as it does from the timer."""
    if os.geteuid() != 0 or not os.path.isdir(home):
        return
    owner = os.stat(home)
    if owner.st_uid:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
        # libpq would look for certificates in root's home, and heed what root's shell sets.
        os.environ["HOME"] = home
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]


def log(options: argparse.Namespace, outcome: dict[str, Any]) -> None:
    """One line of JSON: to the journal by way of standard output, without a journal to a rotated file as well."""
    line = json.dumps({"instance": options.instance, **outcome}, sort_keys=True)
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    if "JOURNAL_STREAM" in os.environ or sys.stdout.isatty():
        return
    try:
        layout = Layout(options.instance or only_instance(options.prefix), options.prefix)
        handler = logging.handlers.RotatingFileHandler(
            os.path.join(JOBS[options.job].home(layout), "agent.log"), maxBytes=LOG_BYTES, backupCount=3
        )
        stamp = collection.iso(time.time())
        handler.emit(logging.makeLogRecord({"msg": f"{stamp} {line}"}))
        handler.close()
    except (OSError, PgOpsError) as error:
        sys.stderr.write(f"the log file cannot be written: {error}\n")
