# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Delivering rounds to the sink: the cluster's writable ops database, wherever it is at the moment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import QueryFailed, Unreachable
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..server.session import Session, connect
from ..server.target import Target
from ..version import VERSION
from .collectors import Metric
from .rounds import Round

SYSTEM_IDENTIFIER = "SELECT system_identifier::text FROM pg_control_system()"

STORE = "SELECT pgops.store_round(%s, %s, %s, %s, %s::double precision[])"

UNFIT = ("22", "23", "54")
"""Classes of SQLSTATE (data exception, integrity violation, program limit exceeded, as by a label too long for an
index) that say no repetition will store this round."""

PATIENCE = 5
"""Seconds that a delivery waits for what else is done in the store."""

WRONG_TIME = "22008"
"""SQLSTATE that says that it is all of a round that cannot be stored: it is too old, or of the future."""


@dataclass(frozen=True)
class Source:
    """Whose rounds they are."""

    system_identifier: str
    in_recovery: bool


def encryption(configuration: Configuration) -> dict[str, Any]:
    """How an agent's connections over the network are protected, as arguments of Target.

    The password is proven to both sides over TLS by channel binding, so that a server with a self-signed
    certificate cannot be impersonated. Where a CA is given, its signature decides as well.
    """
    plain = configuration.ssl_mode == "disable"
    return {
        "sslmode": configuration.ssl_mode,
        "sslrootcert": configuration.ca_cert,
        "channel_binding": "disable" if plain else "require",
    }


def sink_target(configuration: Configuration, layout: Layout) -> Target:
    """Whichever of the other nodes takes writes now."""
    return Target(
        host=",".join(peer.host for peer in configuration.peers),
        port=",".join(str(peer.port) for peer in configuration.peers),
        user=configuration.role,
        database=configuration.database,
        passfile=layout.passfile,
        **encryption(configuration),
        target_session_attrs="read-write",
        application_name="pgops collect",
        connect_timeout=5,
    )


@dataclass(frozen=True)
class Parcel:
    """What all rounds of a delivery have in common; ``metrics`` are all that may be in them, by name."""

    configuration: Configuration
    source: Source
    metrics: Mapping[str, Metric]


@contextlib.contextmanager
def sink(configuration: Configuration, layout: Layout, source: Session) -> Iterator[Session]:
    """The writable ops database: the source itself, or over the network the primary of a standby.

    Raises Unreachable.
    """
    if source.target.role:
        # Who reads as somebody else writes as the agent's role as well.
        with connect(replace(source.target, role=configuration.role)) as session:
            yield session
        return
    if not source.in_recovery:
        yield source
        return
    if not configuration.peers:
        raise Unreachable(
            "This server is a standby, and no other node of its cluster is configured.",
            "Name the cluster's nodes in the inventory (docs/start.md) and run site.yml again.",
        )
    with connect(sink_target(configuration, layout)) as session:
        yield session


def store(session: Session, node_id: int, found: Round, metrics: Mapping[str, Metric]) -> None:
    """Store one round, defining its shape where the sink does not know it.

    Raises QueryFailed.
    """
    fingerprint = bytes.fromhex(found.fingerprint)
    arguments = [node_id, fingerprint, found.origin, found.collected_at, list(found.values)]
    if session.value(STORE, arguments):
        return
    names = sorted({json.loads(series)["metric"] for series in found.series})
    definitions = json.dumps([metrics[name].definition() for name in names if name in metrics])
    series = "[" + ",".join(found.series) + "]"
    session.value(
        "SELECT pgops.define_shape(%s, %s, %s::jsonb, %s::jsonb)", [node_id, fingerprint, definitions, series]
    )
    session.value(STORE, arguments)


def check_cluster(session: Session, system_identifier: str) -> None:
    """Refuse a sink of another cluster.

    Raises Unreachable.
    """
    there = session.value(SYSTEM_IDENTIFIER)
    if there != system_identifier:
        raise Unreachable(
            f"The node that takes writes is of another cluster (system identifier {there}, not {system_identifier}).",
            "Correct the cluster's nodes in the inventory and run site.yml again.",
        )


def deliver(session: Session, parcel: Parcel, found: Sequence[Round]) -> list[tuple[Round, str]]:
    """Store rounds, all in one transaction; returns those that can never be stored, each with what was wrong.

    Raises QueryFailed where the sink does not work.
    """
    try:
        _store_all(session, parcel, found)
    except QueryFailed as error:
        if _sound(error):
            raise
        return _store_each(session, parcel, found)
    return []


def _sound(error: QueryFailed) -> bool:
    """Whether a repetition may store what was refused."""
    return (error.sqlstate or "")[:2] not in UNFIT


def _store_all(session: Session, parcel: Parcel, found: Sequence[Round]) -> None:
    configuration, source = parcel.configuration, parcel.source
    with session.transaction():
        # A lost sample costs less than a commit that waits for a disk, or for a synchronous standby.
        session.execute("SET LOCAL synchronous_commit = off")
        # Another job of this node may be delivering, too.
        session.execute(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
        node_id = session.value(
            "SELECT pgops.register_node(%s, %s, %s, %s, %s)",
            [configuration.cluster, configuration.node, source.system_identifier, not source.in_recovery, VERSION],
        )
        for one in found:
            store(session, node_id, one, parcel.metrics)


def _store_each(session: Session, parcel: Parcel, found: Sequence[Round]) -> list[tuple[Round, str]]:
    """One by one, and where a round cannot be stored its halves: what is wrong with one series is not the others'."""
    wrong = []
    for one in found:
        try:
            _store_all(session, parcel, [one])
        except QueryFailed as error:
            if _sound(error):
                raise
            if len(one.series) > 1 and error.sqlstate != WRONG_TIME:
                wrong += _store_each(session, parcel, one.halves())
            else:
                wrong.append((one, str(error)))
    return wrong
