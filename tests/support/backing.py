# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers with a bank, whose committed state is known at each moment, and backups of them."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from archives import Host
from servers import Server

from pgops.repository import backups
from pgops.repository.manifests import Manifest, Tablespace

SMALL_SEGMENTS = ("--wal-segsize=1",)
BANK = """
CREATE TABLE account (id integer PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE transfer (id bigserial PRIMARY KEY, source integer, target integer, amount bigint);
INSERT INTO account SELECT n, 1000 FROM generate_series(1, 20) AS n;
"""
TRANSFER = """
WITH moved AS (
    INSERT INTO transfer (source, target, amount)
    SELECT 1 + n % 20, 1 + (n * 7 + 3) % 20, 1 + n % 13 FROM (SELECT count(*) AS n FROM transfer) AS t
    RETURNING id, source, target, amount
), paid AS (
    UPDATE account AS a SET balance = a.balance + CASE WHEN a.id = m.target THEN m.amount ELSE 0 END
                                                - CASE WHEN a.id = m.source THEN m.amount ELSE 0 END
    FROM moved AS m WHERE a.id IN (m.source, m.target)
)
SELECT pg_current_xact_id()::text FROM moved
"""
PACKERS = {"gzip": ["gzip", "-1"], "zstd": ["zstd", "-q", "--rm"], "lz4": ["lz4", "-q", "-m", "--rm"]}
STATE = """
SELECT (SELECT count(*) FROM transfer)::text || ' '
       || (SELECT md5(string_agg(a.id || ':' || a.balance, ' ' ORDER BY a.id)) FROM account AS a)
"""
NOW = "SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text"


@dataclass(frozen=True)
class Moment:
    """A moment between two transactions of the bank: its state then, and the transaction that came last."""

    state: str
    time: datetime
    lsn: str
    xid: str


@dataclass
class Bank:
    """A server that archives, with a bank; ``moments`` are of all its transactions."""

    host: Host
    moments: list[Moment] = field(default_factory=list)
    taken: list[tuple[str, Manifest]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    """What backups say of the server."""

    @property
    def server(self) -> Server:
        return self.host.server

    @property
    def generation(self) -> str:
        return next(path.name for path in self.host.repository.iterdir() if path.is_dir())

    @property
    def place(self) -> str:
        """The directory of its backups, which belongs to the server's user."""
        made = backups.prepared(str(self.host.repository), self.generation)
        own(Path(made), self.server)
        return made

    @classmethod
    def opened(cls, host: Host) -> Bank:
        """With archiving, and no transfer yet."""
        host.apply()
        host.server.psql(BANK)
        return cls(host)

    def work(self, transfers: int = 3) -> Moment:
        """Some transfers; the moment after the last one."""
        with self.server.connect() as connection:
            for _number in range(transfers):
                (xid,) = connection.execute(TRANSFER).fetchone() or ("",)
                (state,) = connection.execute(STATE).fetchone() or ("",)
                when, lsn = connection.execute(NOW).fetchone() or (None, None)
                self.moments.append(Moment(str(state), when, str(lsn), str(xid)))
        return self.moments[-1]

    def point(self, name: str) -> str:
        """Make a restore point; its LSN."""
        return str(self.server.value(f"SELECT pg_create_restore_point('{name}')"))

    def archive(self) -> None:
        """Have all WAL in the repository."""
        self.host.wait_for(self.host.switch())

    def backup(self, kind: str = "full", *options: str, parent: Manifest | None = None, packed: str = "") -> Manifest:
        """Take and publish a backup; ``options`` are of pg_basebackup, as for other layouts. ``packed``: by which
        program its tar files are compressed."""
        name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{kind}-{uuid.uuid4().hex[:8]}"
        plain = "--format=tar" not in options
        with backups.begun(self.place, name) as path:
            own(Path(path), self.server)
            began = datetime.now(timezone.utc)
            spaces = self._copied(Path(path), plain, options, parent)
            if packed in PACKERS:
                tars = map(str, (Path(path) / backups.DATA).glob("*.tar"))
                self.server.run(*PACKERS[packed], *tars)
            made = self._manifest(Path(path), kind, began, spaces, parent)
            layout = {"layout": "plain" if plain else "tar", "compression": _compression(Path(path))}
            made = Manifest(**{**vars(made), **layout})
            self.archive()
            backups.publish(path, made)
        own(Path(path), self.server)
        self.taken.append((name, made))
        return made

    def _copied(
        self, path: Path, plain: bool, options: tuple[str, ...], parent: Manifest | None
    ) -> tuple[Tablespace, ...]:
        data = path / backups.DATA
        spaces = tuple(Tablespace(oid, where) for oid, where in self._tablespaces())
        maps = [f"-T{one.path}={path}/{backups.TABLESPACES}/{one.oid}" for one in spaces if plain]
        incremental = []
        if parent is not None:
            base = next(name for name, made in self.taken if made.id == parent.id)
            incremental = [f"--incremental={self.place}/{base}/{backups.DATA}/backup_manifest"]
        program = self.server.client("pg_basebackup")
        usual = ["-d", self.server.dsn(""), "-D", str(data), "-X", "none", "--checkpoint=fast", "--no-sync"]
        self.server.run(program, *usual, "--manifest-checksums=SHA256", *maps, *incremental, *options)
        for one in spaces if plain else ():
            link = data / "pg_tblspc" / str(one.oid)
            link.unlink()
            link.symlink_to(f"../../{backups.TABLESPACES}/{one.oid}")
        return spaces

    def _tablespaces(self) -> list[tuple[int, str]]:
        query = "SELECT oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 16000"
        with self.server.connect() as connection:
            return [(int(oid), str(path)) for oid, path in connection.execute(query).fetchall()]

    def _manifest(
        self, path: Path, kind: str, began: datetime, spaces: tuple[Tablespace, ...], parent: Manifest | None
    ) -> Manifest:
        text = (path / backups.DATA / "backup_manifest").read_bytes()
        span = json.loads(text)["WAL-Ranges"]
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        return Manifest(
            id=str(uuid.uuid4()),
            kind=kind,
            method="pg_basebackup",
            cluster="shop",
            node="db1",
            system_identifier=self.generation.partition("-")[0],
            server_version=str(self.server.value("SHOW server_version")).split()[0],
            segment_bytes=int(str(self.server.value("SELECT pg_size_bytes(current_setting('wal_segment_size'))"))),
            timeline=span[-1]["Timeline"],
            start_lsn=_byte(span[0]["Start-LSN"]),
            stop_lsn=_byte(span[-1]["End-LSN"]),
            started_at=began,
            completed_at=datetime.now(timezone.utc),
            layout="plain",
            compression="none",
            stored_bytes=size,
            data_bytes=size,
            checksum=hashlib.sha256(text).hexdigest(),
            parent=parent.id if parent else "",
            tablespaces=spaces,
            environment=self.environment,
        )

    def directory(self, manifest: Manifest) -> Path:
        """Where a backup is."""
        return Path(self.place, next(name for name, made in self.taken if made.id == manifest.id))


def _compression(path: Path) -> str:
    endings = {".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}
    return next((endings[file.suffix] for file in (path / "data").iterdir() if file.suffix in endings), "none")


def _byte(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def own(path: Path, server: Server) -> None:
    """Give a directory with all that it has to the server's user."""
    if os.geteuid() == 0:
        owner = pwd.getpwnam(server.os_user)
        for one in [path, *path.rglob("*")]:
            shutil.chown(one, owner.pw_uid, owner.pw_gid) if not one.is_symlink() else None
