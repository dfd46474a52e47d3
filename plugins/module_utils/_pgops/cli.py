# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's command: ``pgops [--instance NAME] JOB``. Timers run it, people may."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import cast

from .agent import runner
from .capabilities import JOBS, Flag, Job
from .errors import InvalidInput
from .instance.layout import Layout
from .version import VERSION


def main(arguments: list[str] | None = None) -> int:
    """Run one job; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.job == "version":
        sys.stdout.write(f"{VERSION}\n")
        return runner.DONE
    try:
        prefix = options.prefix
        layout = Layout(options.instance or only_instance(prefix), prefix)
    except InvalidInput as error:
        sys.stderr.write(f"pgops: {error}\n")
        return runner.USAGE
    job = JOBS[options.job]
    return runner.run(job, function(job), layout, options)


def function(job: Job) -> runner.Function:
    """What a job does; only its own package is read."""
    file, _colon, name = job.run.partition(":")
    return cast(runner.Function, getattr(importlib.import_module(f".{file}", __package__), name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pgops",
        parents=[_common()],
        description="The agent of pgops.fleet on a PostgreSQL host.",
        epilog="Exit codes: " + "; ".join(f"{code}: {meaning}" for code, meaning in runner.EXITS.items()) + ".",
    )
    parser.set_defaults(instance=None, prefix="/", scheduled=False)
    commands = parser.add_subparsers(dest="job", metavar="JOB", required=True)
    for job in JOBS.values():
        command = commands.add_parser(job.name, parents=[_common()], help=job.help, description=job.help)
        for flag in job.flags:
            _add(command, flag)
    commands.add_parser("version", help="print the version")
    return parser


def _common() -> argparse.ArgumentParser:
    """The options of every job, before or after its name."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--instance", help="the instance; may be left out where the host has only one")
    common.add_argument("--prefix", help="where the agent was installed, if not below /")
    scheduled = "record this run as one of the schedule, as timers do: the job's age and errors become metrics"
    common.add_argument("--scheduled", action="store_true", help=scheduled)
    return common


def _add(command: argparse.ArgumentParser, flag: Flag) -> None:
    if flag.value:
        command.add_argument(flag.name, help=flag.help, metavar=flag.value, nargs="?", const="")
    else:
        command.add_argument(flag.name, help=flag.help, action="store_true")


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
