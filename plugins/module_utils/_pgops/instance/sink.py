# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way into the ops database: the cluster's writable one, wherever it is now, with the node registered in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..errors import Unreachable
from ..server.session import Session, connect
from ..version import VERSION
from . import endpoints
from .configuration import Configuration
from .layout import Layout

SYSTEM_IDENTIFIER = "SELECT system_identifier::text FROM pg_control_system()"

REGISTER = "SELECT pgops.register_node(%s, %s, %s, %s, %s)"

LOCAL = "local"
"""Enough to survive a crash, and waits for no standby: a lost synchronous standby must hang nothing of ours."""
OFF = "off"
"""For samples: a lost one costs less than a commit that waits for a disk."""

PATIENCE = 5
"""Seconds that a write waits for what else is done in the store."""


@dataclass(frozen=True)
class Node:
    """Whose data it is, as the ops database knows it."""

    cluster: str
    name: str
    system_identifier: str
    is_primary: bool


def node(configuration: Configuration, source: Session) -> Node:
    """The instance that ``source`` is a session with.

    Raises QueryFailed.
    """
    identifier = source.value(SYSTEM_IDENTIFIER)
    return Node(configuration.cluster, configuration.node, identifier, not source.in_recovery)


@dataclass(frozen=True)
class Sink:
    """A session in the ops database of a node's cluster. ``durability`` is the synchronous_commit of what is written,
    LOCAL or OFF."""

    session: Session
    node: Node
    durability: str = LOCAL

    @contextlib.contextmanager
    def transaction(self) -> Iterator[int]:
        """The node's number; all that is written inside is stored, or nothing of it.

        Raises QueryFailed.
        """
        node = self.node
        arguments = [node.cluster, node.name, node.system_identifier, node.is_primary, VERSION]
        with self.session.transaction():
            self.session.execute(f"SET LOCAL synchronous_commit = {self.durability}")
            self.session.execute(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
            yield int(self.session.value(REGISTER, arguments))


@contextlib.contextmanager
def opened(
    configuration: Configuration, layout: Layout, source: Session, node: Node, durability: str = LOCAL
) -> Iterator[Sink]:
    """The sink of what comes from ``source``: the source itself where it takes writes, or the cluster's primary.

    Raises Unreachable, also where the server that takes writes is of another cluster.
    """
    with _session(configuration, layout, source) as session:
        if session is not source:
            _check_cluster(session, node)
        yield Sink(session, node, durability)


def _session(configuration: Configuration, layout: Layout, source: Session) -> AbstractContextManager[Session]:
    if not source.in_recovery and not source.target.role:
        return contextlib.nullcontext(source)
    if source.target.role:
        # Who reads as a superuser writes in a session that the agent's role began: whoever may change functions of
        # the schema could have them go back from a role that was only set.
        target = endpoints.agent(configuration, source.target.application_name.partition(" ")[2])
    elif configuration.peers:
        target = endpoints.primary(configuration, layout.passfile, source.target.application_name.partition(" ")[2])
    else:
        raise Unreachable(
            "This server is a standby, and no other node of its cluster is configured.",
            "Name the cluster's nodes in the inventory (docs/start.md) and run site.yml again.",
        )
    return connect(target)


def _check_cluster(session: Session, node: Node) -> None:
    there = session.value(SYSTEM_IDENTIFIER)
    if there != node.system_identifier:
        raise Unreachable(
            f"The node that takes writes belongs to another cluster (system identifier {there}, not "
            f"{node.system_identifier}).",
            "Correct the cluster's nodes in the inventory and run site.yml again.",
        )
