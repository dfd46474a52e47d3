# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's command: ``pgops [--instance NAME] JOB``. Timers run it, people may."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from typing import Any, cast

from . import terminal
from .agent import runner
from .capabilities import COMMANDS, JOBS, Command, Flag, Job
from .errors import InvalidInput
from .instance.layout import Layout, only_instance
from .version import VERSION


def main(arguments: list[str] | None = None) -> int:
    """Run one job; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.job == "version":
        sys.stdout.write(f"{VERSION}\n")
        return runner.DONE
    if options.job in COMMANDS:
        return int(_called(COMMANDS[options.job])(options))
    try:
        prefix = options.prefix
        layout = Layout(options.instance or only_instance(prefix), prefix)
    except InvalidInput as error:
        terminal.say_all(sys.stderr, f"pgops: {error}")
        return runner.USAGE
    job = JOBS[options.job]
    return runner.run(job, function(job), layout, options)


def function(job: Job) -> runner.Function:
    """What a job does; only its own package is read."""
    return cast(runner.Function, _called(job))


def _called(what: Job | Command) -> Callable[..., Any]:
    file, _colon, name = what.run.partition(":")
    return cast(Callable[..., Any], getattr(importlib.import_module(f".{file}", __package__), name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pgops",
        parents=[_common()],
        description="The agent of pgops.fleet on a PostgreSQL host.",
        epilog="Exit codes: " + "; ".join(f"{code}: {meaning}" for code, meaning in runner.EXITS.items()) + ".",
    )
    parser.set_defaults(instance=None, prefix="/", scheduled=False)
    commands = parser.add_subparsers(dest="job", metavar="JOB", required=True)
    every: list[Job | Command] = [*JOBS.values(), *COMMANDS.values()]
    for one in every:
        command = commands.add_parser(one.name, parents=[_common()], help=one.help, description=one.help)
        for flag in one.flags:
            _add(command, flag)
    commands.add_parser("version", help="print the version")
    return parser


def _common() -> argparse.ArgumentParser:
    """The options of every job, before or after its name."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--instance", help="the instance; optional if the host has only one")
    common.add_argument("--prefix", help="installation prefix; default /")
    scheduled = "record this run as one of the schedule, as timers do: the job's age and errors become metrics"
    common.add_argument("--scheduled", action="store_true", help=scheduled)
    return common


def _add(command: argparse.ArgumentParser, flag: Flag) -> None:
    if flag.many:
        command.add_argument(flag.name, help=flag.help, metavar=flag.value, action="append", default=[])
    elif flag.value:
        command.add_argument(flag.name, help=flag.help, metavar=flag.value, nargs="?", const="")
    else:
        command.add_argument(flag.name, help=flag.help, action="store_true")
