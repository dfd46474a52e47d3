# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pgBackRest set up for an instance: its configuration, which is root's, and the stanza of the cluster, which only
this creates.

What pgBackRest would delete by itself is switched off: this collection decides what expires.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, HostFailed, InvalidInput, ProgramFailed, Unsupported
from ..host import commands, files
from ..host.files import File
from ..host.identity import as_user, user
from ..instance.layout import Layout
from . import stanza as stanzas
from .generations import Wanted
from .stanza import Stanza

ENGINE = "pgbackrest"
ALLOWED = re.compile(
    r"repo1-(type|path|symlink|bundle(-limit|-size)?|cipher-type|(s3|azure|gcs|sftp)-[a-z0-9-]+|storage-[a-z-]+)"
    r"|(process-max|buffer-size|io-timeout|db-timeout|protocol-timeout|archive-timeout|compress-level)"
    r"|((sck|tcp)-keep-alive[a-z-]*)"
)
"""pgBackRest's options that can be declared: others would let it delete by itself, or go to another host or place."""
SECRET = re.compile(
    r"repo1-(cipher-pass|s3-(key|key-secret|token|sse-customer-key)|azure-key|sftp-private-key-passphrase)"
)
VALUE = re.compile(r"[^\x00-\x1f\x7f]+")
TYPES = ("posix", "cifs", "s3", "azure", "gcs", "sftp")
FOLDER = "pgbackrest"
"""Its repository in that of the cluster, unless another place is declared."""
FOREVER = "9999999"
"""The number of full backups that pgBackRest keeps by itself: the most that it takes."""
FORMAT_OF_SERVER = 46
"""Its exit code for a version of PostgreSQL that it does not know (VersionNotSupportedError)."""
PROVING = 300.0
LOGS = {"log-level-file": "off", "log-level-console": "off", "log-level-stderr": "warn", "log-timestamp": "n"}
"""What it says goes where errors are read, and into the server's log."""
PACKAGED = "/usr/bin/pgbackrest"
"""Where packages have it."""


@dataclass(frozen=True)
class Declared:
    """pgBackRest for an instance. ``program`` is where packages have it if it is not there yet; ``configuration`` is
    the path of its file; ``state`` the directory of its locks, which the server and the jobs share. ``options`` and
    ``secrets`` are those of its section [global]. The server is reached at ``socket`` and ``port`` as
    ``superuser``."""

    name: str
    program: str
    configuration: str
    state: str
    data: str
    socket: str
    port: int
    superuser: str
    path: str
    options: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    compression: str = "none"

    def text(self) -> str:
        """Its configuration. Pure."""
        lines = {
            "repo1-path": self.path,
            "start-fast": "y",
            **self.options,
            **self.secrets,
            "compress-type": stanzas.COMPRESSIONS[self.compression],
            "repo1-retention-full": FOREVER,
            "expire-auto": "n",
            "lock-path": f"{self.state}/lock",
            "spool-path": f"{self.state}/spool",
            "log-path": f"{self.state}/log",
            **LOGS,
        }
        stanza = {
            "pg1-path": self.data,
            "pg1-socket-path": self.socket,
            "pg1-port": str(self.port),
            "pg1-user": self.superuser,
        }
        sections = "\n\n".join(_section(*one) for one in (("global", lines), (self.name, stanza)))
        return f"# Written by pgops.fleet: site.yml writes it again.\n{sections}\n"

    def entry(self, group: str) -> File:
        """The file: root's, for the server's user to read."""
        owner, whose = ("root", group) if os.geteuid() == 0 else (None, None)
        return File(self.configuration, self.text().encode(), 0o640, owner, whose, secret=True)

    def note(self) -> bytes:
        """What tells that a generation has a stanza."""
        return stanzas.document(self.name, self.configuration, self.program)

    def stanza(self, generation: str) -> Stanza:
        """The stanza, of a generation."""
        return Stanza(self.name, self.configuration, generation, self.program)

    @property
    def pushing(self) -> str:
        """The value of archive_command."""
        return " ".join(map(stanzas.quoted, self.stanza("").command("archive-push"))) + ' "%p" || exit 1'


