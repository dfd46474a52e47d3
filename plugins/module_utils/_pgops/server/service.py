# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a server is started and stopped: by systemd, by Debian's tools, or by PostgreSQL's own."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import Conflict, HostFailed, Unsupported
from ..host import commands, systemd
from ..host.files import user_name
from ..host.identity import as_user
from . import discovery, postmaster, units
from .postmaster import Postmaster
from .session import Session

LONGEST_START = 600
"""Seconds that a server may take to stop and start: recovery after a crash takes its time."""
LAST_LINES = 12
OF_CLIENTS = re.compile(
    r"\b(STATEMENT|QUERY|CONTEXT):  |\bstatement: |\b(execute|parse|bind|fastpath) [^:]{0,80}: |[Pp]arameters: "
    r"|DETAIL:  (Key|Failing row|prepare:|Array value)\b|changed to \""
)
"""What comes with a client's own text in a line of the log; the lines after it that begin with a tab belong to it."""
MOST_LOGS = 1000
"""Files of logs that are looked at."""


@dataclass(frozen=True)
class Service:
    """How the server of a data directory is started.

    ``unit`` is systemd's, ``cluster`` Debian's name (17-main); both empty for a server that pg_ctl of
    ``bin_directory`` starts. ``log`` is the file that its standard error goes to, where it is one.
    """

    data_directory: str
    bin_directory: str
    owner: int
    unit: str = ""
    cluster: str = ""
    log: str = ""
    arguments: tuple[str, ...] = ()
    """Those of the server's command line."""
    configuration: str = ""
    """Its main configuration file."""
    obstacle: str = ""
    """Why it cannot be restarted by what started it, where that is so."""


def of(session: Session) -> Service:
    """How the server of a session was started.

    Raises Unsupported if it cannot be restarted from here, and HostFailed.
    """
    found = postmaster.of(session)
    if found.process == 1:
        raise Unsupported(
            "The server is the first process of a container; restarting it would end the container.",
            "Set restart=never, and restart the container to apply the settings.",
        )
    unit, obstacle = units.holding(found.process)
    return Service(
        data_directory=found.data_directory,
        bin_directory=found.bin_directory,
        owner=found.owner,
        unit=unit,
        cluster=_cluster(found),
        log=found.log,
        arguments=_arguments(found.process),
        obstacle=obstacle,
    )


def _arguments(process: int) -> tuple[str, ...]:
    with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
        return tuple(os.fsdecode(word) for word in file.read().rstrip(b"\0").split(b"\0")[1:])
    return ()


def _cluster(found: Postmaster) -> str:
    user = user_name(found.owner)
    for instance in discovery.instances():
        data = instance.data_directory
        if instance.version and instance.owner == user and data and os.path.realpath(data) == found.data_directory:
            return instance.name
    return ""


def check_rights(service: Service) -> None:
    """Raises Unsupported if the user of this process may not restart the server."""
    if os.geteuid() in ({0} if service.unit else {0, service.owner}):
        return
    what = f"the unit {service.unit}" if service.unit else "the server"
    raise Unsupported(f"Only root may restart {what}.", "Run this as root (become: true).")


def check_restart(service: Service) -> None:
    """Ask all that could refuse a restart, before anything is changed.

    Raises Unsupported, Conflict and HostFailed.
    """
    check_rights(service)
    if service.obstacle:
        raise Unsupported(
            f"{service.obstacle} So the server is not restarted.",
            "Set restart=never, and restart it in the way in which it was started.",
        )
    if service.unit:
        units.check(service.unit)
    if service.cluster and (service.unit.startswith("postgresql@") or not systemd.booted()):
        _check_cluster(service.cluster)


def _check_cluster(cluster: str) -> None:
    """Debian's tools stop a cluster that is disabled, but do not start it again (pg_ctlcluster(1))."""
    found = next((one for one in discovery.instances() if one.name == cluster), None)
    if found and found.start == "disabled":
        raise Conflict(
            f"start.conf of cluster {cluster} says disabled: stopped, it could not be started again.",
            "Write auto or manual into it, or set restart=never.",
        )


