# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups in repositories of tests, without a server."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pgops.backup.source import Source
from pgops.repository import archiver, backups
from pgops.repository.manifests import Manifest

GENERATION = "7412345678901234567-17"
MIDNIGHT = datetime(2026, 1, 2, tzinfo=timezone.utc)
SOURCE = Source("7412345678901234567", 170013, 1 << 24, False, 1, "on", 10**9, 10, 600, "on", "/bin", "/data")
"""A server that is backed up."""


def manifest(**other: Any) -> Manifest:
    """A manifest, of a full backup unless told otherwise."""
    usual: dict[str, Any] = {
        "id": "6c84fb90-12c4-11e1-840d-7b25c5ee775a",
        "kind": "full",
        "method": "pg_basebackup",
        "cluster": "shop",
        "node": "db1",
        "system_identifier": "7412345678901234567",
        "server_version": "17.13",
        "segment_bytes": 1 << 24,
        "timeline": 1,
        "start_lsn": 0x2000028,
        "stop_lsn": 0x2000120,
        "started_at": MIDNIGHT,
        "completed_at": MIDNIGHT,
        "layout": "plain",
        "compression": "none",
        "stored_bytes": 4096,
        "data_bytes": 4096,
        "checksum": "0" * 64,
    }
    return Manifest(**{**usual, **other})


def generation(base: Path) -> str:
    """The directory of the backups of a new, empty generation."""
    (base / GENERATION).mkdir(parents=True)
    (base / GENERATION / archiver.IDENTITY).write_text('{"wal_segment_size": 16777216}')
    return backups.prepared(str(base), GENERATION)


def backup(place: str, name: str, **other: Any) -> Manifest:
    """A published backup with one file."""
    made = manifest(**other)
    with backups.begun(place, name) as path:
        Path(path, backups.DATA).mkdir()
        Path(path, backups.DATA, "file").write_text(name)
        backups.publish(path, made)
    return made
