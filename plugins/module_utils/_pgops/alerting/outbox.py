# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The outbox in the ops database, as one run of a sender uses it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import QueryFailed
from ..instance.sink import Sink
from .outcome import SENT, Outcome

LEASE = "2 minutes"
"""For which what was claimed is nobody else's: more than a message may take."""

QUEUE = "SELECT pgops.queue_notifications()"
CLAIM = (
    "SELECT attempt_id::text AS attempt, channel, target, marked, document "
    "FROM pgops.claim_notifications(%s::uuid, %s::jsonb, %s::interval, %s)"
)
NOTE = "SELECT pgops.note_attempt(%s::uuid, %s, %s)"
CLAIM_ALL = "SELECT pgops.claim_alertmanager(%s::uuid, %s, %s::interval)"
NOTE_ALL = "SELECT pgops.note_alertmanager(%s::uuid, %s, %s::uuid[], %s::uuid[], %s)"
KINDS = "SELECT channel, kind FROM pgops.notification_channels"

COLLISIONS = ("40P01", "55P03")
"""deadlock_detected and lock_not_available: with another sender, which is done a moment later."""
TRIES = 3


@dataclass(frozen=True)
class Attempt:
    """A message for one target of a channel, noted as begun. ``marked``: the target may have it already."""

    attempt: str
    channel: str
    target: str
    marked: bool
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Outbox:
    """One sender's view of it. All that it does is committed at once. Its methods raise QueryFailed."""

    sink: Sink
    sender: str = field(default_factory=lambda: str(uuid.uuid4()))

    def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        left = TRIES
        while True:
            try:
                with self.sink.transaction():
                    return self.sink.session.rows(query, arguments)
            except QueryFailed as error:
                left -= 1
                if error.sqlstate not in COLLISIONS or not left:
                    raise

    def _value(self, query: str, *arguments: Any) -> Any:
        return next(iter(self._rows(query, *arguments)[0].values()))

    def queue(self) -> int:
        """Write what is due; how many messages."""
        return int(self._value(QUEUE))

    def kinds(self) -> dict[str, str]:
        """The kinds of the channels, as the ops database knows them."""
        return {row["channel"]: row["kind"] for row in self.sink.session.rows(KINDS)}

    def claim(self, channel: str, targets: Collection[str], most: int) -> list[Attempt]:
        """What is to be sent to a channel now, of at most so many messages."""
        wanted = json.dumps({channel: sorted(targets)})
        return [Attempt(**row) for row in self._rows(CLAIM, self.sender, wanted, LEASE, most)]

    def note(self, attempt: Attempt, outcome: Outcome) -> str:
        """Note how an attempt ended; what its message is now: waiting, sent or dead."""
        return str(self._value(NOTE, attempt.attempt, outcome.word, outcome.error or None))

    def claim_alertmanager(self, channel: str) -> list[dict[str, Any]] | None:
        """All alerts that an Alertmanager is to be told of; None where another sender does that."""
        found = self._value(CLAIM_ALL, self.sender, channel, LEASE)
        return None if found is None else list(found)

    def note_alertmanager(self, channel: str, alerts: list[dict[str, Any]], outcome: Outcome) -> None:
        """Note what came of telling it."""
        told = alerts if outcome.word == SENT else []
        firing, resolved = (
            [one["alert_id"] for one in told if (one["event"] == "resolved") is ended] for ended in (False, True)
        )
        error = None if outcome.word == SENT else outcome.error
        self._value(NOTE_ALL, self.sender, channel, firing, resolved, error)
