# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs of the host, run with a time limit and without a shell.

The only place that runs any. Ansible's own way (run_command of a module) is not available to the agent.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Collection, Sequence
from typing import Any

from ..errors import HostFailed

SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def run(
    command: Sequence[str], timeout: float = 60.0, accepted: Collection[int] = (0,), owner: int | None = None
) -> str:
    """Run a program in the C locale; returns its standard output.

    ``timeout`` is in seconds; ``accepted`` are the exit codes of success. Started by root, the program runs as the
    user with the uid ``owner``.

    Raises HostFailed with the program's output.
    """
    try:
        finished: subprocess.CompletedProcess[str] = subprocess.run(  # pylint: disable=ansible-bad-function
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "", "PATH": _path()},
            encoding="utf-8",
            errors="backslashreplace",
            check=False,
            **_identity(owner),
        )
    except FileNotFoundError as error:
        raise HostFailed(f"The command {command[0]} was not found on this host.") from error
    except subprocess.TimeoutExpired as error:
        raise HostFailed(f"{_shown(command)} did not finish within {timeout:g} seconds.") from error
    except OSError as error:
        raise HostFailed(f"{_shown(command)} cannot be run: {error.strerror or error}.") from error
    if finished.returncode not in accepted:
        output = " ".join((finished.stderr.strip() or finished.stdout.strip()).split())
        raise HostFailed(f"{_shown(command)} failed with exit code {finished.returncode}: {output or 'no output'}")
    return finished.stdout


def _identity(owner: int | None) -> dict[str, Any]:
    if owner is None or os.geteuid() != 0 or owner == 0:
        return {}
    try:
        user = pwd.getpwuid(owner)
    except KeyError as error:
        raise HostFailed(f"This host has no user with the uid {owner}.") from error
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return {"user": owner, "group": user.pw_gid, "extra_groups": groups, "cwd": "/"}


def _path() -> str:
    """The search path for programs. Depending on how a user becomes root, PATH may lack these directories."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM])


def _shown(command: Sequence[str]) -> str:
    """The start of a command: enough to recognise it, without a list of a hundred names."""
    text = " ".join(command)
    return text if len(text) <= 120 else text[:117] + "..."