def _section(name: str, options: Mapping[str, str]) -> str:
    return "\n".join([f"[{name}]", *(f"{one}={value}" for one, value in options.items())])


def declared(params: Mapping[str, Any], wanted: Wanted, layout: Layout, login: Mapping[str, Any]) -> Declared | None:
    """pgBackRest as the arguments of pg_ops_archiving declare it; None where they do not.

    Raises InvalidInput for an option that cannot be declared.
    """
    if (params.get("engine") or "native") != ENGINE:
        if params.get("pgbackrest") or params.get("pgbackrest_secrets"):
            raise InvalidInput(
                "There are options of pgBackRest, which is not the engine.",
                "Set pgops_backup_engine to pgbackrest, or leave pgops_pgbackrest and its secrets out.",
            )
        return None
    options = read_options(params.get("pgbackrest") or {}, params.get("pgbackrest_secrets") or {})
    kind = options.get("repo1-type", "posix")
    inside = os.path.join(wanted.path, FOLDER) if kind in ("posix", "cifs") else f"/{wanted.cluster}"
    return Declared(
        name=wanted.cluster,
        program=shutil.which(stanzas.PROGRAM) or PACKAGED,
        configuration=layout.pgbackrest,
        state=os.path.join(layout.keeping, ENGINE),
        data=wanted.data,
        socket=str(login["socket"]),
        port=int(login["port"]),
        superuser=str(login["superuser"]),
        path=options.pop("repo1-path", inside),
        options={name: value for name, value in options.items() if not SECRET.fullmatch(name)},
        secrets={name: value for name, value in options.items() if SECRET.fullmatch(name)},
        compression=params["compression"],
    )


def read_options(given: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, str]:
    """Options of pgBackRest as its file has them. Pure.

    Raises InvalidInput, in which there is no value.
    """
    _check_names(map(str, given), map(str, secrets))
    found = {str(name): _value(str(name), value) for name, value in {**given, **secrets}.items()}
    kind, cipher = found.get("repo1-type", "posix"), found.get("repo1-cipher-type", "none")
    if kind not in TYPES:
        raise InvalidInput(f"repo1-type is {kind}.", f"It can be {', '.join(TYPES)}.")
    if (cipher != "none") != ("repo1-cipher-pass" in found):
        raise InvalidInput(
            "repo1-cipher-type and repo1-cipher-pass belong together.",
            "Set repo1-cipher-type to aes-256-cbc in pgops_pgbackrest, and the passphrase in its secrets.",
        )
    path = found.get("repo1-path", "/")
    if not path.startswith("/"):
        raise InvalidInput(f"repo1-path is {path}.", "Write an absolute path.")
    return found


def _check_names(given: Iterable[str], secrets: Iterable[str]) -> None:
    """Raises InvalidInput."""
    for name in given:
        if SECRET.fullmatch(name):
            raise InvalidInput(f"{name} is a secret.", "Put it into pgops_pgbackrest_secrets, which nothing shows.")
        if not ALLOWED.fullmatch(name):
            raise InvalidInput(
                f"{name} cannot be set in pgops_pgbackrest.",
                "It can have the options of a repository (repo1-...), of connections and of parallelism "
                "(docs/pgbackrest.md).",
            )
    for name in secrets:
        if not SECRET.fullmatch(name):
            raise InvalidInput(f"{name} cannot be set in pgops_pgbackrest_secrets.", "Use pgops_pgbackrest.")


def _value(name: str, value: Any) -> str:
    text = {True: "y", False: "n"}[value] if isinstance(value, bool) else str(value)
    if not VALUE.fullmatch(text):
        raise InvalidInput(f"{name} has no value, or one with control characters.", "Write it in one line.")
    return text


