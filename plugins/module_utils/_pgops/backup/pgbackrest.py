# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine `pgbackrest`: backups in a stanza of pgBackRest, which verifies what it copies and waits for its WAL."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, HostFailed
from ..host import files
from ..host.commands import Watch
from ..repository import archiver
from ..repository import stanza as stanzas
from ..repository.backups import Kept
from ..repository.fetching import fetch
from ..repository.manifests import Manifest
from ..repository.segments import Stretch
from ..repository.stanza import LAYOUT, Stanza, Taken
from .engine import Copied, Engine, Order
from .options import Options
from .source import Source

METHOD = "pgbackrest"
LONGEST = 172_800.0
"""Seconds that a backup or a verification may take."""
LARGEST_NOTE = 100_000
"""Characters of an annotation: it is an argument of a program, of which the kernel takes 131072 bytes."""
RESULT = re.compile(
    r"^\s*backup: (\S+), status: (\w[\w ]*), total files checked: (\d+), total valid files: (\d+)\s*$"
)
WAL = re.compile(r"^\s*archiveId: (\S+), total WAL checked: (\d+), total valid WAL: (\d+)\s*$")
BAD = re.compile(r"^P\d+ +\w+: ([\w ]+) '(?:.*/)?(\d+-\d+)/[0-9A-F]{16}/([0-9A-F]{24})-[0-9a-f]{40}[^/']*'")
"""A damaged WAL file, as the log has it."""
COUNTS = re.compile(r"^\s*missing: (\d+), checksum invalid: (\d+), size invalid: (\d+), other: (\d+)\s*$")
VALID = "valid"


@dataclass(frozen=True)
class Verified:
    """What `pgbackrest verify` has found: by the labels of ``backups`` what is against them, '' for nothing; the
    number of ``segments`` that it has read, of the ``damaged`` ones the reasons by their names, and the number of
    those that it counts and does not name."""

    backups: Mapping[str, str]
    segments: int
    damaged: Mapping[str, str]
    unnamed: int = 0


@dataclass
class PgBackRest(Engine):
    """``stanza`` is that of the server's generation. What a verification of all of it has found is kept."""

    options: Options
    stanza: Stanza
    room: str = ""
    _verified: Verified | None = field(default=None)

    def suits(self, kept: Kept) -> bool:
        """Those of the stanza."""
        return kept.manifest.layout == LAYOUT

    def archives(self, command: str, repository: str, generation: str) -> bool:
        """Whether WAL goes into the stanza."""
        del repository, generation  # pgBackRest compares the server with its stanza itself
        return command.startswith(" ".join(map(stanzas.quoted, self.stanza.command("archive-push"))))

    def wal_share(self, source: Source, repository: str) -> float:
        """As the newest segments of the stanza."""
        del repository
        segments = {name: one.size for name, one in self.stanza.wal().items() if archiver.kind(name) == "segment"}
        newest = max(segments, default="")[:16]
        sizes = [size for name, size in segments.items() if name.startswith(newest)]
        return min(1.0, sum(sizes) / len(sizes) / source.segment_bytes) if sizes else 1.0

    def check(self, source: Source, kind: str) -> None:
        """pgBackRest copies as a superuser, from a primary that is on this host."""
        del kind
        if source.in_recovery:
            raise Conflict("The engine pgbackrest backs up primaries only.", "Set pgops_backup_source to primary.")
        self.stanza.told()

    def copy(self, source: Source, order: Order) -> Copied:
        """Take the backup, with our note of it."""
        del source
        words = [
            f"--type={stanzas.TYPES[order.kind]}",
            f"--compress-type={stanzas.COMPRESSIONS[self.options.compression]}",
            f"--annotation={stanzas.ANNOTATION}={note(order.known)}",
        ]
        self.stanza.run("backup", *words, timeout=LONGEST, watch=Watch(order.look, (order.lock,)))
        taken = self._newest(str(order.known["id"]))
        self._check(taken, order)
        files.sync_tree(order.path)
        return Copied(
            method=METHOD,
            layout=LAYOUT,
            compression=self.options.compression,
            timeline=taken.timeline,
            start_lsn=taken.start_lsn,
            stop_lsn=taken.stop_lsn,
            stored_bytes=taken.stored_bytes,
            data_bytes=taken.data_bytes,
            checksum="",  # pgBackRest keeps those of the files
        )

    def _newest(self, identifier: str) -> Taken:
        self.stanza = self.stanza.anew()
        found = [one for one in self.stanza.backups() if one.about.get("id") == identifier]
        if not found:
            raise HostFailed(
                f"pgBackRest ended well, but the stanza {self.stanza.name} does not have the backup.",
                "Find out what else works on its repository.",
            )
        return found[-1]

    def _check(self, taken: Taken, order: Order) -> None:
        """Raises HostFailed, once the backup is removed, if it is not the one that was asked for, or damaged."""
        prior = next((one for one in self.stanza.backups() if one.label == taken.prior), None)
        parent = stanzas.identifier(prior, self.stanza.generation) if prior else ""
        wrong = ""
        if taken.damaged:
            wrong = "Pages of the server have wrong checksums: the backup is damaged, and was discarded."
        elif (taken.kind, parent) != (order.kind, order.known["parent"]):
            wrong = f"pgBackRest has taken a {taken.kind} backup on top of {taken.prior or 'none'}; it was discarded."
        if wrong:
            self.stanza.expire(taken.label)
            raise HostFailed(wrong, "Look for errors of the disks and the memory of this host; take a full backup.")

    def problems(self, path: str, manifest: Manifest) -> list[str]:
        """By the checksums of all its files, of which pgBackRest tells the number."""
        del path
        label = self.stanza.label(manifest.id)
        if label is None:
            return [f"the stanza {self.stanza.name} no longer has it"]
        found = self.verified().backups.get(label, "pgBackRest has not verified it")
        return [f"{label}: {found}"] if found else []

    @property
    def looked(self) -> bool:
        """Whether all of the stanza has been verified."""
        return self._verified is not None

    def verified(self) -> Verified:
        """All of the stanza verified, backups and WAL: pgBackRest does not do less. Raises HostFailed."""
        if self._verified is None:
            # Only its log names the files.
            words = ("--output=text", "--verbose", "--log-level-console=info")
            text = self.stanza.run("verify", *words, timeout=LONGEST)
            self._verified = results(text, self.stanza.archives)
        return self._verified


