# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which nodes of a cluster would stop replaying if its primary raised a setting now. Pure.

A standby that replays a higher value of one of AT_LEAST_THE_PRIMARYS than its own pauses replay, or stops
(PostgreSQL, "Hot Standby", Administrator's Overview). So every node has to have the value before its primary.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import Conflict
from .controldata import AT_LEAST_THE_PRIMARYS
from .planning import SettingsPlan
from .present import Current

NAMES = ("primary_slot_name", "primary_conninfo", "cluster_name")
"""Settings by which a standby is known on its primary."""

APPLICATION = re.compile(r"(?:^|\s)application_name\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")
NAMELESS = "walreceiver"
"""The application's name of a standby that gives itself none (PostgreSQL, primary_conninfo)."""

NO_SERVERS = ("pg_receivewal", "pg_basebackup", "barman_receive_wal")
"""Names of applications that stream WAL and replay none."""

HINT = (
    "Run this for all of the cluster's nodes at once, without --limit, once they can be reached; or raise the values "
    "there by hand. What is gone for good, or is no server, belongs into nodes_gone (pgops_nodes_gone)."
)


@dataclass(frozen=True)
class Limits:
    """What a node's server has of AT_LEAST_THE_PRIMARYS: ``running`` once this run is done with it, ``configured``
    after its next restart. ``slot`` and ``application`` are how its primary knows it."""

    standby: bool = True
    running: Mapping[str, int] = field(default_factory=dict)
    configured: Mapping[str, int] = field(default_factory=dict)
    slot: str = ""
    application: str = ""

    def result(self) -> dict[str, Any]:
        """As pg_ops_settings returns it."""
        return asdict(self)


@dataclass(frozen=True)
class Node:
    """Another node of the cluster. ``limits`` are None where they are not known, for the reason ``unknown``."""

    name: str
    addresses: frozenset[str] = frozenset()
    limits: Limits | None = None
    unknown: str = ""


@dataclass(frozen=True)
class Sign:
    """What a primary shows of a node, with what it is called in a message: a row of the ops database, with the node's
    ``name``, or a stream or a slot of its own, with the application's."""

    title: str
    stream: bool = False
    name: str = ""
    slot: str = ""
    address: str = ""

    def names(self) -> set[str]:
        """All that it may be called in nodes_gone."""
        return {self.name, _host(self.name), self.slot, self.address} - {""}


def limits(current: Current, settings: SettingsPlan) -> Limits:
    """What the server has once a plan is carried out."""
    waiting = {str(one["name"]): one["configured"] for one in settings.pending}
    running = {name: int(current.setting(name)) for name in AT_LEAST_THE_PRIMARYS if current.setting(name)}
    configured = {
        name: _number(current, name, waiting[name]) if waiting.get(name) else value for name, value in running.items()
    }
    slot, conninfo, cluster = (current.setting(name) for name in NAMES)
    after = configured if settings.restarts else running
    return Limits(current.in_recovery, after, configured, slot, application(conninfo, cluster))


def application(conninfo: str, cluster_name: str) -> str:
    """The name under which a standby streams."""
    given = APPLICATION.search(conninfo)
    return (given.group(1) or given.group(2) if given else "") or cluster_name or NAMELESS


def _number(current: Current, name: str, text: str) -> int:
    return int(current.parameter(name).meaning(text))  # type: ignore[arg-type]


def raised(current: Current, settings: SettingsPlan) -> dict[str, int]:
    """The settings that a plan raises on a primary, at once or at its next start; none on a standby."""
    if current.in_recovery:
        return {}
    written = {setting.parameter.name.lower() for setting in settings.settings}
    return {
        name: value
        for name, value in limits(current, settings).configured.items()
        if value > int(current.setting(name)) and (settings.restarts or name in written)
    }


def refuse(
    wanted: Mapping[str, int], restarts: bool, nodes: Sequence[Node], signs: Iterable[Sign], gone: Collection[str]
) -> None:
    """Refuse to raise settings of a primary before all others have them: ``nodes`` are known by name or address,
    ``signs`` are what the primary and its ops database show. ``restarts``: the values come into force now.

    Raises Conflict with the names of those that have not, or may not have.
    """
    present = [node for node in nodes if not {node.name, _host(node.name), *node.addresses} & set(gone)]
    wrong = [words for node in present for words in _behind(wanted, restarts, node)]
    wrong += [f"{sign.title} was not found in this run" for sign in _unmatched(nodes, signs) if not _gone(sign, gone)]
    if not wrong:
        return
    values = ", ".join(f"{name} = {value}" for name, value in sorted(wanted.items()))
    raise Conflict(
        f"This primary cannot have {values} before its standbys: replay would stop on one that has less. "
        f"{'; '.join(wrong)}.",
        HINT,
    )


def _gone(sign: Sign, gone: Collection[str]) -> bool:
    return bool(sign.names() & set(gone))


def _behind(wanted: Mapping[str, int], restarts: bool, node: Node) -> list[str]:
    if node.limits is None:
        return [f"{node.name} is not in this run, and {node.unknown}"]
    if not node.limits.standby:
        return []
    has = node.limits.running if restarts else {**node.limits.running, **node.limits.configured}
    less = {name: has.get(name, 0) for name, value in wanted.items() if has.get(name, 0) < value}
    values = ", ".join(f"{name} = {value}" for name, value in sorted(less.items()))
    return [f"{node.name} runs with {values}"] if less else []


def _unmatched(nodes: Sequence[Node], signs: Iterable[Sign]) -> list[Sign]:
    """The signs that belong to none of the nodes. A node has a row in the ops database, and streams once: it accounts
    for one sign of each kind. A row can only be told by its name, so nodes that are known by their addresses alone
    account for the rest of the rows."""
    every = list(signs)
    rows, streams = ([sign for sign in every if sign.stream is streams] for streams in (False, True))
    return [
        *_left(nodes, rows, (_by_name, _without_name)),
        *_left(nodes, streams, (_by_slot, _by_address, _by_title)),
    ]


def _left(nodes: Sequence[Node], signs: Sequence[Sign], ways: Sequence[Any]) -> list[Sign]:
    free, left = list(nodes), list(signs)
    for fits in ways:
        for sign in tuple(left):
            found = next((node for node in free if fits(node, sign)), None)
            if found is not None:
                free.remove(found)
                left.remove(sign)
    return left


def _host(name: str) -> str:
    """The host in a node's name, which is <host>/<instance>."""
    return name.partition("/")[0]


def _by_name(node: Node, sign: Sign) -> bool:
    return node.name in (sign.name, _host(sign.name))


def _without_name(node: Node, _sign: Sign) -> bool:
    """A peer that is known by its address only, and that answered."""
    return node.limits is not None and node.name in node.addresses


def _by_slot(node: Node, sign: Sign) -> bool:
    return bool(sign.slot and node.limits and node.limits.slot == sign.slot)


def _by_address(node: Node, sign: Sign) -> bool:
    return bool(sign.address) and sign.address in node.addresses


def _by_title(node: Node, sign: Sign) -> bool:
    """By the name under which it streams, where it comes from another address than it is reached at."""
    return bool(sign.name and node.limits and node.limits.application == sign.name)
