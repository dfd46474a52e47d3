# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The process of the server that a session talks to, as the kernel knows it.

A superuser can replace every function of the server, and the server's user every file of it. So which process it is
and whose comes from the socket, and its program and data directory from the process.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from ..errors import HostFailed, Unsupported
from ..host.identity import as_user, peer
from .session import Session

GONE = " (deleted)"
"""What Linux appends to the name of a program that was replaced, as by an update, proc_pid_exe(5)."""


@dataclass(frozen=True)
class Postmaster:
    """A running server: its process, the uid of its user, the directories of its program and of its data, and the
    file that its standard error goes to, '' where that is none."""

    process: int
    owner: int
    bin_directory: str
    data_directory: str
    log: str = ""


def of(session: Session) -> Postmaster:
    """The server of a session over a Unix socket.

    Raises Unsupported if it is not on this host or is root's, and HostFailed if its process may not be looked at.
    """
    if not session.target.local:
        raise Unsupported(
            "The connection is over the network, so the server's process and files cannot be found.",
            "Run this on its host, over its socket, without login_host.",
        )
    process, owner = peer(session.connection.fileno())
    if owner == 0:
        raise Unsupported(
            "Root runs what listens on the server's socket; PostgreSQL refuses to run as root.",
            "Find out what listens there.",
        )
    if process == 0:
        raise Unsupported("The server runs in a container that this host does not see.", "Run this in the container.")
    try:
        return Postmaster(**as_user(owner, lambda: asdict(_look(process, owner))))
    except OSError as error:
        raise HostFailed(
            f"The server's process {process} cannot be looked at: {error.strerror or error}.",
            "Run this as root (become: true), or as the server's user.",
        ) from error


def _look(process: int, owner: int) -> Postmaster:
    place = f"/proc/{process}"
    program, data = os.readlink(f"{place}/exe"), os.readlink(f"{place}/cwd")
    if os.stat(place).st_uid != owner or not _same(f"{place}/cwd", data):
        raise Unsupported(
            f"The files of the server's process {process} are not those of this host.",
            "If it runs in a container, run this in the container.",
        )
    log = os.readlink(f"{place}/fd/2")
    program = program[: -len(GONE)] if program.endswith(GONE) else program
    return Postmaster(process, owner, os.path.dirname(program), data, log if os.path.isfile(log) else "")


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
