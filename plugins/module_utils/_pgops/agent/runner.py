# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run of a job of the agent: load the configuration, keep other runs out, run, record, and log one line."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging.handlers
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import Any

from .. import terminal
from ..capabilities import Job
from ..errors import Busy, HostFailed, PgOpsError
from ..host.files import exclusive, failure
from ..instance import configuration, records
from ..instance.configuration import Configuration
from ..instance.layout import Layout

DONE, FAILED, USAGE, BUSY = 0, 1, 2, 75
EXITS = {
    DONE: "done, possibly with errors in parts",
    FAILED: "failed",
    USAGE: "wrong usage",
    BUSY: "the previous run of the same job has not finished",
}
"""Exit codes; 75 is EX_TEMPFAIL of sysexits.h."""

LOG_BYTES = 1024 * 1024

MOST, LONGEST = 50, 1000
"""Errors in a line, and characters of each: users can cause many, and long ones, and the journal cuts long lines."""

Function = Callable[[Configuration, Layout, argparse.Namespace], dict[str, Any]]
"""A job's function: what it returns is logged; ``errors`` are of parts, and make the run fail unless ``delivered``
tells that something was stored. ``printed``: it has told people itself."""


def run(job: Job, function: Function, layout: Layout, options: argparse.Namespace) -> int:
    """Run a job, and say what came of it; returns the exit code."""
    home = layout.keeping if job.as_server else layout.state
    step_down(home)
    began = time.monotonic()  # the clock may be set while the job runs
    outcome, code = _attempt(job, function, layout, home, options)
    seconds = time.monotonic() - began
    if options.scheduled and code != BUSY:
        outcome.update(_recorded(layout, job, time.time(), seconds, len(outcome.get("errors", ())) or code))
    if job.prints and options.output is None:
        for told in [outcome["error"]] if code else outcome["warnings"]:
            terminal.say_all(sys.stderr, told)
        return code
    if outcome.pop("printed", False):
        return code
    log(layout, home, {"job": job.name, **outcome, **brief(outcome), "duration_ms": round(seconds * 1000)})
    return code


def brief(outcome: dict[str, Any]) -> dict[str, list[str]]:
    """The errors of a job as a line of the log has them: the first ones, cut, and how many more there are."""
    errors = [str(error)[:LONGEST] for error in outcome.get("errors", ())]
    more = len(errors[MOST:])
    return {"errors": [*errors[:MOST], *([f"{more} more errors"] if more else [])]} if errors else {}


def _attempt(
    job: Job, function: Function, layout: Layout, home: str, options: argparse.Namespace
) -> tuple[dict[str, Any], int]:
    """What came of a job, and its exit code."""
    try:
        settings = configuration.load(layout)
        if job.as_server and settings.host:
            return {"ok": True, "skipped": "remote: the server's own user on its host is needed", "errors": []}, DONE
        with _alone(job, home):
            outcome = function(settings, layout, options)
        errors = bool(outcome.get("errors"))
        return {"ok": not errors, **outcome}, FAILED if errors and not outcome.get("delivered") else DONE
    except PgOpsError as error:
        return {"ok": False, "error": str(error), "code": error.code}, BUSY if isinstance(error, Busy) else FAILED
    except OSError as error:
        refused = failure(error, "The job's files cannot be written")
        return {"ok": False, "error": str(refused), "code": refused.code}, FAILED


def _alone(job: Job, home: str) -> AbstractContextManager[object]:
    """Keeps other runs of the job out.

    Raises Busy when it is entered.
    """
    if job.locks:
        return contextlib.nullcontext()
    return exclusive(os.path.join(home, f"{job.name}.lock"), seconds=0)


def _recorded(layout: Layout, job: Job, ended: float, seconds: float, errors: int) -> dict[str, Any]:
    try:
        records.note(layout, job.name, ended, seconds, errors)
    except (HostFailed, OSError) as error:
        return {"unrecorded": f"this run cannot be recorded: {error}"}
    return {}


def step_down(home: str) -> None:
    """As root, become the user of a job's directory: what a person tries by hand runs as it does from the timer."""
    if os.geteuid() != 0 or not os.path.isdir(home):
        return
    owner = os.stat(home)
    if owner.st_uid:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
        # libpq would look for certificates in root's home, and take what root's shell sets.
        os.environ["HOME"] = home
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]


def log(layout: Layout, home: str, outcome: dict[str, Any]) -> None:
    """One line of JSON: to the journal by way of standard output, without a journal to a rotated file as well."""
    line = json.dumps({"instance": layout.instance, **outcome}, sort_keys=True)
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    if "JOURNAL_STREAM" in os.environ or sys.stdout.isatty():
        return
    try:
        handler = logging.handlers.RotatingFileHandler(
            os.path.join(home, "agent.log"), maxBytes=LOG_BYTES, backupCount=3
        )
        stamp = datetime.now(timezone.utc).isoformat()
        handler.emit(logging.makeLogRecord({"msg": f"{stamp} {line}"}))
        handler.close()
    except OSError as error:
        terminal.say(sys.stderr, f"the log file cannot be written: {error}")
