# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The repository brought to what a stanza of pgBackRest has, which is the truth about its backups.

What a killed run has completed there, and what others have taken, becomes a backup like all; what others have removed
is damaged; the removal that a killed expiry has begun is ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..host import files
from ..repository import backups, inventory, removed
from ..repository.manifests import Manifest, Tablespace
from ..repository.stanza import LAYOUT, Stanza, Taken, identifier

GONE = "pgBackRest no longer has it"
METHOD = "pgbackrest"


def adopt(repository: str, stanza: Stanza) -> tuple[str, ...]:
    """Bring the backups of a generation to those of its stanza; the names of the new ones. To be used inside
    `backups.alone`.

    Raises HostFailed.
    """
    place = backups.folder(repository, stanza.generation)
    size = inventory.segment_bytes(repository, stanza.generation)
    taken = {identifier(one, stanza.generation): one for one in stanza.backups()}
    listing = backups.listed(place)
    known, ours = listing.by_id(), removed.read(place).backups
    ids = {one.label: backup for backup, one in taken.items()}
    made = []
    for backup, one in taken.items():
        if backup in known:
            continue
        if backup in ours:
            stanza.expire(one.label)
            continue
        name = f"{one.started_at:%Y%m%dT%H%M%SZ}-{one.kind}-{backup[:8]}"
        _publish(os.path.join(place, name), manifest(one, backup, ids.get(one.prior, ""), stanza, size))
        if one.damaged:
            backups.note_checked(place, name, ["pages had wrong checksums when it was taken"], _now())
        made.append(name)
    for kept in listing.backups:
        if kept.manifest.layout == LAYOUT and kept.manifest.id not in taken and not kept.problems:
            backups.note_checked(place, kept.name, [GONE], _now())
    return tuple(made)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _publish(path: str, made: Manifest) -> None:
    """Raises HostFailed."""
    try:
        os.makedirs(path, 0o750, exist_ok=True)
        files.sync(os.path.dirname(path))
    except OSError as error:
        raise files.failure(error, f"{path} cannot be written") from error
    # Whatever else was attempted has not become a good one by this.
    backups.publish(path, made, settled=False)


def manifest(taken: Taken, backup: str, parent: str, stanza: Stanza, segment_bytes: int) -> Manifest:
    """The manifest of a backup in a stanza, by our note, and without one by what pgBackRest knows. Pure."""
    about = taken.about
    system, _dash, major = stanza.generation.rpartition("-")
    return Manifest(
        id=backup,
        kind=taken.kind,
        method=METHOD,
        cluster=str(about.get("cluster", stanza.name)),
        node=str(about.get("node", "")),
        system_identifier=system,
        server_version=str(about.get("server_version", major)),
        segment_bytes=segment_bytes,
        timeline=taken.timeline,
        start_lsn=taken.start_lsn,
        stop_lsn=taken.stop_lsn,
        started_at=taken.started_at,
        completed_at=taken.completed_at,
        layout=LAYOUT,
        compression=str(about.get("compression", "unknown")),
        stored_bytes=taken.stored_bytes,
        data_bytes=taken.data_bytes,
        checksum="",
        parent=parent,
        tablespaces=_tablespaces(about),
        environment=_environment(about),
    )


def _tablespaces(about: Mapping[str, Any]) -> tuple[Tablespace, ...]:
    return tuple(Tablespace(int(one["oid"]), str(one["path"])) for one in about.get("tablespaces", ()))


def _environment(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the copies of configuration files, which only the directory has that was lost."""
    found = about.get("environment", {})
    return {**found, "configuration": []} if isinstance(found, dict) else {}
