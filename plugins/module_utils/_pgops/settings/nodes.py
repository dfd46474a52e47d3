# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The other nodes of a primary's cluster: those that the run knows, those that its agent can ask, and all that the
primary itself and the ops database show."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import PgOpsError
from ..instance import configuration, endpoints
from ..instance.configuration import Configuration, Peer
from ..instance.layout import Layout
from ..server.names import AGENT
from ..server.session import Session, connect
from ..server.target import Target
from .controldata import AT_LEAST_THE_PRIMARYS
from .standbys import NO_SERVERS, Limits, Node, Sign, application

STREAMS = """
SELECT r.application_name AS application, coalesce(host(r.client_addr), '') AS address,
       coalesce(s.slot_name::text, '') AS slot
FROM pg_stat_replication AS r
INNER JOIN pg_stat_activity AS a ON r.pid = a.pid AND a.datid IS NULL
LEFT JOIN pg_replication_slots AS s ON r.pid = s.active_pid
WHERE r.state <> 'backup'
"""
SLOTS = (
    "SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active AND NOT temporary"
)

HAS_ROWS = (
    "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s) AND EXISTS (SELECT FROM pg_roles WHERE rolname = %s)"
)
HAS_VIEW = "SELECT to_regclass('pgops.nodes') IS NOT NULL"
ROWS = """
SELECT n.node, to_char(n.last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') AS seen
FROM pgops.nodes AS n
WHERE n.system_identifier = (SELECT c.system_identifier::text FROM pg_control_system() AS c)
  AND CASE WHEN %(node)s = '' THEN NOT n.is_primary ELSE n.node <> %(node)s AND n.cluster = %(cluster)s END
ORDER BY n.node
"""
"""Those of another system identifier, as from before a pg_upgrade, cannot follow this server. Those of another
cluster are in a copy of its server that became a cluster of its own."""

ASKED = """
SELECT (SELECT c.system_identifier::text FROM pg_control_system() AS c) AS system_identifier,
       (SELECT jsonb_object_agg(s.name, s.setting::integer) FROM pg_settings AS s WHERE s.name = ANY (%s)) AS running,
       current_setting('primary_slot_name') AS slot, current_setting('cluster_name') AS cluster,
       (SELECT coalesce(r.conninfo, '') FROM pg_stat_wal_receiver AS r) AS conninfo
"""
IDENTIFIER = "SELECT c.system_identifier::text FROM pg_control_system() AS c"


@dataclass(frozen=True)
class Known:
    """Another node as the inventory has it; ``limits`` are what this run has made of it, None if it has not."""

    name: str
    host: str
    port: int = 5432
    limits: Limits | None = None


def known(params: Mapping[str, Any]) -> tuple[Known, ...]:
    """The option ``peers`` of pg_ops_settings."""
    return tuple(
        Known(str(one["name"]), str(one["host"]), int(one.get("port") or 5432), _limits(one.get("limits")))
        for one in params.get("peers") or ()
    )


def _limits(given: Mapping[str, Any] | None) -> Limits | None:
    if not given:
        return None
    running, configured = (
        {str(name): int(value) for name, value in given[key].items()} for key in ("running", "configured")
    )
    standby = str(given["standby"]).lower() == "true"
    return Limits(standby, running, configured, str(given["slot"]), str(given["application"]))


def others(session: Session, layout: Layout | None, given: Sequence[Known]) -> list[Node]:
    """The other nodes as far as their places are known; those that this run has not done are asked by the agent's
    role. A server of another cluster is none of them."""
    settings = _configuration(layout)
    listed = {(one.host, one.port) for one in given}
    peers = settings.peers if settings else ()
    more = [Known(peer.host, peer.host, peer.port) for peer in peers if (peer.host, peer.port) not in listed]
    found = [_node(session, settings, layout, one) for one in (*given, *more)]
    return [node for node in found if node is not None]


def _configuration(layout: Layout | None) -> Configuration | None:
    with contextlib.suppress(PgOpsError):
        return configuration.load(layout) if layout else None
    return None


def _node(session: Session, settings: Configuration | None, layout: Layout | None, one: Known) -> Node | None:
    seen = frozenset({one.host, *_addresses(one.host)})
    if one.limits is not None:
        return Node(one.name, seen, one.limits)
    if settings is None or layout is None or not os.path.exists(layout.passfile):
        return Node(one.name, seen, unknown="the agent has no credential with which to ask its server")
    target = endpoints.node(settings, layout.passfile, Peer(one.host, one.port), "deploy")
    try:
        with connect(target) as other:
            return _asked(session, other, one.name, seen)
    except PgOpsError as error:
        return Node(one.name, seen, unknown=f"its server cannot be asked ({error.message})")


def _asked(session: Session, other: Session, name: str, seen: frozenset[str]) -> Node | None:
    found = other.row(ASKED, [list(AT_LEAST_THE_PRIMARYS)]) or {}
    if found["system_identifier"] != session.value(IDENTIFIER):
        return None
    has = {str(name): int(value) for name, value in found["running"].items()}
    called = application(found["conninfo"] or "", found["cluster"])
    return Node(name, seen, Limits(other.in_recovery, has, {}, found["slot"], called))


def _addresses(host: str) -> set[str]:
    """The addresses of a host, as a server shows those of its clients."""
    try:
        return {str(place[4][0]) for place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def signs(session: Session, layout: Layout | None, target: Target, database: str) -> list[Sign]:
    """All that the primary shows of standbys: streams, slots that wait for one, and rows of the ops database."""
    settings = _configuration(layout)
    streams = [_stream(row) for row in session.rows(STREAMS) if row["application"] not in NO_SERVERS]
    slots = [
        Sign(f"the owner of slot {row['slot_name']}", True, slot=row["slot_name"]) for row in session.rows(SLOTS)
    ]
    return [*streams, *slots, *_rows(session, target, database, settings)]


def _stream(row: Mapping[str, Any]) -> Sign:
    place = row["address"] or "a local socket"
    title = f"{row['application']} at {place}, which streams from it,"
    return Sign(title, True, row["application"], row["slot"], row["address"])


def _rows(session: Session, target: Target, usual: str, settings: Configuration | None) -> Iterable[Sign]:
    """The nodes of the ops database, read as the agent's role: what is in that schema may be anybody's."""
    database = settings.database if settings else usual
    own = {"node": settings.node if settings else "", "cluster": settings.cluster if settings else ""}
    if not session.value(HAS_ROWS, [database, AGENT]):
        return []
    with connect(replace(target, database=database, role=AGENT)) as ops:
        found = ops.rows(ROWS, own) if ops.value(HAS_VIEW) else []
    return [Sign(f"{row['node']} (last seen {row['seen']})", name=row["node"]) for row in found]
