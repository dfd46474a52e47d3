# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine `native`: PostgreSQL's own pg_basebackup, verified by pg_verifybackup, or where there is none of the
version against the same checksums."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import Conflict, HostFailed, ProgramFailed
from ..host import commands, files
from ..host.commands import Watch
from ..host.flushing import Flushing
from ..repository import archiver, backups, segments
from ..repository.backups import Kept
from ..repository.manifests import FULL, Manifest, Tablespace
from . import clients, contents, plain, tars
from .clients import Clients
from .engine import Copied, Engine, Order
from .following import Following
from .options import Options
from .source import Source, ours

METHOD = "pg_basebackup"
PLAIN, TAR = "plain", "tar"
LONGEST = 172_800.0
"""Seconds that copying or verifying may take."""
PROGRESS = re.compile(r"^\s*\d+/\d+ kB \(\d+%\), \d+/\d+ tablespaces?|^waiting for checkpoint$|^NOTICE: ")
INCREMENTAL_SINCE = 17
MENDED = {17: 13, 18: 7}
"""The minor versions that corrected incremental backups: they could miss changes where the timeline changed."""


@dataclass(frozen=True)
class Native(Engine):
    """``login`` are libpq's parameters for pg_basebackup."""

    options: Options
    programs: Clients
    login: Mapping[str, str]
    room: str = ""

    def suits(self, kept: Kept) -> bool:
        """Those that it can read."""
        return kept.manifest.layout in (PLAIN, TAR)

    def archives(self, command: str, repository: str, generation: str) -> bool:
        """Into the repository itself."""
        return ours(command, repository, generation)

    def wal_share(self, source: Source, repository: str) -> float:
        """As the newest files of the repository."""
        try:
            return segments.stored_share(repository, source.generation, source.segment_bytes)
        except OSError as error:
            raise files.failure(error, f"{repository} cannot be read") from error

    def check(self, source: Source, kind: str) -> None:
        """What pg_basebackup needs of the server, of the host and of the options."""
        if source.wal_senders < 1:
            raise Conflict("max_wal_senders is 0: pg_basebackup cannot connect.", "Set it to 10, and restart.")
        compression = self.options.compression
        reading = archiver.DECOMPRESS.get(compression, [""])[0]
        if reading and shutil.which(reading) is None:
            raise HostFailed(
                f"pgops_backup_compression is {compression}, but this host has no {reading}, which verifies and "
                "restores such backups.",
                f"Install the package {reading}, or use gzip.",
            )
        if kind != FULL:
            check_incremental(source, self.options.unsafe_incremental)

    def copy(self, source: Source, order: Order) -> Copied:
        """Copy by pg_basebackup, and verify."""
        data = os.path.join(order.path, backups.DATA)
        layout = PLAIN if self.options.compression == "none" else TAR
        spaces = source.tablespaces if layout == PLAIN else ()
        command = self.command(order, source.tablespaces, layout)
        following = Following(data, self.options.compression) if layout == TAR else contextlib.nullcontext()
        with following as followed:
            # Its progress is written to a pipe: it ends by itself soon after this process, should that be killed.
            with Flushing(order.path):
                commands.run(command, LONGEST, watch=Watch(order.look, (order.lock,), PROGRESS))
            for one in spaces:
                _relative(data, one.oid)
            span = contents.span(os.path.join(data, contents.NAME))
            # Verification keeps a processor busy, and flushing the disk.
            with ThreadPoolExecutor(max_workers=1) as pool:
                flushed = pool.submit(files.sync_tree, order.path)
                found: list[str] = []
                if followed is None or not followed.sound(order.look):
                    watch = Watch(order.look, (order.lock,))
                    found = self._problems(order.path, source.major, layout, self.options.compression, watch)
                flushed.result()
        if found:
            raise HostFailed(
                f"The backup that was taken is damaged, and was discarded: {'; '.join(found)}.",
                "Look for errors of the disks and the memory of this host, then take it again.",
            )
        return Copied(
            method=METHOD,
            layout=layout,
            compression=self.options.compression,
            timeline=span.timeline,
            start_lsn=span.start,
            stop_lsn=span.stop,
            stored_bytes=_stored(order.path),
            data_bytes=_data(data, source, order.kind),
            checksum=contents.digest(os.path.join(data, contents.NAME)),
        )

    def command(self, order: Order, spaces: Sequence[Tablespace], layout: str) -> list[str]:
        """The command line of pg_basebackup. Pure."""
        rate = round(self.options.max_rate_mb * 1_000_000 / 1024)
        words = [
            self.programs.program(clients.COPYING),
            f"--dbname={connection(self.login)}",
            f"--pgdata={os.path.join(order.path, backups.DATA)}",
            f"--format={layout}",
            "--wal-method=none",
            # Who limits the rate does not want a burst of writes at the start either.
            f"--checkpoint={'spread' if rate else 'fast'}",
            "--label=pgops",
            "--manifest-checksums=SHA256",
            "--no-password",
            "--progress",
            "--no-sync",  # that is done while it is verified
        ]
        words += [f"--max-rate={rate}k"] if rate else []
        if layout == PLAIN:
            words += [f"--tablespace-mapping={_mapping(order.path, one)}" for one in spaces]
        if order.parent:
            words.append(f"--incremental={os.path.join(order.parent, backups.DATA, contents.NAME)}")
        return [*words, *self._compressed()]

    def _compressed(self) -> list[str]:
        """By the client, whose niceness the agent's units set, and beside the server's process, which reads."""
        method = self.options.compression
        if method == "none":
            return []
        return [f"--compress=client-{method}"]

    def problems(self, path: str, manifest: Manifest) -> list[str]:
        """By the checksums of all files."""
        listed = os.path.join(path, backups.DATA, contents.NAME)
        if not os.path.isfile(listed):
            return [f"{backups.DATA}/{contents.NAME} is missing"]
        if contents.digest(listed) != manifest.checksum:
            return [f"{backups.DATA}/{contents.NAME} has another checksum"]
        return self._problems(path, manifest.major, manifest.layout, manifest.compression)

    def _problems(
        self, path: str, major: int, layout: str, compression: str, watch: Watch = commands.UNWATCHED
    ) -> list[str]:
        """Raises HostFailed where it cannot be found out: that says nothing about the backup."""
        data = os.path.join(path, backups.DATA)
        if layout == TAR:
            return tars.problems(data, compression, _now_and_then(watch.look))
        if not self.programs.verifies(major):
            return plain.problems(data)
        command = [self.programs.program(clients.VERIFYING), "--no-parse-wal", "--quiet", data]
        try:
            commands.run(command, LONGEST, watch=watch)
        except ProgramFailed as error:
            if error.status != 1:
                raise
            return [error.message.partition(": ")[2] or error.message]
        return []


