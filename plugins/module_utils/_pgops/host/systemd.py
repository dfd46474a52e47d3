# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd's units of recurring jobs: their text, their instances, and their states."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import InvalidInput
from . import commands
from .calendars import EXAMPLES

MARKER = re.compile(r"^\[X-Pgops\]\nInstance=(?P<instance>.*)$", re.MULTILINE)
PLACE = re.compile(r"^(?:0::|\d+:name=systemd:)(/.*)$", re.MULTILINE)
NEEDS_QUOTES = re.compile(r"[^A-Za-z0-9_@+=:,./-]")

HEADER = """\
# Managed by the Ansible collection pgops.fleet; edits are reverted.
# Put your own settings into a drop-in: systemctl edit {unit}

"""
SERVICE = """\
[Unit]
Description=PostgreSQL {instance}: {job}
Documentation=https://github.com/pgops/fleet

[Service]
Type=oneshot
User={user}
ExecStart={command}
TimeoutStartSec={time_limit}
TimeoutStopSec=30
SyslogIdentifier=pgops
Environment=LC_ALL=C.UTF-8
UMask=0077
# PostgreSQL has priority, and this job is killed first if memory runs out.
Nice=5
IOSchedulingClass=best-effort
IOSchedulingPriority=7
OOMScoreAdjust=500
{share}# /tmp stays the host's, since the server's socket may be there; a server that a job starts may compile (JIT).
ProtectSystem=strict
{writable}NoNewPrivileges=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
{families}RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
LockPersonality=true
{capabilities}
[X-Pgops]
Instance={instance}
Job={job}
"""
SHARE = """\
# It works in the background for long, with servers of its own.
CPUWeight=20
IOWeight=20
MemoryHigh=25%
"""
NETWORK = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n"
NO_NETWORK = """\
# Nothing that it starts reaches another host, or is reached.
RestrictAddressFamilies=AF_UNIX AF_NETLINK
IPAddressDeny=any
"""
TIMER = """\
[Unit]
Description=PostgreSQL {instance}: {job}
Documentation=https://github.com/pgops/fleet

[Timer]
OnCalendar={calendar}
AccuracySec=1s
RandomizedDelaySec={jitter}
# A delay that is fixed for this host; systemd before 247 draws a new one each time.
FixedRandomDelay=true
Persistent=false

[Install]
WantedBy=timers.target

[X-Pgops]
Instance={instance}
Job={job}
"""


class Limits(NamedTuple):
    """What a job may take: seconds, the paths that it writes to, in the ``background`` a small share of the host's
    processors, disks and memory, and whether the ``network``."""

    time_limit: int
    writable: Sequence[str]
    background: bool = False
    network: bool = True


@dataclass(frozen=True)
class State:
    """The state of a unit. ``outdated``: its file was changed and not reloaded."""

    active: str = "inactive"
    outdated: bool = False


def unit_name(instance: str, job: str, suffix: str) -> str:
    """The unit of a job. Two instances can get the same name (a with b-c, a-b with c); see `owner`."""
    return f"pgops-{instance}-{job}.{suffix}"


def owner(content: bytes) -> str | None:
    """The instance that a unit file belongs to; None for a file that is not ours."""
    found = MARKER.search(content.decode("utf-8", "replace"))
    return found.group("instance") if found else None


def service(instance: str, job: str, user: str, command: Sequence[str], limits: Limits) -> bytes:
    """The service of a job."""
    paths = "".join(f"ReadWritePaths=-{quoted(path)}\n" for path in limits.writable)
    # root without any capability could not even read postgres's files
    capabilities = "" if user == "root" else "CapabilityBoundingSet=\n"
    text = SERVICE.format(
        instance=instance,
        job=job,
        user=user,
        command=" ".join(quoted(word).replace("$", "$$") for word in command),
        time_limit=limits.time_limit,
        share=SHARE if limits.background else "",
        families=NETWORK if limits.network else NO_NETWORK,
        writable=paths,
        capabilities=capabilities,
    )
    return (HEADER.format(unit=unit_name(instance, job, "service")) + text).encode()


