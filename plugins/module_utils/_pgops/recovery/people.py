# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the commands for people have in common: how their options are read, and how they tell what came of them."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import terminal
from ..agent import runner
from ..errors import HostFailed, InvalidInput, PgOpsError
from ..host import files
from ..instance import configuration
from ..instance.configuration import Configuration
from ..instance.layout import Layout, only_instance
from .restore import owner


def own(options: argparse.Namespace) -> Configuration:
    """The agent's configuration of the instance of this host, with a repository unless another one is named.

    Raises InvalidInput and HostFailed.
    """
    layout = Layout(options.instance or only_instance(options.prefix), options.prefix)
    found = configuration.load(layout)
    if not (found.repository or options.repository):
        raise InvalidInput(f"Instance {layout.instance} has no repository.", "Name one with --repository.")
    return found


def absolute(given: str | None) -> str:
    """A path as one from the root; '' for none."""
    return os.path.abspath(given) if given else ""


def port(given: str | None) -> int:
    """The number of a port, 0 for none. Raises InvalidInput."""
    text = given or "0"
    if not text.isdecimal() or int(text) > 65535:
        raise InvalidInput(f"{text!r} is no port.")
    return int(text)


def uid(asked: str | None, repository: str) -> int:
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


def progress(seconds: float, text: str) -> None:
    """Say what happens now."""
    terminal.say(sys.stderr, f"[{seconds:6.1f} s] {text}")


def said(options: argparse.Namespace, result: Mapping[str, Any], lines: Sequence[str]) -> int:
    """Say what came of it; the exit code."""
    if options.json:
        sys.stdout.write(f"{json.dumps({'ok': True, **result}, sort_keys=True)}\n")
    else:
        terminal.say(sys.stdout, *lines)
    return runner.DONE


def failed(options: argparse.Namespace, error: PgOpsError | OSError, code: int) -> int:
    """Say why nothing came of it; the exit code."""
    told = error if isinstance(error, PgOpsError) else files.failure(error, f"{error.filename or 'A file'} failed")
    if options.json:
        document = {"ok": False, "error": str(told), "code": told.code}
        sys.stdout.write(f"{json.dumps(document, sort_keys=True)}\n")
    else:
        terminal.say_all(sys.stderr, f"pgops {options.job}: {told.message}")
        terminal.say(sys.stderr, told.hint)
    return code