def _now_and_then(look: Callable[[], None]) -> Callable[[], None]:
    """The same look, at most each second."""
    last = time.monotonic()

    def now_and_then() -> None:
        nonlocal last
        if time.monotonic() > last + commands.LOOKING:
            last = time.monotonic()
            look()

    return now_and_then


def check_incremental(source: Source, unsafe: bool) -> None:
    """Raises Conflict if a server cannot take incremental backups, or has an error in them that was corrected since.
    Pure."""
    if source.major < INCREMENTAL_SINCE:
        raise Conflict(
            f"PostgreSQL {source.major} has no incremental backups, which came with {INCREMENTAL_SINCE}.",
            "Take full backups.",
        )
    if source.version_num % 10000 < MENDED.get(source.major, 0) and not unsafe:
        raise Conflict(
            f"Incremental backups of PostgreSQL {source.version} can miss changes where the timeline changed, which "
            f"upstream corrected in 17.{MENDED[17]} and 18.{MENDED[18]}.",
            "Update the server. pgops_backup_unsafe_incremental allows them as it is.",
        )
    if source.summarize_wal != "on":
        raise Conflict(
            f"summarize_wal is {source.summarize_wal}: the server does not note what changes between backups.",
            "Set summarize_wal to on, which needs no restart.",
        )


def connection(parameters: Mapping[str, str]) -> str:
    """Parameters of libpq as one text. Options of the environment are not heeded. Pure."""
    given = {**parameters, "options": parameters.get("options", "")}
    return " ".join(f"{name}={_quoted(value)}" for name, value in given.items())


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _mapping(path: str, space: Tablespace) -> str:
    target = os.path.join(path, backups.TABLESPACES, str(space.oid))
    return "=".join(name.replace("=", "\\=") for name in (space.path, target))


def _relative(data: str, oid: int) -> None:
    """Let the link of a tablespace lead to where it is also in a copy of the repository."""
    link = os.path.join(data, "pg_tblspc", str(oid))
    try:
        os.unlink(link)
        os.symlink(os.path.join("..", "..", backups.TABLESPACES, str(oid)), link)
    except OSError as error:
        raise files.failure(error, f"{link} cannot be written") from error


def _stored(path: str) -> int:
    """The bytes of all files below a directory."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_size for folder, _folders, names in os.walk(path) for name in names
    )


def _data(data: str, source: Source, kind: str) -> int:
    """The bytes of the data directory that a restore makes: as listed, or where only what was changed is listed,
    those of the server's databases."""
    listed = sum(one.size for one in contents.listed(os.path.join(data, contents.NAME)))
    return listed if kind == FULL else max(listed, source.bytes)
