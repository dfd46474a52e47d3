# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Clusters of several nodes for tests, each node with its agent: standbys deliver to the primary over TLS."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploying import collect, configured, deploy
from servers import Server
from waiting import until

from pgops.instance.configuration import Peer
from pgops.metrics.collectors import Collector
from pgops.metrics.history import Runs

HBA = "local all all trust\nlocal replication all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
PASSWORD = "correct horse"
STANDBY = {"wal_receiver_status_interval": "1", "wal_retrieve_retry_interval": "200ms"}


@dataclass
class Node:
    """A server with an agent, which knows the cluster's other nodes."""

    name: str
    server: Server
    state: Path
    peers: list[Node] = field(default_factory=list)
    runs: Runs = field(default_factory=Runs)

    def collect(self, found: Sequence[Collector] = ()) -> dict[str, Any]:
        """One collection, of all that there is or of what is ``found``, however little time has passed."""
        self.runs.last.clear()
        peers = tuple(Peer("127.0.0.1", other.server.port) for other in self.peers)
        return collect(self.server, self.state, self.name, found, runs=self.runs, peers=peers)

    def standby(self, name: str, state: Path, settings: Mapping[str, str] | None = None) -> Node:
        """A new, stopped standby of this node with an agent of its own."""
        other = Node(name, self.server.standby({**STANDBY, **(settings or {})}), state)
        other.trust()
        other.peers, self.peers = [self, *self.peers], [*self.peers, other]
        return other

    def trust(self) -> None:
        """Give the agent the password that the nodes have in common."""
        _configuration, layout = configured(self.server, self.state, self.name)
        passfile = Path(layout.passfile)
        passfile.parent.mkdir(parents=True, exist_ok=True)
        passfile.write_text(f"*:*:*:pgops:{PASSWORD}\n")
        os.chmod(passfile, 0o600)


def primary(server: Server, name: str, state: Path) -> Node:
    """A running server as the first node of a cluster, with the ops database."""
    server.enable_tls()
    server.write_hba(HBA)
    server.reload()
    deploy(server, node=name, password=PASSWORD)
    made = Node(name, server, state)
    made.trust()
    return made


def streaming(server: Server, count: int = 1) -> None:
    """Wait until so many walsenders stream."""
    streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
    until(lambda: server.value(streams), "streaming", count)
