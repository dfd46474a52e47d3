# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL's programs that dump a database: their command lines, what their sessions have whatever a database or a
role has by default, and whether what they wrote is whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import HostFailed, InvalidInput, ProgramFailed
from ..host import commands, files
from ..host.commands import Watch
from ..host.files import File
from ..repository import dumps
from ..server import pins
from . import clients, contents
from .clients import Clients
from .dump_options import Dumps
from .native import connection

LONGEST = 172_800.0
"""Seconds that a dump may take."""
NAMES_COMPRESSION = 16
"""From this version on, pg_dump can be told by which method to compress."""
LEVEL = 6
"""Of gzip, pg_dump's own default."""
EXITED = " failed with exit code "

ENTRY = re.compile(r"^(?P<id>\d+); \d+ \d+ (?P<kind>TABLE DATA|BLOBS) ", re.MULTILINE)
ENTRIES = re.compile(r"^;\s+TOC Entries: (?P<number>\d+)$", re.MULTILINE)
FILE = re.compile(r"^(?P<id>\d+)\.dat(\.gz|\.lz4|\.zst)?$")
LARGE_OBJECTS = re.compile(r"^blobs(_\d+)?\.toc$")


@dataclass(frozen=True)
class Login:
    """How the programs log in, as a superuser over the server's own socket, and as whom the views show them.
    ``restricted``: what the owner of a table puts in its place is not run."""

    directory: str
    port: int
    user: str
    application_name: str
    major: int
    restricted: bool = True

    def words(self, database: str) -> str:
        """libpq's parameters, as one text; nothing of the environment replaces one of them."""
        return connection(
            {
                "host": self.directory,
                "hostaddr": "",
                "port": str(self.port),
                "user": self.user,
                "application_name": self.application_name,
                "target_session_attrs": "any",
                "options": options(self.major, self.restricted),
                "dbname": database,
            }
        )


def options(major: int, restricted: bool = True) -> str:
    """The settings of the programs' sessions, as libpq spells them: no default of a database or a role changes what
    is dumped, or ends it. Pure.

    Money is written as the database writes it, since it is read again so. No event trigger runs on login. If it is
    ``restricted``, nothing that the owner of a table puts in its place is run for its data: a materialized view could
    not be filled so.
    """
    pinned = {
        **pins.PINNED,
        **pins.NAMES,
        **pins.PLANS,
        **pins.BY_SUPERUSERS,
        **pins.since(major, pins.SINCE),
        "statement_timeout": "0",
        "lock_timeout": "0",
        **({pins.RESTRICTION: "view,foreign-table"} if restricted else {}),
    }
    del pinned["lc_monetary"]
    return pins.spelled({**pinned, **({pins.EVENT_TRIGGERS: "off"} if major >= pins.EVENT_TRIGGERS_SINCE else {})})


@dataclass(frozen=True)
class Dumper:
    """The programs, how they log in, and what is declared."""

    programs: Clients
    login: Login
    declared: Dumps

    def check(self) -> None:
        """Raises InvalidInput if pg_dump does not know the declared compression."""
        compression = self.declared.compression
        if self.programs.major < NAMES_COMPRESSION and compression not in ("none", "gzip"):
            raise InvalidInput(
                f"pg_dump of PostgreSQL {self.programs.major} cannot compress with {compression}.",
                "Set compression of pgops_backup_dumps to gzip or none.",
            )

    def versions(self) -> dict[str, str]:
        """Those of the programs. Raises HostFailed."""
        return {
            name: clients.version(self.programs.program(name)) for name in (clients.DUMPING, clients.DUMPING_GLOBALS)
        }

    def command(self, database: str, encoding: str, path: str) -> list[str]:
        """The command line that dumps a database, by its name as the file system's encoding has it. Pure."""
        return [
            self.programs.program(clients.DUMPING),
            "--format=directory",
            f"--file={os.path.join(path, dumps.DATA)}",
            f"--jobs={self.declared.jobs}",
            f"--compress={self._compression()}",
            f"--lock-wait-timeout={round(self.declared.lock_seconds * 1000)}",
            f"--encoding={encoding}",
            "--no-sync",  # that is done with all other files
            "--no-password",
            f"--dbname={self.login.words(database)}",
        ]

    def _compression(self) -> str:
        method = self.declared.compression
        if self.programs.major >= NAMES_COMPRESSION:
            return method
        return "0" if method == "none" else str(LEVEL)

    def globals_command(self, database: str, encoding: str, path: str) -> list[str]:
        """The command line that dumps what all databases have in common, from a session in one of them. Pure."""
        return [
            self.programs.program(clients.DUMPING_GLOBALS),
            "--globals-only",
            f"--file={os.path.join(path, dumps.GLOBALS)}",
            f"--encoding={encoding}",
            f"--lock-wait-timeout={round(self.declared.lock_seconds * 1000)}",
            "--no-sync",
            "--no-password",
            f"--database={database}",
            f"--dbname={self.login.words(database)}",
        ]

    def dump(self, database: str, encoding: str, path: str, watch: Watch) -> None:
        """Dump a database into a directory. Raises HostFailed, and what ``watch`` raises."""
        run(self.command(database, encoding, path), watch)

    def dump_globals(self, database: str, encoding: str, path: str, watch: Watch) -> None:
        """Dump roles and tablespaces. Raises HostFailed."""
        # It keeps the mode of a file that is there.
        files.apply([File(os.path.join(path, dumps.GLOBALS), b"", 0o600)])
        run(self.globals_command(database, encoding, path), watch)

    def entries(self, path: str, watch: Watch = commands.UNWATCHED) -> int:
        """Read a whole dump, as a restore does; the number of entries in its table of contents.

        Raises HostFailed where it cannot be read, or something of its table of contents is missing.
        """
        data = os.path.join(path, dumps.DATA)
        program = self.programs.program(clients.RESTORING)
        listing = run([program, "--list", data], watch)
        wrong = incomplete(listing, os.listdir(data))
        if wrong:
            raise HostFailed(f"The dump is not complete: {wrong}.")
        run([program, f"--file={os.devnull}", data], watch)
        found = ENTRIES.search(listing)
        if not found:
            raise HostFailed(f"{program} --list tells no number of entries.")
        return int(found["number"])