def note(known: Mapping[str, Any]) -> str:
    """What pgBackRest keeps of a manifest for us: without the environment where that is too long. Pure."""
    text = json.dumps(known, sort_keys=True)
    return text if len(text) <= LARGEST_NOTE else json.dumps({**known, "environment": {}}, sort_keys=True)


def results(text: str, archives: Collection[str] = ()) -> Verified:
    """The result of `pgbackrest verify`, of WAL that of some archives. Pure."""
    lines = text.splitlines()
    counted = {match[1]: (int(match[2]), int(match[3])) for match in map(WAL.match, lines) if match}
    own = {name: counts for name, counts in counted.items() if name in archives}
    damaged: dict[str, str] = {}
    for match in filter(None, map(BAD.match, lines)):
        reason, archive, name = match.groups()
        if archive in own and archiver.kind(name) == "segment":
            damaged[name] = f"pgBackRest says {reason}"
    wrong = sum(total - valid for total, valid in own.values())
    return Verified(_backups(lines), sum(total for total, _valid in own.values()), damaged, wrong - len(damaged))


def _backups(lines: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, following in zip(lines, [*lines[1:], ""]):
        matched = RESULT.match(line)
        if not matched:
            continue
        label, status, total, valid = matched.groups()
        counts = COUNTS.match(following)
        words = ("missing", "with a wrong checksum", "of a wrong size", "that cannot be read")
        wrong = [f"{n} {word}" for n, word in zip(counts.groups(), words) if n != "0"] if counts else []
        bad = status != VALID or total != valid
        found[label] = f"{status}: of {total} files {', '.join(wrong) or f'{valid} are valid'}" if bad else ""
    return found


def wal_problems(stanza: Stanza, stretch: Stretch, scratch: str) -> Iterator[str]:
    """What is wrong with the WAL of a backup in a stanza. Each segment is read as a whole.

    Raises HostFailed if it cannot be found out.
    """
    path = f"{scratch}.segment"
    try:
        for number in stretch.numbers:
            name = stretch.name(number)
            try:
                if not fetch("", stretch.generation, name, path, stanza):
                    yield f"WAL segment {name} is missing"
            except archiver.Failure as error:
                yield str(error)
    except OSError as error:
        raise files.failure(error, f"{path} cannot be written") from error
    finally:
        files.discard(path)
