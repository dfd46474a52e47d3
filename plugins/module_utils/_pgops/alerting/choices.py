# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watch tells, and whom: by the choices of the ops database, as the job `notify` last knew them. Pure, but
for the file that it left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ..host.files import File, contents, write
from . import alertmanager, texts
from .courses import FIRING, RESOLVED, RULES, Alert
from .texts import Text

FORMAT = 1
LARGEST = 4 * 1024 * 1024
"""Bytes of the file of choices."""
REPEAT = 4 * 3600.0
"""Seconds after which a channel is told again of what still fires, unless it says otherwise."""
URGENCY = ("critical", "warning", "info")

Event = tuple[str, Alert]
"""What is told of an alert: firing, repeated, resolved, or passed where it has ended before it was told."""


@dataclass(frozen=True)
class Channel:
    """What the ops database says of a channel, or what holds where it says nothing. ``repeat`` is in seconds."""

    enabled: bool = True
    default: bool = True
    severities: Sequence[str] = URGENCY
    labels: Mapping[str, str] = field(default_factory=dict)
    send_resolved: bool = True
    repeat: float = REPEAT


@dataclass(frozen=True)
class Silence:
    """Alerts with these labels are told to nobody until a time of day (Unix)."""

    labels: Mapping[str, str]
    begins: float
    ends: float


@dataclass(frozen=True)
class Choices:
    """What users have chosen in the ops database."""

    channels: Mapping[str, Channel] = field(default_factory=dict)
    silences: Sequence[Silence] = ()

    def channel(self, name: str) -> Channel:
        """What holds for a channel; the ops database may never have been asked."""
        return self.channels.get(name, Channel())


def remembered(path: str) -> Choices:
    """What `notify` has left; nothing is chosen where there is no file, or none that can be read."""
    try:
        data = json.loads(contents(path, LARGEST, follow=False))
        if data["format"] != FORMAT:
            return Choices()
        channels = {str(name): Channel(**one) for name, one in data["channels"].items()}
        return Choices(channels, [Silence(**one) for one in data["silences"]])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Choices()


def remember(path: str, choices: Choices) -> None:
    """Leave it for the watch.

    Raises HostFailed or OSError, as on a full disk.
    """
    write(File(path, json.dumps({"format": FORMAT, **asdict(choices)}).encode(), 0o600))


def labels(alert: Alert, cluster: str, node: str) -> dict[str, str]:
    """All labels of an alert."""
    own = {"rule_name": alert.rule, "severity": alert.severity, "cluster": cluster, "node": node}
    return {**alert.labels, **own}


def silenced(found: Mapping[str, str], choices: Choices, day: float) -> bool:
    """Whether nobody is to be told of an alert with these labels."""
    return any(
        one.begins <= day < one.ends and all(found.get(name) == value for name, value in one.labels.items())
        for one in choices.silences
    )


def meant(found: Mapping[str, str], names: Iterable[str], choices: Choices) -> set[str]:
    """Which of the channels that there are an alert with these labels is for: all of them where it is for none, since
    somebody must be told."""
    names = set(names)
    chosen = {name for name in names for one in [choices.channel(name)] if one.default and _fits(found, one)}
    return chosen or names


def _fits(found: Mapping[str, str], channel: Channel) -> bool:
    same = all(found.get(name) == value for name, value in channel.labels.items())
    return channel.enabled and found["severity"] in channel.severities and same


def event(alert: Alert, address: str, channel: Channel, now: float, muted: bool) -> str:
    """What an address is to be told of an alert now; '' if nothing."""
    what, at = alert.told.get(address, ("", 0.0))
    if alert.fires:
        if muted or (what == FIRING and now - at < channel.repeat):
            return ""
        return "repeated" if what == FIRING else "firing"
    if alert.state != RESOLVED or what == RESOLVED:
        return ""
    if what == FIRING:
        return "resolved" if channel.send_resolved else ""
    return "" if muted else "passed"


def ordered(events: Iterable[Event]) -> list[Event]:
    """What is most urgent first."""
    places = list(texts.EVENTS)
    return sorted(
        events, key=lambda one: (places.index(one[0]), URGENCY.index(one[1].severity), one[1].fired_at or 0.0)
    )


def summary(alert: Alert) -> str:
    """What is wrong, in a line."""
    since = f"Since {moment(alert.fired_at)}"
    until = f", until {moment(alert.ended_at)}" if alert.ended_at is not None else ""
    more = [alert.reason] if alert.reason else []
    more += ["It flaps."] if alert.flapping else []
    more += [RULES[alert.rule].do] if alert.ended_at is None else []
    says = RULES[alert.rule].says.format(text=texts.escaped(alert.text))
    return " ".join([says, f"{since}{until}.", *more])


def moment(day: float | None) -> str:
    """A time of day as it is shown."""
    return texts.moment(None if day is None else _iso(day))


def _iso(day: float) -> str:
    return datetime.fromtimestamp(day, timezone.utc).isoformat()


def message(place: tuple[str, str], events: Sequence[Event], identifier: str, doubtful: bool) -> Text:
    """A message about several alerts of ``place``, a cluster and a node; ``doubtful`` if any may have been told."""
    cluster, node = map(texts.escaped, place)
    counts = {word: sum(one == word for one, _alert in events) for word in texts.EVENTS}
    said = ", ".join(f"{texts.EVENTS[word]} {count}" for word, count in counts.items() if count)
    first = events[0][1]
    severity = first.severity if counts["firing"] or counts["repeated"] else "resolved"
    lines = [f"{texts.EVENTS[word]}: {alert.rule} on {node}: {summary(alert)}" for word, alert in events]
    ending = [texts.DOUBTFUL] if doubtful else []
    ending.append(f"Told by pgops watch on the host. Message {identifier}")
    title = f"[{said}] {first.severity}: {first.rule} on {cluster} ({node})"
    return Text(title, "\n".join([*_bounded(lines), *ending]), severity)


def _bounded(lines: Sequence[str]) -> list[str]:
    """As many as have room, and how many more there are."""
    taken: list[str] = []
    for line in lines:
        if taken and sum(map(len, taken)) + len(line) > texts.BODY:
            return [*taken, f"And {len(lines) - len(taken)} more: see pgops watch --status."]
        taken.append(line[: texts.BODY])
    return taken


def post(alert: Alert, place: tuple[str, str], now: datetime) -> dict[str, Any]:
    """An alert as Alertmanager takes it."""
    cluster, node = place
    own = {"alertname": alert.rule, "severity": alert.severity, "cluster": cluster, "node": node}
    ended = (now + alertmanager.LASTS).isoformat() if alert.ended_at is None else _iso(alert.ended_at)
    begun = _iso(alert.fired_at or now.timestamp())
    # It refuses what ends before it begins, which a clock that was set may say.
    if ended <= begun:
        begun = (datetime.fromisoformat(ended) - timedelta(seconds=1)).isoformat()
    return {
        "labels": {**alert.labels, **own},
        "annotations": {"summary": summary(alert)},
        "startsAt": begun,
        "endsAt": ended,
    }