def check(one: Declared, generation: str, owner: str) -> None:
    """Find out whether this host's pgBackRest knows the server's version, by asking it. Nothing is left.

    Raises InvalidInput where there is none, and Unsupported.
    """
    if not os.access(one.program, os.X_OK):
        raise missing()
    major = generation.rpartition("-")[2]
    as_user(_uid(owner), lambda: _probe(one, major))


def missing() -> InvalidInput:
    """The error of a host without it."""
    return InvalidInput(
        "The engine is pgbackrest, but this host has no pgbackrest.",
        "Install the package pgbackrest, or set pgops_backup_engine to native.",
    )


def _probe(one: Declared, major: str) -> None:
    """Have it make a stanza of the data directory in a scratch directory."""
    with tempfile.TemporaryDirectory(prefix="pgops-pgbackrest-") as scratch:
        lines = ["[global]", *(f"{name}={scratch}" for name in ("repo1-path", "lock-path", "log-path"))]
        text = "\n".join([*lines, *(f"{name}={value}" for name, value in LOGS.items()), ""])
        configuration = os.path.join(scratch, "probe.conf")
        files.apply([File(configuration, text.encode(), 0o600)])
        words = [one.program, f"--config={configuration}", "--stanza=probe", f"--pg1-path={one.data}"]
        try:
            commands.run([*words, "--no-online", "stanza-create"])
        except ProgramFailed as error:
            if error.status != FORMAT_OF_SERVER:
                raise
            raise Unsupported(
                f"{version(one.program)} of this host does not support PostgreSQL {major}.",
                "Install a newer pgbackrest, or set pgops_backup_engine to native.",
            ) from error


def version(program: str) -> str:
    """The program's name and version. Raises HostFailed."""
    return commands.run([program, "version"]).strip()


@contextlib.contextmanager
def put_back(one: Declared) -> Iterator[None]:
    """Have the configuration as it was before, where what is done inside fails: the server archives by it."""
    before = files.read(one.configuration)
    try:
        yield
    except BaseException:
        if before is None:
            files.discard(one.configuration)
        else:
            owners = (before.owner, before.group) if os.geteuid() == 0 else (None, None)
            files.apply([File(one.configuration, before.content, before.mode, *owners)])
        raise


def create(one: Declared, wanted: Wanted, successor: bool) -> None:
    """Create the stanza, where it does not exist yet; ``successor``: the cluster had another server before, as before
    pg_upgrade, which is in the stanza.

    Raises Conflict if the stanza is another server's.
    """
    as_user(uid(wanted), lambda: _create(one, wanted, successor), PROVING)


def _create(one: Declared, wanted: Wanted, successor: bool) -> None:
    stanza = one.stanza(wanted.generation.name)
    try:
        stanza.run("stanza-create")
    except ProgramFailed as error:
        if not successor or error.status not in FOREIGN:
            if error.status in FOREIGN:
                raise Conflict(
                    f"The stanza {one.name} in {one.path} belongs to another server than this one, whose system "
                    f"identifier is {wanted.generation.system_identifier}.",
                    "Use another path (repo1-path in pgops_pgbackrest), or another name of the cluster; or "
                    "pgops_archive_another_server, if this server replaces that one.",
                ) from error
            raise
        stanza.run("stanza-upgrade")


FOREIGN = (28, 29, 51)
"""Its exit codes for a stanza of another server (FileInvalid-, ArchiveMismatch-, BackupMismatchError)."""


def prove(one: Declared, wanted: Wanted) -> None:
    """Have a segment archived and found again, by pgBackRest. Raises HostFailed."""
    try:
        as_user(
            uid(wanted),
            lambda: one.stanza(wanted.generation.name).run("check", timeout=PROVING) and None,
            PROVING + 60,
        )
    except HostFailed as error:
        raise HostFailed(
            f"WAL does not arrive in the stanza {one.name}: {error.message}",
            "The server's log shows the error of the archiver. pg_wal grows until it is corrected.",
        ) from error


def uid(wanted: Wanted) -> int:
    """The uid of the server's user."""
    return _uid(wanted.owner)


def _uid(owner: str) -> int:
    return user(pwd.getpwnam(owner).pw_uid).uid
