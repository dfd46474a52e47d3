# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The scene of an alert: what a DBA would look at on a server now, part by part, in bounded time and space.

A part that fails or takes too long costs itself only. Texts are redacted in the database, before they leave it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PgOpsError
from ..server.session import Session

PARTS: Mapping[str, str] = {
    "blocking": "SELECT pgops.scene_blocking(%(texts)s)",
    "transactions": "SELECT pgops.scene_transactions(%(texts)s)",
    "sessions": "SELECT pgops.scene_sessions()",
    "slots": "SELECT pgops.scene_slots()",
    "standbys": "SELECT pgops.scene_standbys()",
    "progress": "SELECT pgops.scene_progress()",
    "statements": "SELECT pgops.scene_statements(%(node)s, %(texts)s)",
    "regressions": "SELECT pgops.scene_regressions(%(node)s, %(texts)s)",
}
"""What is looked at, in this order: what passes soonest comes first."""

SECONDS = 8.0
"""For all of it."""
EACH = 2.0
"""Seconds of a part."""
LEAST = 0.05
"""Seconds without which no part is begun."""

PART_BYTES = 32_000
"""Of a part's rows; the last ones are left out where they are more."""
TEXT_BYTES = 1_000
NAME_BYTES = 300
"""Of a statement's text, and of any other text."""

NO_TIME = "there was no time left"

LIMIT = "SELECT set_config('statement_timeout', %s, true)"


@dataclass(frozen=True)
class Scene:
    """By its name, each part as the store takes it; and the errors of parts."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


def take(session: Session, node: str, texts: bool, seconds: float = SECONDS) -> Scene:
    """What is seen on the server of a session in its ops database; ``texts``: with those of statements."""
    until = time.monotonic() + seconds
    parts = {name: _part(session, query, node, texts, until) for name, query in PARTS.items()}
    return Scene(parts, tuple(f"scene: {name}: {part['error']}" for name, part in parts.items() if "error" in part))


def _part(session: Session, query: str, node: str, texts: bool, until: float) -> dict[str, Any]:
    left = min(EACH, until - time.monotonic())
    if left < LEAST:
        return {"error": NO_TIME}
    try:
        session.revive()
        with session.transaction():
            session.execute("SET TRANSACTION READ ONLY")
            session.value(LIMIT, [str(round(left * 1000))])
            found = session.value(query, {"node": node, "texts": texts})
    except PgOpsError as error:
        return {"error": cut(str(error), NAME_BYTES)}
    return fitted(found["rows"], int(found["left_out"]))


def fitted(rows: Sequence[Mapping[str, Any]], left_out: int, size: int = PART_BYTES) -> dict[str, Any]:
    """The rows of a part with their texts cut, as many of the first ones as have room. Pure."""
    kept: list[Mapping[str, Any]] = []
    for row in rows:
        short = {name: _short(name, value) for name, value in row.items()}
        size -= len(json.dumps(short, ensure_ascii=False).encode()) + 2
        if size < 0:
            break
        kept.append(short)
    return {"rows": kept, "left_out": left_out + len(rows) - len(kept)}


def _short(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_short(name, one) for one in value]
    return cut(value, TEXT_BYTES if name == "query" else NAME_BYTES) if isinstance(value, str) else value


def cut(text: str, size: int) -> str:
    """A text of at most so many bytes, without half a character at its end. Pure."""
    return text.encode()[:size].decode(errors="ignore")
