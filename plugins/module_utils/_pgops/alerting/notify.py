# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sending what is in the outbox, to the channels whose addresses this host has."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Any

from ..errors import HostFailed, InvalidInput, Unreachable
from ..instance import endpoints, sink
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..instance.sink import Node, Sink
from ..server.session import connect
from . import alertmanager, channels, heartbeat, heeding, senders, texts
from .channels import Channel
from .couriers import Couriers
from .outbox import Attempt, Outbox
from .outcome import SENT, Outcome

EACH = 4
"""Messages of one channel that are on their way at once, so that a slow one does not take all places."""
MOST = 32
"""Processes at once, over all channels."""
BEGINS = 30.0
"""Seconds in which messages are begun; the last one is then done before the next run."""


@dataclass(frozen=True)
class Post:
    """All that one target of an Alertmanager is told."""

    channel: str
    target: str


@dataclass
class Delivery:
    """One run of a sender. ``known`` are the channels that it has addresses of, ``outcomes`` counts what became of
    its attempts, ``errors`` are told once for each target."""

    outbox: Outbox
    known: Mapping[str, Channel]
    couriers: Couriers[Attempt | Post]
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)
    alerts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    posted: dict[str, list[Outcome]] = field(default_factory=dict)

    def run(self) -> None:
        """Send all that is due. Alertmanagers come first: what fires must be told again before it runs out."""
        until = time.monotonic() + BEGINS
        for channel in self._of_kind("alertmanager"):
            self._post(channel)
        while True:
            if time.monotonic() < until:
                self._begin()
            if not self.couriers.running:
                return
            for key, outcome in self.couriers.wait():
                self._note(key, outcome)

    def _of_kind(self, kind: str) -> list[Channel]:
        return [channel for channel in self.known.values() if channel.kind == kind]

    def _begin(self) -> None:
        """Begin what has a place, of the channels with the fewest on their way first."""
        under_way = Counter(courier.key.channel for courier in self.couriers.running)
        for channel in sorted(self._of_kind("apprise"), key=lambda one: under_way[one.name]):
            room = EACH - -(-under_way[channel.name] // len(channel.targets))
            if room > 0 and len(self.couriers.running) < MOST:
                for attempt in self.outbox.claim(channel.name, channel.targets, room):
                    text = texts.text(attempt.document, attempt.marked)
                    self.couriers.start(attempt, partial(senders.send, channel.targets[attempt.target], text))

    def _post(self, channel: Channel) -> None:
        alerts = self.outbox.claim_alertmanager(channel.name)
        if alerts is None:
            return
        if not alerts:
            self.outbox.note_alertmanager(channel.name, [], Outcome(SENT))
            return
        self.alerts[channel.name], self.posted[channel.name] = alerts, []
        found = alertmanager.posts(alerts, datetime.now(timezone.utc))
        for target, url in channel.targets.items():
            self.couriers.start(Post(channel.name, target), partial(senders.tell, url, found))

    def _note(self, key: Attempt | Post, outcome: Outcome) -> None:
        self.outcomes[outcome.word] += 1
        if outcome.word != SENT:
            self.errors[f"{key.channel}/{key.target}"] = outcome.error
        if isinstance(key, Attempt):
            self.outcomes["dead"] += self.outbox.note(key, outcome) == "dead"
            return
        self.posted[key.channel].append(outcome)
        if len(self.posted[key.channel]) == len(self.known[key.channel].targets):
            # One of a cluster's Alertmanagers is enough; those that are down forget what they are not told.
            best = min(self.posted[key.channel], key=lambda one: one.word != SENT)
            self.outbox.note_alertmanager(key.channel, self.alerts[key.channel], best)


def deliver(settings: Configuration, layout: Layout) -> dict[str, Any]:
    """Write what is due into the outbox and send it. Returns ``queued``, ``sent``, ``failed``, ``ambiguous`` and
    ``dead`` (messages that were given up), and ``errors``; ``skipped`` where this host sends to no channel.

    Raises PgOpsError.
    """
    known, errors = channels.load(layout.channels)
    known = {name: channel for name, channel in known.items() if channel.kind != "heartbeat"}  # the watch's
    if not known and not errors:
        return {"skipped": "this host has no addresses of channels", "errors": []}
    known = _loaded(known, errors)
    with _sink(settings, layout) as opened:
        errors += heeding.exchange(opened, layout)
        return _delivered(Outbox(opened), known, errors)


@contextlib.contextmanager
def _sink(settings: Configuration, layout: Layout) -> Iterator[Sink]:
    """The ops database; where the host's own server takes no session, by way of the cluster's primary, which has to
    know what the watch tells of that."""
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(connect(endpoints.agent(settings, "notify")))
        except Unreachable:
            if not settings.peers or settings.host:
                raise
            session = stack.enter_context(connect(endpoints.primary(settings, layout.passfile, "notify")))
            node = Node(settings.cluster, settings.node, session.value(sink.SYSTEM_IDENTIFIER), is_primary=False)
            yield Sink(session, node)
            return
        yield stack.enter_context(sink.opened(settings, layout, source, sink.node(settings, source)))


def _loaded(known: dict[str, Channel], errors: list[str]) -> dict[str, Channel]:
    """The channels that can be sent to: an Alertmanager needs no Apprise."""
    try:
        senders.load(known.values())
    except HostFailed as error:
        errors.append(str(error))
        return {name: channel for name, channel in known.items() if channel.kind != "apprise"}
    return known


def _delivered(outbox: Outbox, known: Mapping[str, Channel], errors: list[str]) -> dict[str, Any]:
    queued = outbox.queue()
    kinds = outbox.kinds()
    agreed = {name: channel for name, channel in known.items() if kinds.get(name) == channel.kind}
    couriers: Couriers[Attempt | Post] = Couriers()
    with couriers:
        delivery = Delivery(outbox, agreed, couriers)
        delivery.run()
    counts = {word: delivery.outcomes[word] for word in ("sent", "failed", "ambiguous", "dead")}
    errors = [*errors, *_wrong(known, kinds)]
    errors += [f"{place}: {error}" for place, error in sorted(delivery.errors.items())]
    return {"queued": queued, **counts, "errors": errors, "delivered": delivery.outcomes[SENT]}


def _wrong(known: Mapping[str, Channel], kinds: Mapping[str, str]) -> list[str]:
    """Channels that cannot be told anything: unknown to the ops database, or of another kind there."""
    strangers = [f"channel {name} is not in the ops database" for name in sorted(set(known) - set(kinds))]
    others = [
        f"channel {name} is {kinds[name]} in the ops database, and {known[name].kind} here"
        for name in sorted(set(known) & set(kinds))
        if kinds[name] != known[name].kind
    ]
    return strangers + others


def test(settings: Configuration, layout: Layout, name: str) -> dict[str, Any]:
    """Send a test message to each target of a channel, without the ops database. Returns ``targets``, what came of
    each, and ``errors``.

    Raises PgOpsError, also where this host does not know the channel.
    """
    known, wrong = channels.load(layout.channels)
    if name not in known:
        there = f"It has {', '.join(sorted(known))}." if known else f"{layout.channels} has none."
        raise InvalidInput(f"This host has no address of channel {name!r}.", " ".join([there, *wrong]))
    channel = known[name]
    senders.load([channel])
    found: dict[str, Outcome] = {}
    text = texts.test(settings.cluster, settings.node, name)
    trial = alertmanager.trial(settings.cluster, settings.node, datetime.now(timezone.utc))
    works: dict[str, Callable[[str], Outcome]] = {
        "apprise": lambda url: senders.send(url, text),
        "alertmanager": lambda url: senders.tell(url, trial),
        "heartbeat": lambda url: heartbeat.beat(url, (settings.cluster, settings.node)),
    }
    couriers: Couriers[str] = Couriers()
    with couriers:
        for target, url in channel.targets.items():
            couriers.start(target, partial(works[channel.kind], url))
        while couriers.running:
            found.update(couriers.wait())
    errors = [f"{target}: {outcome.error}" for target, outcome in sorted(found.items()) if outcome.word != SENT]
    return {"channel": name, "targets": {target: found[target].word for target in sorted(found)}, "errors": errors}
