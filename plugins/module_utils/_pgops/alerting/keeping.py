# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is kept for whoever looks into an alert later: the scene as it begins to fire, and events.

Each is done after the rules have been evaluated, in a transaction of its own: what fails here is an error of the job,
and delays no alert.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PgOpsError
from ..host.files import File, write
from ..instance import deployments, sink
from ..instance.configuration import Configuration
from ..instance.deployments import Deployment
from ..instance.layout import Layout
from ..server.session import Session
from ..statements.options import options
from . import observation, scene
from .observation import Event

PATIENCE = 6.0
"""Seconds that a standby waits until the primary has evaluated the rules of this minute: the scene is of then."""
PAUSE = 0.3
RECENT, STOPPED = 20.0, 300.0
"""Seconds since an evaluation: it was that of this minute; there will be none."""
WEEK = 7 * 86_400
"""Seconds after which deployments are not looked for any more."""

NOTHING: Mapping[str, int] = {"scenes": 0, "events": 0}

PRESENT = "SELECT to_regclass('pgops.alert_scenes') IS NOT NULL"
DUE = "SELECT pgops.alerts_without_scene(%s)::text[]"
STORE = "SELECT pgops.store_scene(%s, %s::uuid[], %s::timestamptz, %s::jsonb)"
NOW = "SELECT clock_timestamp()::text"
EVALUATED = "SELECT extract(EPOCH FROM s.age)::float8 FROM pgops.alerting_status AS s"
KNOWN = "SELECT e.event_key FROM pgops.events AS e WHERE e.event_key = ANY (%s)"
STORE_EVENTS = "SELECT pgops.store_events(%s, %s::jsonb)"
NOTE_EVENTS = "SELECT pgops.note_events(%s)"


@dataclass
class Keeper:
    """One run on a node: ``source`` is a session of the agent's with its server."""

    configuration: Configuration
    layout: Layout
    source: Session

    def scene(self, patience: float = 0) -> dict[str, Any]:
        """Keep what is seen now with the alerts that have begun to fire; returns with how many, and the errors.

        Raises PgOpsError.
        """
        if self.source.in_recovery:
            self._wait(patience)
        due = self.source.value(DUE, [self.configuration.node])
        if not due:
            return {}
        at = self.source.value(NOW)
        seen = scene.take(self.source, self.configuration.node, options(self.configuration).query_texts)
        self.source.revive()
        kept = self._stored(STORE, due, at, json.dumps(seen.parts))
        return {"scenes": kept, "errors": list(seen.errors)}

    def _wait(self, patience: float) -> None:
        """On a standby: until the primary has evaluated the rules of this minute, unless it seems not to."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            age = self.source.value(EVALUATED)
            if age is None or age < RECENT or age > STOPPED:
                return
            time.sleep(PAUSE)

    def observed(self) -> dict[str, Any]:
        """Record what was done to the server since it was looked at last; returns how many events are new.

        Raises PgOpsError and OSError; then the next run finds them.
        """
        whose = sink.node(self.configuration, self.source)
        named = (whose.cluster, whose.name, whose.system_identifier)
        before = observation.load(self.layout.observed)
        now = observation.read(self.source, named, before)
        recorded = self._record(observation.between(before, now))
        write(File(self.layout.observed, now.text().encode(), 0o600))
        return {"events": recorded}

    def deployed(self) -> dict[str, Any]:
        """Record what modules have changed; returns how many events are new.

        Raises PgOpsError.
        """
        found = [deployment(one) for one in deployments.read(self.layout, time.time() - WEEK)]
        keys = {f"{self.configuration.node}:{one.key}": one for one in found}
        known = {row["event_key"] for row in self.source.rows(KNOWN, [list(keys)])} if keys else set()
        return {"events": self._record([one for key, one in keys.items() if key not in known])}

    def noted(self) -> dict[str, Any]:
        """On a primary: record what the ops database knows to have been done; returns how many events are new.

        Raises PgOpsError.
        """
        if self.source.in_recovery:
            return {}
        return {"events": self._stored(NOTE_EVENTS)}

    def _record(self, events: Sequence[Event]) -> int:
        return self._stored(STORE_EVENTS, json.dumps([one.data() for one in events])) if events else 0

    def _stored(self, query: str, *arguments: Any) -> int:
        """What a function of the ops database says that it has stored of this node."""
        whose = sink.node(self.configuration, self.source)
        with (
            sink.opened(self.configuration, self.layout, self.source, whose) as opened,
            opened.transaction() as node_id,
        ):
            return int(opened.session.value(query, [node_id, *arguments]))


def deployment(made: Deployment) -> Event:
    """What a module has changed, as an event. Pure."""
    several = len(made.changes) + made.more
    shown = "; ".join(made.changes[:5])
    rest = f"; and {several - 5} more" if several > 5 else ""
    text = f"{made.module} of pgops.fleet {made.version}: {shown or 'changed something'}{rest}"
    details: Mapping[str, Any] = {
        "module": made.module,
        "version": made.version,
        "changes": list(made.changes),
        "more": made.more,
    }
    return Event(f"deployment:{made.at}:{made.module}", made.at, "deployment", text, details)


def keep(source: Session, configuration: Configuration, layout: Layout, patience: float = PATIENCE) -> dict[str, Any]:
    """Keep the scene and record events; returns with how many alerts a scene was kept (``scenes``), how many
    ``events`` are new, and the errors: each part by itself, what fails costs nothing else. ``source`` is a session of
    the agent's with the node; where its schema is that of an older version, there is nothing to do."""
    counts = dict(NOTHING)
    errors: list[str] = []
    try:
        source.revive()
        if not source.value(PRESENT):
            return {**NOTHING, "errors": []}
    except PgOpsError as error:
        return {**NOTHING, "errors": [f"scene and events cannot be kept: {error}"]}
    for what, part in _parts(Keeper(configuration, layout, source), patience).items():
        found = _done(source, what, part)
        errors += found.get("errors", ())
        counts = {name: count + found.get(name, 0) for name, count in counts.items()}
    return {**counts, "errors": errors}


def _parts(keeper: Keeper, patience: float) -> Mapping[str, Callable[[], dict[str, Any]]]:
    """All that is done, by what cannot be done where it fails."""
    return {
        "the scene cannot be kept": lambda: keeper.scene(patience),
        "events of the server cannot be recorded": keeper.observed,
        "deployments cannot be recorded": keeper.deployed,
        "events of the cluster cannot be recorded": keeper.noted,
    }


def _done(source: Session, what: str, part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        source.revive()
        return part()
    except (PgOpsError, OSError) as error:
        return {"errors": [f"{what}: {error}"]}
