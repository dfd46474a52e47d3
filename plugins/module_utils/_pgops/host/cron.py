# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""cron's file of an instance's recurring jobs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import signal
import time
from collections.abc import Iterable, Sequence

from ..errors import HostFailed, InvalidInput

MARKER = re.compile(r"^# pgops\.fleet: instance (?P<instance>\S+)$", re.MULTILINE)
LONGEST = 990
"""Vixie cron ignores the whole file if a command has 1000 characters."""

HEADER = """\
# pgops.fleet: instance {instance}
# Managed by the Ansible collection pgops.fleet; edits are reverted.
# Each job starts after a delay that is fixed for this host, and is killed after its time limit.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C.UTF-8
MAILTO=""
"""


def owner(content: bytes) -> str | None:
    """The instance that a crontab belongs to; None for a file that is not ours."""
    found = MARKER.search(content.decode("utf-8", "replace"))
    return found.group("instance") if found else None


def text(instance: str, lines: Iterable[str]) -> bytes:
    """The file with its jobs' lines."""
    return (HEADER.format(instance=instance) + "".join(f"{line}\n" for line in lines)).encode()


def line(fields: str, user: str, command: Sequence[str], delay: int, time_limit: int) -> str:
    """One job's line. ``fields`` are cron's five, ``delay`` and ``time_limit`` seconds.

    The output of the job goes to the system's log, since a job that cannot even start has no log of its own.

    Raises InvalidInput if cron would not accept the line.
    """
    limited = ["timeout", "--kill-after=30", str(time_limit), *command]
    job = f"sleep {delay}; {shlex.join(limited)}" if delay else shlex.join(limited)
    # to cron an unescaped % is the end of the line
    shell = f"{{ {job}; }} 2>&1 | logger -t pgops".replace("%", "\\%")
    if len(shell) > LONGEST:
        raise InvalidInput(f"The command is longer than cron's limit of {LONGEST} characters: {shell[:100]}...")
    return f"{fields} {user} {shell}"


def delay(jitter: int, *names: str) -> int:
    """Seconds from 0 to ``jitter``, always the same for the same names (host, instance, job)."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") % (jitter + 1)


def stop(command: Sequence[str], seconds: float = 10.0) -> None:
    """End the processes of a command that cron has started, even those that wait for their delay, and wait for their
    end.

    Raises HostFailed.
    """
    deadline = time.monotonic() + seconds
    while found := _running(shlex.join(command)):
        if time.monotonic() > deadline:
            raise HostFailed(f"{shlex.join(command)} is still running (process {found[0]}).", "Kill it, then retry.")
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                # the shell that cron starts leads a group, in which its sleep is
                leads = os.getpgid(process) == process
                (os.killpg if leads else os.kill)(process, signal.SIGTERM)
        time.sleep(0.1)


def _running(command: str) -> list[int]:
    """The processes whose command line contains a command: cron's shell, timeout, and the command itself."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
            line = file.read().replace(b"\0", b" ").decode("utf-8", "replace")
            if f"{command} " in line and int(process) != os.getpid():
                found.append(int(process))
    return found


def installed() -> bool:
    """Whether a cron daemon is on this host."""
    return any(os.access(f"/usr/sbin/{name}", os.X_OK) for name in ("cron", "crond"))
