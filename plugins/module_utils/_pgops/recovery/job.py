# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command ``pgops restore``, for people: a plan, what happens meanwhile, and what to do next."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .. import terminal
from ..agent import runner
from ..errors import HostFailed, InvalidInput, PgOpsError
from ..host import files, identity
from ..instance import configuration
from ..instance.layout import Layout, only_instance
from ..repository.restores import ASSUMED, BACKUP, ELSEWHERE, HERE
from . import targets
from .restore import Planned, Restore, only_generation, owner, plan
from .restore import restore as restored


def restore(options: argparse.Namespace) -> int:
    """Restore as the options say, and tell people about it; the exit code."""
    try:
        request = _request(options)
    except PgOpsError as error:
        return _failed(options, error, runner.USAGE)
    with files.umask(0o077):
        return _restored(options, request)


def _restored(options: argparse.Namespace, request: Restore) -> int:
    try:
        # Nothing of it needs root's rights, and what it works on belongs to the server's user.
        identity.become(_owner(options.owner, request.repository))
        os.chdir("/")  # where that user may look
        began = time.monotonic()
        if options.plan:
            planned = plan(request, lambda text: _progress(time.monotonic() - began, text))
            return _said(options, {**planned.told(), "warnings": list(planned.warnings)}, _outlook(planned))
        result = restored(request, lambda text: _progress(time.monotonic() - began, text))
        return _said(options, result, [*_outcome(result), *_next(request, result)])
    except (PgOpsError, OSError) as error:
        return _failed(options, error, runner.FAILED)


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
    repository = options.repository or _repository(options)
    return Restore(
        repository=os.path.abspath(repository),
        generation=options.generation or only_generation(repository),
        directory=os.path.abspath(options.to or options.in_place),
        target=target,
        end=end,
        in_place=bool(options.in_place),
        tablespace_map=_map(options.tablespace),
        bin_directory=_absolute(options.bin_directory),
        server_directory=_absolute(options.server_bin_directory),
        port=_port(options.port),
        superuser=options.superuser or "",
        configuration=_absolute(options.configuration),
        search_directory=_absolute(options.search_directory),
        search_seconds=_seconds(options.search_seconds),
        preload=None if options.preload is None else _names(options.preload),
        shared_buffers=options.shared_buffers or "",
    )


def _repository(options: argparse.Namespace) -> str:
    """That of the instance of this host. Raises InvalidInput and HostFailed."""
    layout = Layout(options.instance or only_instance(options.prefix), options.prefix)
    found = configuration.load(layout).repository
    if not found:
        raise InvalidInput(f"Instance {layout.instance} has no repository.", "Name one with --repository.")
    return found


def _map(given: Sequence[str]) -> dict[str, str]:
    """Raises InvalidInput."""
    pairs = [one.partition("=") for one in given]
    for old, _equals, new in pairs:
        if not os.path.isabs(old) or not os.path.isabs(new):
            raise InvalidInput(f"{old}{_equals}{new} is not OLD=NEW.", "Write two absolute paths.")
    return {os.path.normpath(old): os.path.normpath(new) for old, _equals, new in pairs}


def _absolute(given: str | None) -> str:
    return os.path.abspath(given) if given else ""


def _port(given: str | None) -> int:
    """Raises InvalidInput."""
    text = given or "0"
    if not text.isdecimal() or int(text) > 65535:
        raise InvalidInput(f"{text!r} is no port.")
    return int(text)


def _owner(asked: str | None, repository: str) -> int:
    """The uid of the user that runs the server. Raises HostFailed."""
    if not asked:
        return owner(repository)
    try:
        found = pwd.getpwnam(asked).pw_uid
    except KeyError as error:
        raise HostFailed(f"This host has no user {asked}.") from error
    if os.geteuid() not in (0, found):
        raise HostFailed(f"Only root restores for user {asked}.", "Run it as root, or as that user.")
    return found


def _names(given: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, given.split(","))))


def _seconds(given: str | None) -> float:
    """Raises InvalidInput."""
    if not (given or "0").isdecimal():
        raise InvalidInput(f"{given!r} is no number of seconds.")
    return float(given or "0")


# --- what people read


def _progress(seconds: float, text: str) -> None:
    terminal.say(sys.stderr, f"[{seconds:6.1f} s] {text}")


def _said(options: argparse.Namespace, result: Mapping[str, Any], lines: Sequence[str]) -> int:
    if options.json:
        sys.stdout.write(f"{json.dumps({'ok': True, **result}, sort_keys=True)}\n")
    else:
        terminal.say(sys.stdout, *lines)
    return runner.DONE


def _failed(options: argparse.Namespace, error: PgOpsError | OSError, code: int) -> int:
    told = error if isinstance(error, PgOpsError) else files.failure(error, f"{error.filename or 'A file'} failed")
    if options.json:
        document = {"ok": False, "error": str(told), "code": told.code}
        sys.stdout.write(f"{json.dumps(document, sort_keys=True)}\n")
    else:
        terminal.say_all(sys.stderr, f"pgops restore: {told.message}")
        terminal.say(sys.stderr, told.hint)
    return code


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