def run(command: Sequence[str], watch: Watch = commands.UNWATCHED) -> str:
    """Run a program; errors have its words without its command line, in which the name of a database may be of bytes.

    Raises HostFailed, and what ``watch`` raises.
    """
    try:
        return commands.run(command, LONGEST, watch=watch)
    except ProgramFailed as error:
        raise HostFailed(error.message.partition(EXITED)[2].partition(": ")[2] or error.message) from error


def incomplete(listing: str, names: Sequence[str]) -> str:
    """What is missing of a dump by its table of contents, as pg_restore --list has it, '' if nothing is. Pure."""
    tables = {match["id"] for match in ENTRY.finditer(listing) if match["kind"] == "TABLE DATA"}
    large_objects = any(match["kind"] == "BLOBS" for match in ENTRY.finditer(listing))
    present = {match["id"] for match in map(FILE.match, names) if match}
    if "toc.dat" not in names:
        return "toc.dat is missing"
    if tables - present:
        return f"{len(tables - present)} tables have no file, the first of them {min(tables - present, key=int)}.dat"
    if present - tables:
        return f"{min(present - tables, key=int)}.dat is in no table of contents"
    if large_objects and not any(LARGE_OBJECTS.match(name) for name in names):
        return "the list of large objects is missing"
    return ""


# --- checksums


def seal(path: str) -> str:
    """Write the checksums of all files of a dump beside them; the checksum of that file. Raises HostFailed."""
    lines = [f"{contents.digest(os.path.join(path, name))}  {name}\n" for name in _files(path)]
    file = os.path.join(path, dumps.SUMS)
    files.apply([File(file, "".join(lines).encode(), 0o640)])
    return contents.digest(file)


def problems(path: str, checksum: str) -> list[str]:
    """What is wrong with the files of a dump, by their checksums, the checksum of which is given."""
    file = os.path.join(path, dumps.SUMS)
    if not os.path.isfile(file):
        return [f"{dumps.SUMS} is missing"]
    if contents.digest(file) != checksum:
        return [f"{dumps.SUMS} has another checksum"]
    try:
        known = sums(files.contents(file, limit=1 << 30).decode())
    except OSError as error:
        raise files.failure(error, f"{file} cannot be read") from error
    present = set(_files(path))
    found = [f"{name} is missing" for name in known if name not in present]
    found += [f"{name} does not belong to it" for name in sorted(present - set(known))]
    found += [
        f"{name} has another checksum"
        for name, digest in known.items()
        if name in present and contents.digest(os.path.join(path, name)) != digest
    ]
    return found


def sums(text: str) -> Mapping[str, str]:
    """The checksums of files by their names. Pure."""
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {name: digest for digest, name in pairs}


def _files(path: str) -> list[str]:
    """The files that pg_dump and pg_dumpall wrote, in order."""
    data = os.path.join(path, dumps.DATA)
    there = [os.path.join(dumps.DATA, name) for name in os.listdir(data)] if os.path.isdir(data) else []
    whole = os.path.exists(os.path.join(path, dumps.GLOBALS))
    return sorted([*there, *([dumps.GLOBALS] if whole else [])])


def size(path: str) -> int:
    """The bytes of all of them."""
    return sum(os.lstat(os.path.join(path, name)).st_size for name in _files(path))
