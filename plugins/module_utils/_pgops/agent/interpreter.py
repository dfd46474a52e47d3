# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Python that runs the agent and the program that archives: one that each of their users can run. What Ansible
uses may be in root's home, where nobody else can."""

from __future__ import annotations

import importlib.util
import os
import pwd
import site
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import DriverMissing, HostFailed
from ..host import commands
from ..host.identity import as_user
from ..server import target
from .declared import Desired
from .entries import any_layout
from .program import HINT

OTHERS = ("/usr/bin/python3", "/usr/local/bin/python3", "/usr/libexec/platform-python")
"""Where distributions have theirs."""
STARTS = "import sys; sys.exit(sys.version_info < (3, 9))"
NOBODY = "nobody"
"""Stands in for the agent's user until it is created."""


def chosen(wanted: Desired, declared: bool, check_mode: bool) -> Desired:
    """With the Python that is to run the program: the one that is ``declared``, or Ansible's, or where its users
    cannot run that, one of the distribution's.

    Nothing is tried where the program in use has that Python already, and each of its users had it before and still
    may run it.

    Raises HostFailed if there is none, and unless in check mode, where packages may be missing yet, DriverMissing.
    """
    candidates = [replace(wanted, python=path) for path in _candidates(wanted.python, declared)]
    for candidate in candidates:
        if in_use(candidate) and _reached(candidate):
            _check_driver(candidate.python, [], check_mode)
            return candidate
    problems: list[HostFailed] = []
    for candidate in candidates:
        try:
            _check_start(candidate.python, candidate.runners)
        except HostFailed as error:
            problems.append(error)
            continue
        _check_driver(candidate.python, candidate.runners, check_mode)
        return candidate
    raise problems[0]


def _candidates(python: str, declared: bool) -> list[str]:
    return [python, *(path for path in OTHERS if not declared and path != python and os.path.exists(path))]


def in_use(wanted: Desired) -> bool:
    """Whether this very program is in use, by all who are to run it."""
    layout = any_layout(wanted)
    if not os.path.islink(layout.current):
        return False
    if os.path.basename(os.readlink(layout.current)) != wanted.program.version:
        return False
    folders = [(wanted.layout(one.name).state, wanted.user) for one in wanted.instances]
    folders += [(wanted.layout(one.name).keeping, one.owner) for one in wanted.instances if one.owner]
    return not wanted.runners or all(_keeps(folder, owner) for folder, owner in folders)


def _keeps(folder: str, owner: str) -> bool:
    """Whether the jobs of a user have their directory, as after a run that tried the program as that user."""
    try:
        return os.lstat(folder).st_uid == pwd.getpwnam(owner).pw_uid
    except (OSError, KeyError):
        return False


def _reached(wanted: Desired) -> bool:
    """Whether the rights let each of the users run the Python: a directory above may have been closed since."""
    return all(as_user(uid, lambda: os.access(wanted.python, os.X_OK)) for _user, uid in _uids(wanted.runners))


def _check_start(python: str, users: Sequence[str]) -> None:
    """Raises HostFailed."""
    for user, uid in _uids(users):
        try:
            commands.run([python, "-IS", "-c", STARTS], owner=uid)
        except HostFailed as error:
            raise HostFailed(
                f"{python} cannot run the agent: user {user} cannot start it, or it is older than 3.9. "
                f"{error.message}",
                HINT,
            ) from error


def _check_driver(python: str, users: Sequence[str], check_mode: bool) -> None:
    missing = "" if check_mode else driver_missing(python, users)
    if missing:
        raise DriverMissing(missing, target.DRIVER_HINT)


def _uids(users: Iterable[str]) -> list[tuple[str, int]]:
    found = []
    for user in users:
        for name in (user, NOBODY):
            try:
                found.append((user, pwd.getpwnam(name).pw_uid))
                break
            except KeyError:
                continue
    return found


def driver_missing(python: str, users: Sequence[str] = ()) -> str:
    """Why the agent's Python cannot import psycopg 3, for one of the users, or for who runs this; '' if it can."""
    if not users and python == sys.executable:
        # Not imported: the agent's jobs will, and it takes as long as the rest of this module.
        found = importlib.util.find_spec("psycopg")
        if found and not str(found.origin).startswith(site.getusersitepackages()):
            return ""
    owners: list[tuple[str, int | None]] = [*_uids(users)] if users else [("", None)]
    for user, uid in owners:
        try:
            commands.run([python, "-I", "-c", "import psycopg"], owner=uid)
        except HostFailed as error:
            who = f" as user {user}" if user else ""
            return f"{python} cannot import psycopg 3{who}: {error}"
    return ""
