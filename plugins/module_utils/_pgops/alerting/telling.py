# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Telling what the watch found to the channels whose addresses this host has, and the heartbeat."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial

from ..errors import HostFailed
from . import choices, heartbeat, senders
from .channels import Channel
from .choices import Choices, Event
from .couriers import Couriers
from .courses import FIRING, RESOLVED, Alert
from .ledger import Address, Clock, Ledger
from .outcome import AMBIGUOUS, SENT, Outcome

BACKOFF, LONGEST = 30.0, 300.0
"""Seconds for which an address that failed is left alone, twice as long each time, up to the second."""
GIVEN_UP = 3
"""Failures in a row after which other channels are told as well."""
BLIND = 15
"""Minutes of the hour at whose multiples is told what fires, where nothing can be remembered."""


@dataclass
class Telling:
    """One run's telling. ``place`` is the cluster and node, ``known`` are the channels with their addresses."""

    ledger: Ledger
    place: tuple[str, str]
    known: Mapping[str, Channel]
    choices: Choices
    clock: Clock
    errors: list[str] = field(default_factory=list)
    sent: int = 0
    _events: dict[str, list[Event]] = field(default_factory=dict)

    def run(self) -> None:
        """Tell each address what it has to know. What is begun is written down before, so that a run that dies on the
        way leaves a mark on what may have arrived."""
        work = dict(self._work())
        if not work:
            return
        for name in work:
            self._address(name).begun = str(uuid.uuid4())
        if not self.ledger.save() and int(self.clock.day() // 60) % BLIND:
            self._forget(work)
            return
        couriers: Couriers[str] = Couriers()
        with couriers:
            for name, make in work.items():
                couriers.start(name, make())
            while couriers.running:
                for name, outcome in couriers.wait():
                    self._note(name, outcome)

    def _forget(self, work: Mapping[str, object]) -> None:
        """Nothing can be remembered: it is told in some minutes only, so that it is not told in each."""
        for name in work:
            self._address(name).begun = ""

    def _address(self, name: str) -> Address:
        return self.ledger.addresses.setdefault(name, Address())

    def _work(self) -> Iterator[tuple[str, Callable[[], Callable[[], Outcome]]]]:
        """By address, what makes the work of telling it."""
        now = self.clock.since_boot()
        due = {name for name in self._names() if self._address(name).due <= now}
        apprise = self._usable()
        for channel in self.known.values():
            for target, url in channel.targets.items():
                name = f"{channel.name}/{target}"
                events = self._due(channel, name, now) if name in due else []
                if events and channel.kind == "alertmanager":
                    self._events[name] = events
                    yield name, partial(self._post, url, events)
                elif events and apprise:
                    self._events[name] = events
                    yield name, partial(self._send, name, url, events)

    def _names(self) -> list[str]:
        return [f"{channel.name}/{target}" for channel in self.known.values() for target in channel.targets]

    def _usable(self) -> bool:
        """Whether Apprise can be loaded, if anything is due for it; it takes a second."""
        wanted = [channel for channel in self.known.values() if channel.kind == "apprise"]
        now = self.clock.since_boot()
        if not any(self._due(one, f"{one.name}/{target}", now) for one in wanted for target in one.targets):
            return True
        try:
            senders.load(wanted)
        except HostFailed as error:
            self.errors.append(str(error))
            return False
        return True

    def _due(self, channel: Channel, name: str, now: float) -> list[Event]:
        """What an address is to be told; an Alertmanager of all that fires, each time."""
        chosen = self.choices.channel(channel.name)
        if channel.kind == "alertmanager":
            chosen = replace(chosen, repeat=0.0, send_resolved=True)
        found = [
            (word, alert)
            for alert in self.ledger.alerts
            if self._meant(alert, channel.name) or name in alert.told
            for word in [choices.event(alert, name, chosen, now, self._muted(alert))]
            if word
        ]
        return choices.ordered(found)

    def _muted(self, alert: Alert) -> bool:
        return choices.silenced(choices.labels(alert, *self.place), self.choices, self.clock.day())

    def _meant(self, alert: Alert, channel: str) -> bool:
        """Whether a channel is to be told of an alert; any is, once those that it is for do not work."""
        chosen = choices.meant(choices.labels(alert, *self.place), self.known, self.choices)
        addresses = [self._address(f"{one}/{target}") for one in sorted(chosen) for target in self.known[one].targets]
        return channel in chosen or all(one.failed >= GIVEN_UP for one in addresses)

    def _send(self, name: str, url: str, events: list[Event]) -> Callable[[], Outcome]:
        address = self._address(name)
        text = choices.message(self.place, events, address.begun, address.doubtful or not self.ledger.kept)
        return partial(senders.send, url, text)

    def _post(self, url: str, events: list[Event]) -> Callable[[], Outcome]:
        now = datetime.fromtimestamp(self.clock.day(), timezone.utc)
        # It knows an alert by its labels: what fires again is told instead of what has ended before.
        posts = {alert.key: choices.post(alert, self.place, now) for _word, alert in reversed(events)}
        return partial(senders.tell, url, list(posts.values()))

    def _note(self, name: str, outcome: Outcome) -> None:
        """What came of telling an address."""
        now, address = self.clock.since_boot(), self._address(name)
        known = self.known[name.partition("/")[0]]
        address.begun = ""
        if outcome.word == SENT:
            self.sent += 1
            address.failed, address.due, address.doubtful, address.error = 0, 0.0, False, ""
            told = {alert.alert_id: alert for _word, alert in self._events[name]}
            self.ledger.alerts = [
                replace(
                    one,
                    told={**one.told, name: (RESOLVED if one.state == RESOLVED else FIRING, now)},
                )
                if one.alert_id in told
                else one
                for one in self.ledger.alerts
            ]
        else:
            address.failed += 1
            if known.kind == "apprise":  # an Alertmanager forgets what it is not told
                address.due = now + min(BACKOFF * 2 ** min(address.failed - 1, 10), LONGEST)
                address.doubtful = address.doubtful or outcome.word == AMBIGUOUS
            address.error = outcome.error
            self.errors.append(f"{name}: {outcome.error}")
        self.ledger.save()

    def untold(self) -> bool:
        """Whether something fires that nobody was told of, and somebody should be."""
        return any(one.fires and not one.told and not self._muted(one) for one in self.ledger.alerts)

    def beat(self, channel: Channel) -> bool:
        """Call the addresses of a heartbeat; whether one has answered."""
        answered = False
        couriers: Couriers[str] = Couriers()
        with couriers:
            for target, url in channel.targets.items():
                couriers.start(f"{channel.name}/{target}", partial(heartbeat.beat, url, self.place))
            while couriers.running:
                for name, outcome in couriers.wait():
                    if outcome.word == SENT:
                        answered, self.ledger.beat = True, self.clock.day()
                    else:
                        self.errors.append(f"{name}: {outcome.error}")
        return answered
