# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The same record of original values as `originals`, in the data directory, beside postgresql.auto.conf: a standby
that is cloned from this server gets both, and its host, where nothing was changed, can restore them too."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..errors import HostFailed, QueryFailed, Unsupported
from ..host import files
from ..host.files import File
from ..host.identity import as_user
from ..server import postmaster
from ..server.postmaster import Postmaster
from ..server.session import READS_FILES, Session
from .originals import FORMAT, Original, Originals

NAME = "pgops.originals.json"
LARGEST = 1024 * 1024
"""Bytes of the record that are read."""
READ = "SELECT pg_read_file(%s, 0, %s, true)"


def read(session: Session, capability: str) -> dict[str, Original]:
    """The parameters that a capability changed on this server or on the one that it was cloned from; none where there
    is no record, or it cannot be read.

    The server reads it: who could change its answer could as well change the file.

    Raises QueryFailed if the server does not answer.
    """
    try:
        with session.answering(READS_FILES):
            text = session.value(READ, [NAME, LARGEST])
    except QueryFailed:
        if session.connection.closed:  # the file is a pipe, and nothing else can be asked any more
            raise
        return {}
    return _of(_parsed(text), capability)


def _parsed(text: str | None) -> dict[str, Any]:
    """The settings of all capabilities; none of what somebody else has written."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        document = json.loads(text or "{}")
        if document.get("format") == FORMAT:
            return dict(document["settings"])
    return {}


def _of(settings: Mapping[str, Any], capability: str) -> dict[str, Original]:
    with contextlib.suppress(AttributeError, TypeError):
        found = {str(name): Original(**one) for name, one in settings.get(capability, {}).items()}
        if all(value is None or isinstance(value, str) for one in found.values() for value in (one.before, one.ours)):
            return found
    return {}


def place(session: Session) -> Postmaster | None:
    """Where to write the record; None where the server's files are not on this host."""
    with contextlib.suppress(Unsupported, HostFailed):
        return postmaster.of(session)
    return None


def write(server: Postmaster | None, capability: str, recorded: Originals) -> None:
    """Record what a capability changed, as the server's user.

    A server without the record is one whose clones do not know the original values: no reason for an error.
    """
    if server is None:
        return
    path = os.path.join(server.data_directory, NAME)
    kept = {name: asdict(original) for name, original in sorted(recorded.items())}
    with contextlib.suppress(HostFailed, OSError):
        as_user(server.owner, lambda: _put(path, capability, kept))


def _put(path: str, capability: str, kept: Mapping[str, Any]) -> None:
    present = files.read(path)
    others = _parsed(present.content.decode("utf-8", "replace")) if present else {}
    settings = {name: found for name, found in {**others, capability: kept}.items() if found}
    if settings:
        text = json.dumps({"format": FORMAT, "settings": settings}, indent=2, sort_keys=True) + "\n"
        # As the server's own files: one that its group may not read would end the backups that the group makes.
        mode = 0o640 if os.stat(os.path.dirname(path)).st_mode & stat.S_IRGRP else 0o600
        files.apply([File(path, text.encode(), mode)])
    elif present:
        files.discard(path)
