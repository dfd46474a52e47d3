# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stanza of pgBackRest: backups and WAL that are kept by that program, in a repository of its own. All as the
server's user.

    GENERATION/stanza.json        that a generation has one, and where its configuration is

A generation without that file has none. Its WAL is in both places where the engine was changed: what reads WAL looks
in both.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import HostFailed
from ..host import commands, files
from ..host.commands import UNWATCHED, Watch
from . import archiver, wal
from .manifests import DIFFERENTIAL, FULL, INCREMENTAL

PROGRAM = "pgbackrest"
NAME = "stanza.json"
FORMAT = 1
LAYOUT = "stanza"
"""The layout of a backup whose files are in a stanza."""
ANNOTATION = "pgops"
"""The annotation of a backup with what pgBackRest does not know of it, as JSON."""
KINDS = {"full": FULL, "diff": DIFFERENTIAL, "incr": INCREMENTAL}
TYPES = {kind: short for short, kind in KINDS.items()}
COMPRESSIONS = {"none": "none", "gzip": "gz", "lz4": "lz4", "zstd": "zst"}
"""pgBackRest's names of ours."""
ENDINGS = {"": "none", ".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}
SEGMENT = re.compile(r"([0-9A-F]{24}(?:\.partial)?)-([0-9a-f]{40})(\.[a-z0-9]+)?$")
"""A stored segment: its name, the SHA-1 of its content, the ending of its compression."""
ASKING = 600.0
"""Seconds that a question may take, of an object store that is slow."""
ASK = "Is its repository mounted, or reachable? Is its passphrase still the same?"
UNREADABLE = "pgBackRest tells of an error in a way that cannot be read, as with another passphrase"
NAMESPACE = uuid.UUID("5b0ed3b2-0f0a-5e55-8e57-3f1d6f0f7a64")
"""Of the UUIDs of backups that others have taken."""


@dataclass(frozen=True)
class Taken:
    """A backup of a stanza, as pgBackRest tells it: ``prior`` is the label of the one that it adds to, '' for none.
    ``about`` is our annotation. ``damaged``: pages had wrong checksums when it was taken."""

    label: str
    kind: str
    prior: str
    timeline: int
    start_lsn: int
    stop_lsn: int
    started_at: datetime
    completed_at: datetime
    stored_bytes: int
    data_bytes: int
    database: int
    about: Mapping[str, Any]
    damaged: bool = False


@dataclass(frozen=True)
class StoredWal:
    """A WAL file of a stanza: its path below the repository, its size there and when it came, in Unix time; the SHA-1
    of its content, '' for what has none."""

    path: str
    size: int
    modified: float
    sha1: str = ""

    @property
    def compression(self) -> str:
        """One of archiver's words, or the ending that nothing here can read."""
        ending = os.path.splitext(self.path)[1] if self.sha1 else ""
        return ENDINGS.get(ending, ending)


@dataclass
class Stanza:
    """The stanza of a generation, which ``configuration``, a file of pgBackRest's, describes. What was asked is
    remembered: one object is for one look."""

    name: str
    configuration: str
    generation: str
    program: str = PROGRAM
    _told: dict[str, Any] | None = None
    _wal: dict[str, StoredWal] | None = None
    _listed: dict[str, dict[str, StoredWal]] = field(default_factory=dict)

    def command(self, verb: str, *words: str) -> list[str]:
        """A command line of pgBackRest."""
        return [self.program, f"--config={self.configuration}", f"--stanza={self.name}", *words, verb]

    def run(self, verb: str, *words: str, timeout: float = ASKING, watch: Watch = UNWATCHED) -> str:
        """Run it; what it writes. Raises HostFailed."""
        if not os.access(self.configuration, os.R_OK):
            raise HostFailed(
                f"{self.configuration}, pgBackRest's configuration for the stanza {self.name}, cannot be read by "
                f"{files.user_name(os.geteuid())}.",
                "Run site.yml; on another host, put the file there, with the group of the server's user.",
            )
        return commands.run(self.command(verb, *words), timeout, watch=watch)

    def anew(self) -> Stanza:
        """The same, of which nothing is known yet."""
        return Stanza(self.name, self.configuration, self.generation, self.program)

    # --- what there is

    def told(self) -> dict[str, Any]:
        """What pgBackRest knows of it. Raises HostFailed, also where it is not there."""
        if self._told is None:
            try:
                found = json.loads(self.run("info", "--output=json"))
            except ValueError as error:  # it quotes what it cannot read as it is, such as what is encrypted
                raise HostFailed(f"The stanza {self.name} cannot be read: {UNREADABLE}.", ASK) from error
            told = next((one for one in found if one.get("name") == self.name), None)
            status = told["status"] if told else {"code": 1, "message": "missing stanza"}
            # 2: there is no backup yet.
            if told is None or status["code"] not in (0, 2):
                states = [repo["status"] for repo in (told or {}).get("repo", [])]
                why = next((one["message"] for one in states if one["code"]), status["message"])
                reason = " ".join(str(why).split())
                raise HostFailed(f"The stanza {self.name} cannot be read: {printable(reason)[:500]}.", ASK)
            self._told = told
        return self._told

    def backups(self) -> tuple[Taken, ...]:
        """Its backups of this generation, the oldest first. Raises HostFailed."""
        own = self._databases()
        return tuple(_taken(one) for one in self.told()["backup"] if one["database"]["id"] in own)

    def label(self, backup: str) -> str | None:
        """pgBackRest's name of a backup, by its UUID; None if it is not there. Raises HostFailed."""
        return next((one.label for one in self.backups() if identifier(one, self.generation) == backup), None)

    def expire(self, label: str) -> None:
        """Remove a backup, with those that add to it. Raises HostFailed."""
        self.run("expire", f"--set={label}")
        self._told = None

    def expire_wal(self, fulls: int) -> None:
        """Remove the WAL from before so many of the newest full backups, but for what each older one needs itself.

        Raises HostFailed.
        """
        self.run("expire", f"--repo1-retention-archive={fulls}", "--repo1-retention-archive-type=full")
        self._wal = None
        self._listed = {}

    def _databases(self) -> dict[int, str]:
        """By pgBackRest's numbers of them, the names of the archives of this generation."""
        identifier, _dash, major = self.generation.rpartition("-")
        return {
            int(one["id"]): f"{one['version']}-{one['id']}"
            for one in self.told()["db"]
            if str(one["system-id"]) == identifier and str(one["version"]) == major
        }

    @property
    def archives(self) -> frozenset[str]:
        """The names of the directories that have the WAL of this generation. Raises HostFailed."""
        return frozenset(self._databases().values())

    @property
    def alone(self) -> bool:
        """Whether it has WAL of this generation only: of several, pgBackRest counts the backups of all. Raises
        HostFailed."""
        return len([one for one in self.told()["archive"] if one["min"]]) <= 1

    def wal(self) -> dict[str, StoredWal]:
        """All its WAL files of this generation, by name. Raises HostFailed."""
        if self._wal is None:
            found: dict[str, StoredWal] = {}
            for archive in self._databases().values():
                found.update(self._files(f"archive/{self.name}/{archive}", "--recurse"))
            self._wal = found
        return self._wal

    def _files(self, path: str, *words: str) -> dict[str, StoredWal]:
        command = [self.program, f"--config={self.configuration}", "--output=json", *words, "repo-ls", path]
        listed = json.loads(commands.run(command, ASKING))
        found: dict[str, StoredWal] = {}
        for inside, about in listed.items():
            if about.get("type") != "file":
                continue
            matched = SEGMENT.match(os.path.basename(inside))
            name = matched.group(1) if matched else os.path.basename(inside)
            if archiver.kind(name):
                sha1 = matched.group(2) if matched else ""
                found[name] = StoredWal(f"{path}/{inside}", int(about["size"]), float(about["time"]), sha1)
        return found

    def stored(self, name: str) -> StoredWal | None:
        """Where a WAL file is, None if it is not there. Raises HostFailed."""
        if self._wal is not None:
            return self._wal.get(name)
        folder = "" if name.endswith(".history") else name[:16]
        if folder not in self._listed:
            found: dict[str, StoredWal] = {}
            for archive in self._databases().values():
                found.update(self._files(f"archive/{self.name}/{archive}" + (f"/{folder}" if folder else "")))
            self._listed[folder] = found
        return self._listed[folder].get(name)

    # --- WAL

    def get(self, name: str, path: str) -> bool:
        """Unpack a WAL file to a path; False if it is not there. Its content is that which pgBackRest was given.

        Raises HostFailed, and archiver.Failure for what is damaged.
        """
        stored = self.stored(name)
        if stored is None:
            return False
        if stored.compression not in archiver.ENDINGS:
            raise HostFailed(f"{stored.path} has a compression that cannot be read: {stored.compression}.")
        packed = f"{path}.packed"
        try:
            command = [self.program, f"--config={self.configuration}", "repo-get", stored.path]
            commands.run(["sh", "-c", 'exec "$@" > "$0"', packed, *command], ASKING)
            _unpack(packed, stored, path)
        finally:
            files.discard(packed)
        return True

    def history(self, name: str) -> str:
        """The content of a history file, which is stored as it is; '' if it is not there. Raises HostFailed."""
        stored = self.stored(name)
        command = [self.program, f"--config={self.configuration}", "repo-get"]
        return commands.run([*command, stored.path], ASKING) if stored else ""

    def fetching(self, otherwise: str, *words: str) -> str:
        """A restore_command that fetches from here, and what is not here by another command. Where pgBackRest fails,
        a standby may stream instead; for a recovery to a moment that would be the end of the WAL, and it must end."""
        get = " ".join(map(quoted, self.command("archive-get", *words)))
        return f'{get} %f "%p" || {{ test $? -eq 1 || test -f standby.signal || exit 126; {otherwise} %f "%p"; }}'


def of(repository: str, generation: str) -> Stanza | None:
    """The stanza of a generation, None if it has none. Raises HostFailed."""
    path = os.path.join(repository, generation, NAME)
    try:
        data = json.loads(files.contents(path))
        return Stanza(str(data["stanza"]), str(data["configuration"]), generation, str(data["program"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HostFailed(f"{path} is damaged: {error!r}.", "Run site.yml, or restore it from a copy.") from error


def document(name: str, configuration: str, program: str) -> bytes:
    """The content of stanza.json. Pure."""
    data = {"format": FORMAT, "stanza": name, "configuration": configuration, "program": program}
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def quoted(word: str) -> str:
    """A word of a shell's command in a setting that replaces what follows a per cent sign. Pure."""
    return shlex.quote(word).replace("%", "%%")


def printable(text: str) -> str:
    """A text that may hold what an encrypted file has. Pure."""
    return "".join(one if one.isprintable() else "?" for one in text)


def identifier(taken: Taken, generation: str) -> str:
    """The UUID of a backup: ours, or for one that another has taken always the same. Pure."""
    try:
        return str(uuid.UUID(str(taken.about["id"])))
    except (KeyError, ValueError):
        return str(uuid.uuid5(NAMESPACE, f"{generation}/{taken.label}"))


def _taken(one: Mapping[str, Any]) -> Taken:
    start, stop = one["timestamp"]["start"], one["timestamp"]["stop"]
    return Taken(
        label=str(one["label"]),
        kind=KINDS[one["type"]],
        prior=str(one["prior"] or ""),
        timeline=int(one["archive"]["start"][:8], 16),
        start_lsn=byte(one["lsn"]["start"]),
        stop_lsn=byte(one["lsn"]["stop"]),
        started_at=datetime.fromtimestamp(start, timezone.utc),
        completed_at=datetime.fromtimestamp(stop, timezone.utc),
        stored_bytes=int(one["info"]["repository"]["delta"]),
        data_bytes=int(one["info"]["size"]),
        database=int(one["database"]["id"]),
        about=_about(one.get("annotation") or {}),
        damaged=bool(one.get("error")),
    )


def _about(annotations: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ours; somebody else's word is none."""
    try:
        found = json.loads(annotations.get(ANNOTATION, "{}"))
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def byte(lsn: str) -> int:
    """An LSN as a byte of the WAL. Pure."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _unpack(packed: str, stored: StoredWal, path: str) -> None:
    """Raises archiver.Failure if the content is not what pgBackRest was given, and HostFailed."""
    digest = hashlib.sha1(usedforsecurity=False) if stored.sha1 else None
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for chunk in archiver.unpacked(packed, stored.compression):
                archiver.write(descriptor, chunk)
                if digest:
                    digest.update(chunk)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise files.failure(error, f"{path} cannot be written") from error
    if digest and digest.hexdigest() != stored.sha1:
        raise archiver.Damaged(f"{stored.path} is damaged: its content has another checksum")


def segments(names: Iterable[str], segment_bytes: int) -> list[tuple[int, int]]:
    """The segments among names of WAL files, by timeline and number. Pure."""
    places = (wal.place(name, segment_bytes) for name in names)
    return [(one.timeline, one.segment) for one in places if one is not None and one.segment is not None]
