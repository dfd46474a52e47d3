# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The interface of engines, which take backups and verify them. No engine's concept goes beyond it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..repository.backups import Kept
from ..repository.manifests import Manifest
from .source import Source


@dataclass(frozen=True)
class Order:
    """A backup to be taken into the directory ``path``, of a kind of manifests.KINDS; ``parent`` is the directory of
    the backup that it adds to, '' for a full one. ``lock`` is the descriptor that keeps others away, and ``look`` is
    called each second; what it raises ends the backup. ``known`` is what its Manifest has that is not of the copy."""

    kind: str
    path: str
    parent: str
    lock: int
    look: Callable[[], None]
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Copied:
    """What an engine has written and verified: the fields of a Manifest that it knows."""

    method: str
    layout: str
    compression: str
    timeline: int
    start_lsn: int
    stop_lsn: int
    stored_bytes: int
    data_bytes: int
    checksum: str


class Engine(ABC):
    """What takes backups and verifies them, as the server's user. ``room`` is the directory on whose file system they
    need room, '' where that is not known here."""

    room: str

    @abstractmethod
    def suits(self, kept: Kept) -> bool:
        """Whether a backup is its own."""

    @abstractmethod
    def archives(self, command: str, repository: str, generation: str) -> bool:
        """Whether an archive_command stores WAL where its backups have theirs."""

    @abstractmethod
    def wal_share(self, source: Source, repository: str) -> float:
        """The part of its size that WAL takes where its backups have theirs; 1 where there is none.

        Raises HostFailed.
        """

    @abstractmethod
    def check(self, source: Source, kind: str) -> None:
        """Find out whether a backup of that kind can be taken.

        Raises PgOpsError with what to do.
        """

    @abstractmethod
    def copy(self, source: Source, order: Order) -> Copied:
        """Copy the server, verify the copy, and flush all that is in the directory of the order to disk.

        Raises PgOpsError and OSError.
        """

    @abstractmethod
    def problems(self, path: str, manifest: Manifest) -> list[str]:
        """What is wrong with a backup in a directory, naming the files; empty where nothing is.

        Raises PgOpsError if it cannot be found out.
        """
