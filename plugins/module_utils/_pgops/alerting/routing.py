# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Channels as the inventory declares them: which alerts go to which, how often, and where else. Their addresses are
no part of it (addresses.py). Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from .. import spelling
from ..errors import InvalidInput
from ..plan import difference
from ..server import rows
from ..server.changes import Statements
from ..server.session import statement
from . import rules
from .channels import KINDS, NAME
from .rules import SEVERITIES

IN_DATABASE = ("apprise", "alertmanager")
"""Kinds of channels that alerts of the ops database are told to. Those of others only have addresses."""
MOST = 200
"""Channels of an inventory."""
TABLE = "notification_channel"

CHANNELS = """
SELECT h.channel AS name, h.kind, h.is_default AS "default", h.severities, h.labels, h.send_resolved,
       extract(EPOCH FROM h.group_interval)::float8 AS group_interval,
       extract(EPOCH FROM h.repeat_interval)::float8 AS repeat_interval,
       h.fallback_channel AS fallback, h.fallback_after, h.attempts, h.is_enabled AS enabled, h.source
FROM pgops.notification_channel AS h
"""


@dataclass(frozen=True)
class Route:
    """A row of pgops.notification_channel, times in seconds: a channel, and the alerts that it is for."""

    name: str
    kind: str = "apprise"
    default: bool = True
    severities: Sequence[str] = SEVERITIES
    labels: Mapping[str, str] = field(default_factory=dict)
    send_resolved: bool = True
    group_interval: float = 300
    repeat_interval: float = 14_400
    fallback: str | None = None
    fallback_after: int = 3
    attempts: int = 12
    enabled: bool = True

    def shown(self) -> dict[str, Any]:
        """As plans show it."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "name"}
        return {**found, "severities": sorted(self.severities, key=SEVERITIES.index), "labels": dict(self.labels)}

    def row(self) -> dict[str, Any]:
        """As pgops.notification_channel has it."""
        return {
            "channel": self.name,
            "kind": self.kind,
            "is_default": self.default,
            "severities": list(self.severities),
            "labels": json.dumps(dict(self.labels)),
            "send_resolved": self.send_resolved,
            "group_interval": f"{self.group_interval} seconds",
            "repeat_interval": f"{self.repeat_interval} seconds",
            "fallback_channel": self.fallback,
            "fallback_after": self.fallback_after,
            "attempts": self.attempts,
            "is_enabled": self.enabled,
            "source": "inventory",
        }


NAMES = {one.name for one in fields(Route)}
"""The keys of a declaration."""
INTERVALS = ("group_interval", "repeat_interval")

Routes = Mapping[str, Route]


@dataclass(frozen=True)
class Present:
    """The channels in the ops database: those of the inventory, and the names of those that users made."""

    routes: Routes = field(default_factory=dict)
    users: frozenset[str] = frozenset()

    @classmethod
    def of(cls, found: Sequence[Mapping[str, Any]]) -> Present:
        """Of the rows of CHANNELS."""
        ours = [Route(**{name: row[name] for name in NAMES}) for row in found if row["source"] == "inventory"]
        users = (str(row["name"]) for row in found if row["source"] != "inventory")
        return cls({route.name: route for route in ours}, frozenset(users))


# --- what the inventory declares


def declared(given: Sequence[Mapping[str, Any]]) -> dict[str, Route]:
    """The channels that an inventory declares, by their names.

    Raises InvalidInput.
    """
    if len(given) > MOST:
        raise InvalidInput(f"There are {len(given)} channels; at most {MOST} are possible.")
    spelling.refuse_repeated("Channel", [str(one.get("name")) for one in given])
    return {route.name: route for route in map(_route, given)}


def _route(given: Mapping[str, Any]) -> Route:
    name = str(given.get("name") or "")
    if not NAME.match(name):
        raise InvalidInput(
            f"A channel has the name {name!r}.", "Use letters, digits, '.', '_' and '-', at most 63 characters."
        )
    unknown = spelling.unknown(given, NAMES)
    if unknown:
        raise InvalidInput(f"Channel {name} has unknown keys: {unknown}.")
    values = {key: _value(name, key, value) for key, value in given.items() if value is not None}
    route = Route(**values)
    wrong = _wrong(route)
    if wrong:
        raise InvalidInput(f"Channel {name}: {wrong}.")
    return route


def _value(name: str, key: str, value: Any) -> Any:
    if key in INTERVALS:
        return rules.seconds(f"Channel {name}: {key}", value)
    if key == "labels":
        return {str(label): str(one) for label, one in value.items()}
    return tuple(value) if key == "severities" else value


def _wrong(route: Route) -> str:
    if route.kind not in KINDS:
        return f"kind is one of {' '.join(KINDS)}"
    if not route.severities or set(route.severities) - set(SEVERITIES):
        return f"severities are some of {' '.join(SEVERITIES)}"
    if route.group_interval > rules.DAY or not rules.MINUTE <= route.repeat_interval <= rules.LONGEST:
        return "group_interval is at most a day, repeat_interval a minute to 31 days"
    if not 1 <= route.fallback_after <= 100 or not 1 <= route.attempts <= 100:
        return "fallback_after and attempts are 1 to 100"
    return "it cannot be its own fallback" if route.fallback == route.name else ""


def refuse_unknown(routes: Routes, users: Collection[str], named: Mapping[str, Collection[str]]) -> None:
    """Refuse fallback channels that are none, and rules that name (``named``, by the rules' names) channels which
    are declared nowhere: what is for these would go somewhere else.

    Raises InvalidInput.
    """
    known = {*(route.name for route in routes.values() if route.kind in IN_DATABASE), *users}
    for route in routes.values():
        unknown = spelling.unknown([route.fallback] if route.fallback else [], known)
        if unknown:
            raise InvalidInput(f"The fallback of channel {route.name} is declared nowhere: {unknown}.")
        if route.fallback and route.fallback in routes and routes[route.fallback].kind != "apprise":
            raise InvalidInput(f"The fallback of channel {route.name} is an Alertmanager.", "Take one of apprise.")
    for rule, channels in named.items():
        unknown = spelling.unknown(channels, known)
        if unknown:
            raise InvalidInput(f"The alert rule {rule} names channels that are declared nowhere: {unknown}.")


def warnings(routes: Routes, present: Present) -> tuple[str, ...]:
    """What a person should know: channels that a user has made as well, and alerts that nobody may be told of."""
    found: list[str] = []
    both = sorted(present.users & set(routes))
    if both:
        found.append(
            f"Channels of the inventory that a user has made in SQL stay as they are there: {', '.join(both)}. To "
            "have those of the inventory, delete them from pgops.notification_channel and run this again."
        )
    told = [route for route in routes.values() if route.kind in IN_DATABASE]
    if told and not present.users and not any(_takes_critical(route) for route in told):
        found.append(
            "No channel is the default for critical alerts of all series: rules that name no channel may tell nobody."
        )
    return tuple(found)


def _takes_critical(route: Route) -> bool:
    return route.enabled and route.default and not route.labels and "critical" in route.severities


# --- planning


def plan(present: Present, wanted: Routes) -> tuple[Statements, ...]:
    """What brings the channels of the inventory to what is wanted; those that users made stay. Removed ones go last,
    and new ones come first: what falls back to them finds them."""
    made: tuple[Statements, ...] = ()
    inside = {name: route for name, route in wanted.items() if route.kind in IN_DATABASE}
    for name, route in inside.items():
        if name not in present.users:
            before = present.routes[name].shown() if name in present.routes else None
            written = rows.upsert(TABLE, ["channel"], route.row())
            made += difference(Statements(f"channel {name}", before, route.shown(), (written,)))
    for name in sorted(set(present.routes) - set(inside)):
        gone = statement("DELETE FROM pgops.notification_channel WHERE channel = {}", name)
        made += (Statements(f"channel {name}", present.routes[name].shown(), None, (gone,)),)
    return made