def restart(service: Service) -> None:
    """Stop the server, if it runs, and start it; returns when it accepts connections, or at least runs.

    Raises HostFailed if it does not come up.
    """
    if service.unit:
        # After several failures in short time systemd refuses to start a unit at all.
        systemd.forget([service.unit])
        command, owner = ["systemctl", "--no-ask-password", "restart", "--", service.unit], None
    elif service.cluster and not systemd.booted():
        command, owner = ["pg_ctlcluster", *service.cluster.split("-", 1), "restart"], service.owner
    else:
        # `restart` uses the options of the last start, and also starts a server that is down.
        tool = os.path.join(service.bin_directory, "pg_ctl")
        log = service.log or os.path.join(service.data_directory, "pg_ctl.log")
        options = ["-D", service.data_directory, "-l", log, "-w", "-m", "fast", "-t", str(LONGEST_START)]
        command, owner = [tool, "restart", *options], service.owner
    former = discovery.postmaster(service.data_directory, service.owner)
    commands.run(command, timeout=LONGEST_START + 60, owner=owner)
    _came_up(service, former)


def start(service: Service) -> None:
    """Start a server that is stopped, as it is usually started, whatever the options of its last start were.

    Raises HostFailed if it does not come up.
    """
    if service.unit or (service.cluster and not systemd.booted()):
        restart(service)
        return
    log = service.log or os.path.join(service.data_directory, "pg_ctl.log")
    options = ["-D", service.data_directory, "-l", log, "-w", "-t", str(LONGEST_START)]
    if service.configuration:
        options += ["-o", f"-c {shlex.quote(f'config_file={service.configuration}')}"]
    tool = os.path.join(service.bin_directory, "pg_ctl")
    commands.run([tool, "start", *options], timeout=LONGEST_START + 60, owner=service.owner)


def _came_up(service: Service, former: int | None) -> None:
    """Wait for the new process: a unit is started before what it runs has started the server.

    Raises HostFailed.
    """
    deadline = time.monotonic() + LONGEST_START
    while (running := discovery.postmaster(service.data_directory, service.owner)) in (None, former):
        if former is not None and running == former:
            raise HostFailed(f"The server of {service.data_directory} was not stopped, and runs as before.")
        if not service.unit or not units.runs(service.unit) or time.monotonic() > deadline:
            raise HostFailed(f"The server of {service.data_directory} stopped right after its start.")
        time.sleep(0.1)


# --- the server's log


@dataclass(frozen=True)
class Mark:
    """A moment in the server's logs: the size of each file in the places that it writes to, and the time in s."""

    patterns: tuple[str, ...]
    sizes: Mapping[str, int]
    at: float


def mark(service: Service, log_directory: str) -> Mark:
    """Now; ``log_directory`` is the server's own setting, relative to the data directory or absolute."""
    collected = os.path.join(glob.escape(os.path.join(service.data_directory, log_directory)), "*")
    started = os.path.join(glob.escape(service.data_directory), "pg_ctl.log")
    patterns = (*([glob.escape(service.log)] if service.log else []), started, collected)
    # As the server's user, who could put any file in their place.
    sizes = as_user(service.owner, lambda: {path: os.path.getsize(path) for path in _logs(patterns)})
    return Mark(patterns, sizes, time.time())


def _logs(patterns: Iterable[str]) -> list[str]:
    return [path for pattern in patterns for path in sorted(glob.glob(pattern)) if os.path.isfile(path)][:MOST_LOGS]


def _tail(since: Mark) -> list[str]:
    """What was appended to the logs, so much of it as a person may want to see."""
    lines: list[str] = []
    for path in dict.fromkeys(_logs(since.patterns)):
        with contextlib.suppress(OSError), open(path, "rb", opener=_opened) as file:
            file.seek(since.sizes.get(path, 0))
            lines += file.read(1 << 20).decode("utf-8", "replace").splitlines()
    return lines[-10 * MOST_LOGS :]


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def log_since(service: Service, since: Mark) -> str:
    """The last lines that the server has logged since a moment: those with an error, if there are any."""
    lines = quotable(lines_since(service, since))
    important = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|WARNING|HINT|DETAIL)\b", line)]
    return "\n".join((important or lines)[-LAST_LINES:])


def quotable(lines: Iterable[str]) -> list[str]:
    """The lines of a log without those in which clients' statements, parameters and rows are, or values of settings:
    others have the server log meanwhile what only they may see. Pure."""
    kept: list[str] = []
    dropped = False
    for line in lines:
        dropped = dropped if line.startswith("\t") else bool(OF_CLIENTS.search(line))
        kept += [] if dropped else [line]
    return kept


def lines_since(service: Service, since: Mark) -> list[str]:
    """What the server has logged since a moment, as far as it can be read here."""
    lines = list(as_user(service.owner, lambda: _tail(since)))
    if not lines and service.unit:
        with contextlib.suppress(HostFailed):
            journal = ["journalctl", "--no-pager", "-q", "-o", "cat", "-u", service.unit, f"--since=@{int(since.at)}"]
            lines = commands.run(journal).splitlines()
    return lines
