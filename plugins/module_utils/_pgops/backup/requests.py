# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was asked for in SQL is done: backups on the node that is backed up, expiries on the primary."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import Busy, InvalidInput, PgOpsError
from ..host import files
from ..host.files import File
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..repository import backups
from ..repository.attempts import Attempt
from ..repository.catalogue import guarded
from ..server.session import connect
from . import record, source, work
from . import retention as keeping
from .options import options
from .record import Asked, Request

TRIED = "requests.json"
"""In the directory of the server's user: a standby cannot mark requests, and takes none twice."""
MOST = 100
GENERATION = """
SELECT s.system_identifier::text || '-' || current_setting('server_version_num')::integer / 10000
FROM pg_control_system() AS s
"""


def serve(settings: Configuration, layout: Layout) -> dict[str, Any]:
    """Take the backups and do the expiry that were asked for, as the server's user; find out what an expiry would
    release. Returns ``taken`` (UUIDs), ``expired`` (backups by name, and the number of WAL files; None if it was not
    asked for) and ``errors``.

    Raises PgOpsError if the server cannot be asked.
    """
    if not settings.repository:
        raise InvalidInput("This instance has no repository.", "Set pgops_repository and run site.yml.")
    declared = options(settings)
    with connect(endpoints.superuser(settings, "requests")) as session:
        standby = session.in_recovery
        with guarded(session):
            asked = record.requested(session)
        generation = str(session.value(GENERATION))
    errors: list[str] = []
    taken: list[str] = []
    if not source.elsewhere(declared.source, settings.node, standby):
        taken = _take(settings, layout, generation, asked, errors)
    expired = None if standby else _expire(settings, layout, asked, errors)
    return {"taken": taken, "expired": expired, "errors": errors}


def _take(settings: Configuration, layout: Layout, generation: str, asked: Asked, errors: list[str]) -> list[str]:
    """Take the backups that were asked for; their UUIDs."""
    path = os.path.join(layout.keeping, TRIED)
    tried = _tried(path)
    taken = []
    for request in asked.backups:
        if request.id in tried:
            continue
        try:
            done = work.back_up(_as_asked(settings, request), layout, request.kind, request.id)
        except Busy as error:  # the next run tries again
            errors.append(f"backup {request.id}: {error}")
            break
        except PgOpsError as error:
            tried = _tried_too(path, tried, request.id)
            attempt = Attempt(request.id, request.kind, settings.node, "", "", datetime.now(timezone.utc))
            errors += [f"backup {request.id}: {error}"]
            errors += record.failed(settings, generation, attempt, str(error))
            continue
        if "skipped" in done:  # the node has become another meanwhile
            break
        tried = _tried_too(path, tried, request.id)
        taken.append(request.id)
        errors += done["errors"]
    return taken


def _as_asked(settings: Configuration, request: Request) -> Configuration:
    """The configuration for a request: one that is not to be compressed is not."""
    if request.compressed:
        return settings
    part = {**settings.parts.get("backup", {}), "compression": "none"}
    return replace(settings, parts={**settings.parts, "backup": part})


def _tried(path: str) -> list[str]:
    try:
        found = json.loads(files.contents(path))
    except (FileNotFoundError, ValueError):
        return []
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error
    return [str(one) for one in found] if isinstance(found, list) else []


def _tried_too(path: str, tried: list[str], request: str) -> list[str]:
    """Remember a request that was tried."""
    now = [*tried, request][-MOST:]
    files.apply([File(path, (json.dumps(now) + "\n").encode(), 0o640)])
    return now


def _expire(settings: Configuration, layout: Layout, asked: Asked, errors: list[str]) -> Mapping[str, Any] | None:
    """Do the expiry that was asked for, and find out what the next one would remove; what was removed, None if none
    was asked for."""
    removed: dict[str, Any] | None = None
    if asked.expiry:
        removed = _expired(settings, layout, errors)
    if asked.expiry or asked.outdated:
        errors += _forecast(settings, layout)
    return removed


def _expired(settings: Configuration, layout: Layout, errors: list[str]) -> dict[str, Any] | None:
    errors += record.expiring(settings)
    try:
        done = work.expire(settings, layout, dry_run=False)
    except PgOpsError as error:
        errors += [str(error), *record.expiry_ended(settings, str(error))]
        return None
    errors += done["errors"]
    errors += record.expiry_ended(settings, " ".join([*done["errors"], *done["skipped"]]))
    return {"backups": [one["name"] for one in done["removed"]], "wal": done["wal_removed"]}


def _forecast(settings: Configuration, layout: Layout) -> list[str]:
    """Tell how many backups an expiry would remove. Returns what is wrong."""
    try:
        going = work.expire(settings, layout, dry_run=True)["removed"]
        until = _until(settings)
    except PgOpsError as error:
        return [f"It is not known what an expiry would remove: {error}"]
    return record.forecast(settings, len(going), sum(one["stored_bytes"] for one in going), until)


def _until(settings: Configuration) -> dict[str, Any]:
    """By their UUIDs, until when the declared retention keeps the backups; what needs them keeps them longer."""
    retention = keeping.parse(options(settings).retention)
    found = [kept for _generation, kept in backups.everywhere(settings.repository)]
    return {
        kept.manifest.id: kept.manifest.completed_at + timedelta(days=retention.days(kept.manifest)) for kept in found
    }
