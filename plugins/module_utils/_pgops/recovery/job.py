# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command ``pgops restore``, for people: a plan, what happens meanwhile, and what to do next; and the job of
recovery drills."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..agent import runner
from ..errors import InvalidInput, PgOpsError
from ..host import files, identity
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..repository.restores import ASSUMED, BACKUP, ELSEWHERE, HERE
from . import people, targets
from .drill import drill as drilled
from .restore import Planned, Restore, only_generation, plan
from .restore import restore as restored


def drill(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Prove that the cluster can be recovered: on schedule if that is due."""
    return drilled(settings, layout, options.backup or "", options.scheduled)


def restore(options: argparse.Namespace) -> int:
    """Restore as the options say, and tell people about it; the exit code."""
    try:
        request = _request(options)
    except PgOpsError as error:
        return people.failed(options, error, runner.USAGE)
    with files.umask(0o077):
        return _restored(options, request)


def _restored(options: argparse.Namespace, request: Restore) -> int:
    try:
        # Nothing of it needs root's rights, and what it works on belongs to the server's user.
        identity.become(people.uid(options.owner, request.repository))
        os.chdir("/")  # where that user may look
        began = time.monotonic()
        if options.plan:
            planned = plan(request, lambda text: people.progress(time.monotonic() - began, text))
            return people.said(options, {**planned.told(), "warnings": list(planned.warnings)}, _outlook(planned))
        result = restored(request, lambda text: people.progress(time.monotonic() - began, text))
        return people.said(options, result, [*_outcome(result), *_next(request, result)])
    except (PgOpsError, OSError) as error:
        return people.failed(options, error, runner.FAILED)


def _request(options: argparse.Namespace) -> Restore:
    """What the options ask for.

    Raises InvalidInput and HostFailed.
    """
    if bool(options.to) == bool(options.in_place):
        raise InvalidInput("Where to is not clear.", "Choose --to DIRECTORY or --in-place DIRECTORY.")
    kinds = {kind: getattr(options, kind) for kind in targets.KINDS}
    target = targets.parse({**kinds, "timeline": options.timeline, "inclusive": not options.exclusive})
    end = options.end or targets.PROMOTE
    targets.check_end(target, end)
    repository = options.repository or people.own(options).repository
    return Restore(
        repository=os.path.abspath(repository),
        generation=options.generation or only_generation(repository),
        directory=os.path.abspath(options.to or options.in_place),
        target=target,
        end=end,
        in_place=bool(options.in_place),
        tablespace_map=_map(options.tablespace),
        bin_directory=people.absolute(options.bin_directory),
        server_directory=people.absolute(options.server_bin_directory),
        port=people.port(options.port),
        superuser=options.superuser or "",
        configuration=people.absolute(options.configuration),
        search_directory=people.absolute(options.search_directory),
        search_seconds=_seconds(options.search_seconds),
        preload=None if options.preload is None else _names(options.preload),
        shared_buffers=options.shared_buffers or "",
    )


def _map(given: Sequence[str]) -> dict[str, str]:
    """Raises InvalidInput."""
    pairs = [one.partition("=") for one in given]
    for old, _equals, new in pairs:
        if not os.path.isabs(old) or not os.path.isabs(new):
            raise InvalidInput(f"{old}{_equals}{new} is not OLD=NEW.", "Write two absolute paths.")
    return {os.path.normpath(old): os.path.normpath(new) for old, _equals, new in pairs}


def _names(given: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, given.split(","))))


def _seconds(given: str | None) -> float:
    """Raises InvalidInput."""
    if not (given or "0").isdecimal():
        raise InvalidInput(f"{given!r} is no number of seconds.")
    return float(given or "0")


# --- what people read


def _outlook(planned: Planned) -> list[str]:
    told = planned.told()
    space = [
        f"Space:        {path}: {one['needed'] >> 20} MB needed, {one['free'] >> 20} MB free"
        for path, one in told["space"].items()
    ]
    return [
        f"Target:       {told['target']}, on timeline {told['timeline']}",
        f"Backup:       {' + '.join(told['backup']['chain'])} (of {told['backup']['completed_at']})",
        f"WAL:          from {told['first_segment']} to at most {told['last_segment']}",
        f"Last commit:  {told['last_commit'] or 'not looked for'}",
        *space,
        f"It may take:  {_forecast(told['predicted'])}",
        f"Into:         {told['directory']}{', the old data is moved aside' * planned.request.in_place}",
        f"In the end:   {told['end']}",
        *(f"Warning:      {warning}" for warning in planned.warnings),
        "Nothing was changed.",
    ]


def _forecast(predicted: Mapping[str, Any]) -> str:
    """The seconds of a restore in words, and what each part is known by."""
    known = {
        HERE: "",
        ELSEWHERE: " (as on other hosts)",
        BACKUP: " (as long as the backup)",
        ASSUMED: " (a guess)",
    }
    parts = [f"{one['part']} {one['seconds']:.1f} s{known[one['basis']]}" for one in predicted["parts"]]
    return f"{predicted['seconds']:.1f} s: {', '.join(parts)}"


def _outcome(result: Mapping[str, Any]) -> list[str]:
    reached = result["reached"]
    phases = ", ".join(f"{one['phase']} {one['seconds']:.1f} s" for one in result["phases"])
    return [
        f"Restored {result['target']} from backup {result['backup']['name']} into {result['directory']}.",
        f"Reached LSN {reached['lsn']}, last commit {reached['time'] or 'none'}, timeline {reached['timeline']}.",
        f"It took: {phases}; together {sum(one['seconds'] for one in result['phases']):.1f} s.",
        f"Predicted were {_forecast(result['predicted'])}.",
        *(f"The old {old} is now {new}; remove it once it is not needed." for old, new in result["moved"].items()),
        *(f"Warning: {warning}" for warning in result["warnings"]),
    ]


def _next(request: Restore, result: Mapping[str, Any]) -> list[str]:
    """What to do now."""
    folder = result["socket_directory"]
    connect = f"psql -h {shlex.quote(str(folder))} -p {result['port']} postgres"
    if request.end == targets.SHUTDOWN:
        return ["The server is stopped at the target. Started again, it recovers to it, and waits there."]
    if request.end == targets.PAUSED:
        return [f"The server waits at the target, and can be read: {connect}", "To let it write: SELECT pg_promote()"]
    if request.in_place:
        return ["The server is stopped. Start it as usual: systemctl start, pg_ctlcluster or pg_ctl."]
    return [f"The server runs: {connect}"]
