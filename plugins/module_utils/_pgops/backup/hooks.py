# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hooks: programs of the administrator's that run before and after a backup or a dump, as the server's user."""

from __future__ import annotations

import os
import stat

from ..errors import HostFailed, InvalidInput
from ..host import commands

LONGEST = 3600.0
"""Seconds that a hook may take."""


def check(program: str) -> None:
    """Raises InvalidInput for a program that another than root could change, or that is none; '' is no hook."""
    if not program:
        return
    if not os.path.isabs(program):
        raise InvalidInput(f"The hook {program!r} is not an absolute path.")
    path = os.path.realpath(program)
    try:
        found = os.stat(path)
        folders = [path[:at] or "/" for at, character in enumerate(path) if character == "/"]
        loose = [one for one in (path, *folders) if _loose(os.stat(one), one == path)]
    except OSError as error:
        raise InvalidInput(f"The hook {program} cannot be read: {error.strerror}.") from error
    if loose:
        raise InvalidInput(
            f"The hook {program} is not run: others than root can change {loose[0]}.",
            "Give it to root, and let nobody else write it or the directories above it.",
        )
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.X_OK):
        raise InvalidInput(f"The hook {program} is not a program that this user can run.")


def _loose(found: os.stat_result, file: bool) -> bool:
    """Whether others than root can change a path: in a sticky directory nobody moves what is root's."""
    sticky = not file and found.st_mode & stat.S_ISVTX
    return found.st_uid != 0 or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky)


def run(program: str, *words: str) -> None:
    """Run a hook with some words as its arguments; nothing for ''.

    Raises InvalidInput as `check` does, and HostFailed if it fails.
    """
    if not program:
        return
    check(program)
    try:
        commands.run([program, *words], LONGEST)
    except HostFailed as error:
        # The name of a database may be of bytes that are no text.
        message = error.message.encode("utf-8", "backslashreplace").decode()
        raise HostFailed(f"The hook {message}", error.hint) from error


def after(program: str, *words: str) -> list[str]:
    """Run the hook after something; its error, if there is one."""
    try:
        run(program, "after", *words)
    except (HostFailed, InvalidInput) as error:
        return [str(error)]
    return []
