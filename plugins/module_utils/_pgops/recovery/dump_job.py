# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command ``pgops restore-dump``, for people: a plan, what happens meanwhile, and what to do next."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Mapping
from typing import Any

from ..agent import runner
from ..errors import InvalidInput, PgOpsError
from ..host import identity
from . import people
from .database import Request, plan
from .database import restore as restored

MOST_JOBS = 128


def restore(options: argparse.Namespace) -> int:
    """Restore a database as the options say, and tell people about it; the exit code."""
    try:
        request = _request(options)
    except PgOpsError as error:
        return people.failed(options, error, runner.USAGE)
    try:
        # Nothing of it needs root's rights: the repository is the server's user's, who logs in as a superuser.
        identity.become(people.uid(options.owner, request.repository))
        os.chdir("/")  # where that user may look
        began = time.monotonic()
        if options.plan:
            told = plan(request).told()
            return people.said(options, told, [*_about(told), "Nothing was changed."])
        result = restored(request, lambda text: people.progress(time.monotonic() - began, text))
        return people.said(options, result, [*_about(result), *_next(request, result)])
    except (PgOpsError, OSError) as error:
        return people.failed(options, error, runner.FAILED)


def _request(options: argparse.Namespace) -> Request:
    """What the options ask for.

    Raises InvalidInput and HostFailed.
    """
    if not options.database:
        raise InvalidInput("Which database was dumped is not clear.", "Name it with --database NAME.")
    if bool(options.to) == bool(options.into):
        raise InvalidInput("Where to is not clear.", "Choose --to NAME or --into NAME.")
    # Without the agent, as on a host that has only a copy of the repository, both are given.
    known = None if options.repository and options.port else people.own(options)
    port = people.port(options.port) or (known.port if known else 0)
    if not port:
        raise InvalidInput(f"{options.port!r} is no port.")
    return Request(
        repository=os.path.abspath(options.repository or (known.repository if known else "")),
        generation=options.generation or "",
        database=options.database,
        name=options.to or options.into,
        socket_directory=people.absolute(options.socket_directory) or (known.socket_directory if known else ""),
        port=port,
        dump=options.dump or "",
        existing=bool(options.into),
        superuser=options.superuser or (known.superuser if known else ""),
        bin_directory=people.absolute(options.bin_directory),
        jobs=_jobs(options.jobs),
        owners=not options.no_owners,
        tablespaces=not options.no_tablespaces,
    )


def _jobs(given: str | None) -> int:
    """Raises InvalidInput."""
    text = given or "1"
    if not text.isdecimal() or not 1 <= int(text) <= MOST_JOBS:
        raise InvalidInput(f"{text!r} is no number of jobs.", f"It can be 1 to {MOST_JOBS}.")
    return int(text)


# --- what people read


def _about(told: Mapping[str, Any]) -> list[str]:
    dump = told["dump"]
    space = [
        f"Space:        {path}: {one['needed'] >> 20} MB needed, {one['free'] >> 20} MB free"
        for path, one in told["space"].items()
    ]
    return [
        f"Dump:         {dump['name']} of database {dump['database']} (as of {dump['started_at']})",
        f"Into:         database {told['name']}, {'which is empty' if told['existing'] else 'which is new'}",
        f"Versions:     PostgreSQL {told['dumped_from']} then, {told['server_version']} now",
        f"By:           {told['program']}, {told['jobs']} at a time",
        *space,
        *(f"Warning:      {warning}" for warning in told["warnings"]),
    ]


def _next(request: Request, result: Mapping[str, Any]) -> list[str]:
    """What it took, and what to do now."""
    phases = ", ".join(f"{one['phase']} {one['seconds']:.1f} s" for one in result["phases"])
    analyze = f"vacuumdb --port {request.port} --analyze-in-stages {shlex.quote(request.name)}"
    return [
        f"It took:      {phases}",
        f"Next:         its statistics, before it is used: {analyze}",
        "Not restored: what ALTER DATABASE had set, and the rights on the database itself.",
    ]
