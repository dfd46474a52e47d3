# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL's client programs, which lie beside the server's, or where the configuration says."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import HostFailed
from ..host import commands

VERSION = re.compile(r"\(PostgreSQL\) (?P<whole>\d+\S*)")
COPYING, VERIFYING, WAL_READING = "pg_basebackup", "pg_verifybackup", "pg_waldump"
DUMPING, DUMPING_GLOBALS, RESTORING = "pg_dump", "pg_dumpall", "pg_restore"

READS_CONTROL_FILE = 17
"""From this version of the server on, pg_verifybackup reads a control file too, whose format is its own version's."""
PLACES = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")
"""Where distributions put the programs of a version."""


@dataclass(frozen=True)
class Clients:
    """The programs of a directory. ``major`` is the version of pg_basebackup there, or of pg_dump."""

    directory: str
    major: int

    def program(self, name: str) -> str:
        """The path of one."""
        return os.path.join(self.directory, name)

    def has(self, name: str) -> bool:
        """Whether there is one of that name that this user can run."""
        return os.access(self.program(name), os.X_OK)

    def verifies(self, server_major: int) -> bool:
        """Whether pg_verifybackup is there, and can read backups of a server's version."""
        known = self.major == server_major or READS_CONTROL_FILE > server_major <= self.major
        return known and self.has(VERIFYING)


NONE = Clients("", 0)
"""No programs at all."""


def found(declared: str, beside: str, server_major: int) -> Clients:
    """The programs in the ``declared`` directory, or without one in that of the server's own program.

    Raises HostFailed where one is missing, or older than the server.
    """
    directory = declared or beside
    _check_there(directory, (COPYING, VERIFYING), server_major)
    major = major_of(os.path.join(directory, COPYING))
    if server_major >= READS_CONTROL_FILE and major != server_major:
        raise HostFailed(
            f"{os.path.join(directory, VERIFYING)} is of PostgreSQL {major}: it cannot verify a backup of PostgreSQL "
            f"{server_major}.",
            _hint(server_major),
        )
    if major < server_major:
        raise HostFailed(
            f"{os.path.join(directory, COPYING)} is of PostgreSQL {major}: it cannot back up a server of "
            f"PostgreSQL {server_major}.",
            _hint(server_major),
        )
    return Clients(directory, major)


def dumping(declared: str, beside: str, server_major: int) -> Clients:
    """The same for those that take dumps.

    Raises HostFailed where one is missing, or older than the server.
    """
    directory = declared or beside
    _check_there(directory, (DUMPING, DUMPING_GLOBALS, RESTORING), server_major)
    major = major_of(os.path.join(directory, DUMPING))
    if major < server_major:
        raise HostFailed(
            f"{os.path.join(directory, DUMPING)} is of PostgreSQL {major}: it cannot dump databases of "
            f"PostgreSQL {server_major}.",
            _hint(server_major),
        )
    return Clients(directory, major)


def restoring(declared: str, beside: str, server_major: int) -> Clients:
    """The same for those that restore dumps: of the server's own version, since those of another set parameters that
    it may not have. They are in the ``declared`` directory, or without one beside the server's own program, or in one
    of the usual places.

    Raises HostFailed where there are none.
    """
    usual = (beside, *(place.format(major=server_major) for place in PLACES))
    places = (declared,) if declared else tuple(dict.fromkeys(filter(None, usual)))
    others = []
    for place in places:
        program = os.path.join(place, RESTORING)
        if os.access(program, os.X_OK):
            major = major_of(program)
            if major == server_major:
                return Clients(place, major)
            others.append(f"{program} is of PostgreSQL {major}")
    told = f" ({'; '.join(others)})" if others else ""
    raise HostFailed(
        f"There is no {RESTORING} of PostgreSQL {server_major} in {' or '.join(places)}{told}.",
        f"Install the client programs of PostgreSQL {server_major} (Debian: postgresql-client-{server_major}), or "
        "name their directory.",
    )


def _check_there(directory: str, names: Sequence[str], major: int) -> None:
    for name in names:
        if not os.access(os.path.join(directory, name), os.X_OK):
            raise HostFailed(
                f"{os.path.join(directory, name)} is not on this host, or this user cannot run it.", _hint(major)
            )


def readers(directories: Iterable[str], server_major: int) -> Clients:
    """The programs that read backups and WAL of a server's version, of some directories or of the usual ones; NONE
    where none has any that does."""
    usual = (place.format(major=server_major) for place in PLACES)
    able: list[Clients] = []
    for directory in filter(None, (*directories, *usual)):
        if os.access(os.path.join(directory, COPYING), os.X_OK):
            with contextlib.suppress(HostFailed):
                one = Clients(directory, major_of(os.path.join(directory, COPYING)))
                able += [one] if one.verifies(server_major) else []
    return next((one for one in able if one.major == server_major), able[0] if able else NONE)


def version(program: str) -> str:
    """The version of a program of PostgreSQL, as it says it: 17.4. Raises HostFailed."""
    said = commands.run([program, "--version"])
    match = VERSION.search(said)
    if not match:
        raise HostFailed(f"{program} --version says {said.strip()[:80]!r}, and no version of PostgreSQL.")
    return match["whole"]


def major_of(program: str) -> int:
    """The major version of a program of PostgreSQL, 19 for 19rc1. Raises HostFailed."""
    return int(re.split(r"\D", version(program), maxsplit=1)[0])


def _hint(major: int) -> str:
    return (
        f"Install the client programs of PostgreSQL {major} (Debian: postgresql-client-{major}), or set "
        "pgops_bin_directory to a directory that has them."
    )