def timer(instance: str, job: str, calendar: str, jitter: int) -> bytes:
    """The timer of a job. ``jitter`` is in seconds."""
    text = TIMER.format(instance=instance, job=job, calendar=calendar, jitter=jitter)
    return (HEADER.format(unit=unit_name(instance, job, "timer")) + text).encode()


def quoted(word: str) -> str:
    """A word as unit files need it; systemd.syntax(7), "Quoting", and systemd.unit(5), "Specifiers"."""
    word = word.replace("%", "%%")
    if word and not NEEDS_QUOTES.search(word.replace("%%", "")):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def booted() -> bool:
    """Whether systemd runs this host; sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def states(names: Iterable[str]) -> dict[str, State]:
    """The states of units, from one call.

    Raises HostFailed.
    """
    names = sorted(names)
    if not names or not booted():
        return {}
    shown = _systemctl("show", "--property=Id,ActiveState,NeedDaemonReload", "--", *names)
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.split("\n\n")]
    return {
        block["Id"]: State(block.get("ActiveState", ""), block.get("NeedDaemonReload") == "yes")
        for block in blocks
        if "Id" in block
    }


def properties(name: str, *wanted: str) -> dict[str, str]:
    """The properties of a unit that are named, as systemd writes them; those that it does not know are left out.

    Raises HostFailed.
    """
    shown = _systemctl("show", f"--property={','.join(wanted)}", "--", name)
    return dict(line.partition("=")[::2] for line in shown.splitlines())


def units_of(cgroup: str) -> tuple[str, ...]:
    """The services and scopes that a process belongs to, the outermost first, from its file ``cgroup`` in /proc: a
    process of a user's own manager belongs to the service of that manager, too. None outside of systemd."""
    for path in PLACE.findall(cgroup):
        found = tuple(part for part in path.split("/") if part.endswith((".service", ".scope")))
        if found:
            return found
    return ()


def stop(names: Sequence[str]) -> None:
    """Stop units and their processes; an unknown unit (exit code 5) counts as stopped.

    Raises HostFailed.
    """
    # a job has TimeoutStopSec to end
    _systemctl("stop", "--", *names, accepted=(0, 5), timeout=120)


def reload() -> None:
    """Make systemd reload changed unit files. Raises HostFailed."""
    _systemctl("daemon-reload", timeout=120)


def start(names: Sequence[str]) -> None:
    """Start timers. Raises HostFailed."""
    _systemctl("start", "--", *names)


def forget(names: Sequence[str]) -> None:
    """Reset the failures of removed units; the exit code is 1 for unknown ones."""
    _systemctl("reset-failed", "--", *names, accepted=(0, 1, 5))


def _systemctl(*arguments: str, accepted: Sequence[int] = (0,), timeout: float = 60) -> str:
    command = ["systemctl", "--no-ask-password", *arguments]
    return commands.run(command, timeout=timeout, accepted=accepted)


def check_calendars(calendars: dict[str, str]) -> None:
    """Check the calendars of jobs, by the jobs' names, with systemd; one call if all are valid.

    Raises InvalidInput for the first that systemd does not accept, or that never elapses, and HostFailed.
    """
    if not calendars or _next_elapses(calendars.values()) == len(calendars):
        return
    for job, calendar in calendars.items():
        if _next_elapses([calendar]) != 1:
            raise InvalidInput(
                f"Job {job}: '{calendar}' is not a valid systemd calendar, or never elapses.",
                f"Examples: {EXAMPLES}. Test others with: systemd-analyze calendar.",
            )


def _next_elapses(calendars: Iterable[str]) -> int:
    """How many of the calendars elapse in the future; the exit code is 1 if one is invalid."""
    output = commands.run(["systemd-analyze", "calendar", "--", *calendars], accepted=(0, 1))
    return len(re.findall(r"^\s*Next elapse: (?!never$)", output, re.MULTILINE))
