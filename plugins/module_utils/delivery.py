# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Delivering rounds to the sink: the cluster's writable ops database, wherever it is at the moment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .collectors import Metric, Round
from .configuration import Configuration
from .errors import QueryFailed, Unreachable
from .layout import Layout
from .server import Session, connect
from .target import Target
from .version import VERSION

BATCH = 500
"""Rounds that are stored in one transaction."""

SYSTEM_IDENTIFIER = "SELECT system_identifier::text FROM pg_control_system()"

STORE = "SELECT pgops.store_round(%s, %s, %s, %s, %s::double precision[])"

UNFIT = ("22", "23")
"""Classes of SQLSTATE (data exception, integrity violation) that say no repetition will store this round."""


@dataclass(frozen=True)
class Source:
    """Whose rounds they are."""

    system_identifier: str
    in_recovery: bool


def sink_target(configuration: Configuration, layout: Layout) -> Target:
    """Whichever of the other nodes takes writes now.

    The password is proven to both sides over TLS by channel binding, so that a server with a self-signed
    certificate cannot be impersonated. Where a CA is given, its signature decides as well.
    """
    return Target(
        host=",".join(peer.host for peer in configuration.peers),
        port=",".join(str(peer.port) for peer in configuration.peers),
        user=configuration.role,
        database=configuration.database,
        passfile=layout.passfile,
        sslmode=configuration.ssl_mode,
        sslrootcert=configuration.ca_cert,
        channel_binding="require",
        target_session_attrs="read-write",
        application_name="pgops collect",
        connect_timeout=5,
    )


@contextlib.contextmanager
def sink(configuration: Configuration, layout: Layout, source: Session) -> Iterator[Session]:
    """The writable ops database: the source itself, or over the network the primary of a standby.

    Raises Unreachable.
    """
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


def store(session: Session, node_id: int, found: Round, metrics: Sequence[Metric]) -> None:
    """Store one round, defining its shape where the sink does not know it.

    Raises QueryFailed.
    """
    fingerprint = bytes.fromhex(found.fingerprint)
    arguments = [node_id, fingerprint, found.origin, found.collected_at, list(found.values)]
    if session.value(STORE, arguments):
        return
    definitions = json.dumps([metric.definition() for metric in metrics])
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


def deliver(
    session: Session,
    configuration: Configuration,
    source: Source,
    found: Sequence[Round],
    metrics: Mapping[str, Sequence[Metric]],
) -> list[tuple[Round, str]]:
    """Store rounds, batch by batch; returns those that can never be stored, each with what was wrong.

    ``metrics`` are those of each collector. Raises QueryFailed where the sink does not work.
    """
    wrong: list[tuple[Round, str]] = []
    for start in range(0, len(found), BATCH):
        batch = found[start : start + BATCH]
        try:
            _store_all(session, configuration, source, batch, metrics)
        except QueryFailed as error:
            if (error.sqlstate or "")[:2] not in UNFIT:
                raise
            wrong += _store_each(session, configuration, source, batch, metrics)
    return wrong


def _store_all(
    session: Session,
    configuration: Configuration,
    source: Source,
    batch: Sequence[Round],
    metrics: Mapping[str, Sequence[Metric]],
) -> None:
    with session.transaction():
        # A lost sample costs less than a commit that waits for a disk, or for a synchronous standby.
        session.execute("SET LOCAL synchronous_commit = off")
        node_id = session.value(
            "SELECT pgops.register_node(%s, %s, %s, %s, %s)",
            [configuration.cluster, configuration.node, source.system_identifier, not source.in_recovery, VERSION],
        )
        for found in batch:
            store(session, node_id, found, metrics.get(found.collector, ()))


def _store_each(
    session: Session,
    configuration: Configuration,
    source: Source,
    batch: Sequence[Round],
    metrics: Mapping[str, Sequence[Metric]],
) -> list[tuple[Round, str]]:
    wrong = []
    for found in batch:
        try:
            _store_all(session, configuration, source, [found], metrics)
        except QueryFailed as error:
            if (error.sqlstate or "")[:2] not in UNFIT:
                raise
            wrong.append((found, str(error)))
    return wrong
