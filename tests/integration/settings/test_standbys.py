# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A primary raises nothing before all of its standbys have it, whichever of them the run can see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import binaries
import clusters
import pytest
from clusters import Node
from deploying import target
from servers import Server, free_port
from waiting import until

from pgops.errors import Conflict
from pgops.instance.configuration import Configuration, Peer
from pgops.instance.layout import Layout
from pgops.settings import controldata
from pgops.settings import deploy as settings

DEFAULTS: dict[str, Any] = {
    "state": "present",
    "lists": "merge",
    "restart": "if_required",
    "instance": "main",
    "after_primary": False,
}


@dataclass
class Pair:
    """A primary with its agent's configuration, and a standby that streams from it."""

    primary: Node
    standby: Node

    def know(self, *peers: Peer) -> None:
        """What the primary's agent is told of the cluster."""
        server = self.primary.server
        place: dict[str, Any] = {"port": server.port, "socket_directory": str(server.socket_dir)}
        known = Configuration("main", "shop", self.primary.name, peers=peers, **place)
        file = Path(Layout("main", str(self.primary.state)).agent_file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(known.text())

    @property
    def peer(self) -> Peer:
        return Peer("127.0.0.1", self.standby.server.port)

    def apply(self, node: Node, check: bool = False, value: int = 60, **params: Any) -> dict[str, Any]:
        """What pg_ops_settings returns of a node; raises what it reports."""
        given = {**DEFAULTS, "prefix": str(node.state), "settings": {"max_connections": value}, **params}
        return settings.converge(target(node.server), given, check)

    def refused(self, **params: Any) -> str:
        """Why the primary is not raised, in check mode as in a run; nothing is written."""
        automatic = self.primary.server.data_dir / "postgresql.auto.conf"
        before, said = automatic.read_text(), []
        for check in (True, False):
            with pytest.raises(Conflict) as caught:
                self.apply(self.primary, check, **params)
            said.append(str(caught.value))
        assert said[0] == said[1]
        assert automatic.read_text() == before
        assert self.primary.server.value("SHOW max_connections") == "50"
        return said[0]

    def done(self, result: dict[str, Any], name: str = "db2/main") -> dict[str, Any]:
        """The standby as a play passes it on, once this came of it."""
        return {"name": name, "host": self.peer.host, "port": self.peer.port, "limits": result["limits"]}


@pytest.fixture(name="pair")
def _pair(major: int, new_server: Callable[..., Server], tmp_path: Path) -> Iterator[Pair]:
    (tmp_path / "db1").mkdir()
    (tmp_path / "db2").mkdir()
    first = clusters.primary(new_server(major).start(), "db1/main", tmp_path / "db1")
    second = first.standby("db2/main", tmp_path / "db2")
    with second.server:
        clusters.streaming(first.server)
        yield Pair(first, second)


def replays(pair: Pair) -> None:
    """The standby has what the primary has just written, and goes on."""
    here = pair.primary.server.value("SELECT pg_current_wal_lsn()::text")
    replayed = f"SELECT pg_last_wal_replay_lsn() >= '{here}' AND pg_get_wal_replay_pause_state() = 'not paused'"
    until(lambda: pair.standby.server.value(replayed), "replayed", True)


@pytest.mark.every_major
def test_a_primary_waits_for_a_standby_that_the_run_does_not_see(pair: Pair) -> None:
    said = pair.refused()
    assert "This primary cannot have max_connections = 60 before its standbys" in said
    assert "which streams from it, was not found in this run" in said
    pair.know(pair.peer)
    assert "127.0.0.1 runs with max_connections = 50" in pair.refused()
    done = pair.apply(pair.standby)
    assert done["limits"]["running"]["max_connections"] == 60
    assert pair.apply(pair.primary)["restarted"]
    replays(pair)
    assert pair.apply(pair.primary)["changed"] is False
    assert pair.apply(pair.primary, value=55)["restarted"]


def test_what_a_run_has_made_of_a_standby_is_known_to_its_primary(pair: Pair) -> None:
    predicted = pair.apply(pair.standby, check=True)
    assert pair.apply(pair.primary, check=True, peers=[pair.done(predicted)])["restarted"]
    done = pair.apply(pair.standby)
    assert done["limits"] == predicted["limits"]
    pair.standby.server.stop()
    assert pair.apply(pair.primary, peers=[pair.done(done)])["restarted"]


def test_without_a_restart_the_value_has_to_stand_on_the_standby(pair: Pair) -> None:
    never = {"restart": "never"}
    before = pair.apply(pair.standby, value=50, **never)
    assert "db2/main runs with max_connections = 50" in pair.refused(peers=[pair.done(before)], **never)
    written = pair.apply(pair.standby, **never)
    assert (written["limits"]["running"]["max_connections"], written["limits"]["configured"]["max_connections"]) == (
        50,
        60,
    )
    assert "db2/main runs with max_connections = 50" in pair.refused(peers=[pair.done(written)])
    assert pair.apply(pair.primary, peers=[pair.done(written)], **never)["changed"]
    # A restart for any reason would bring it into force.
    with pytest.raises(Conflict, match="db2/main runs with max_connections = 50"):
        pair.apply(pair.primary, peers=[pair.done(written)])


def test_a_standby_that_is_down_counts_as_well_until_somebody_says_that_it_is_gone(pair: Pair) -> None:
    pair.know(pair.peer)
    pair.standby.collect()
    pair.standby.server.stop()
    streams = "SELECT count(*) FROM pg_stat_replication"
    until(lambda: pair.primary.server.value(streams), "gone", 0)
    assert "its server cannot be asked" in pair.refused()
    pair.know()
    said = pair.refused()
    assert "db2/main (last seen " in said
    assert "nodes_gone" in said
    assert "db2/main" in pair.refused(nodes_gone=["db3", "db2/other"])
    # Neither is a node that a copy of another cluster's server brought along.
    with pair.primary.server.connect("pgops") as session:
        session.execute(
            "INSERT INTO pgops.node (cluster, node, system_identifier, is_primary)"
            " SELECT 'other', 'db7/main', n.system_identifier, false FROM pgops.node AS n WHERE n.node = 'db2/main'"
        )
    assert "db7" not in pair.refused()
    assert pair.apply(pair.primary, check=True, nodes_gone=["db2/main"])["restarted"]
    assert pair.apply(pair.primary, nodes_gone=["db2"])["restarted"]


def test_a_slot_that_waits_for_its_standby_counts_too(pair: Pair, free: int) -> None:
    pair.standby.server.stop()
    pair.primary.server.value("SELECT pg_create_physical_replication_slot('db9', true)")
    known = [{"name": "db2/main", "host": "127.0.0.1", "port": free}]
    assert "the owner of slot db9 was not found" in pair.refused(peers=known, nodes_gone=["db2"])
    pair.primary.server.value("SELECT pg_drop_replication_slot('db9')")
    assert pair.apply(pair.primary, peers=known, nodes_gone=["db2"])["restarted"]


def test_a_server_of_another_cluster_is_none_of_this_ones(
    pair: Pair, major: int, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Though it is a standby, and has less."""
    (tmp_path / "db7").mkdir()
    (tmp_path / "db8").mkdir()
    first = clusters.primary(new_server(major).start(), "db7/main", tmp_path / "db7")
    other = first.standby("db8/main", tmp_path / "db8")
    with other.server:
        assert other.server.value("SHOW max_connections") == "50"
        pair.know(pair.peer, Peer("127.0.0.1", other.server.port))
        pair.apply(pair.standby)
        assert pair.apply(pair.primary)["restarted"]


@pytest.fixture(name="free")
def _free() -> int:
    return free_port()


@pytest.fixture(name="tools")
def _tools(major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_controldata is not beside all servers."""
    read, programs = controldata.read, str(binaries.client("pg_controldata", major).parent)
    monkeypatch.setattr(controldata, "read", lambda server: read(replace(server, bin_directory=programs)))


LOWER = {"after_primary": True, "value": 40}


@pytest.mark.every_major(since=18)
def test_a_standby_that_replays_late_is_told_of_and_not_promised(pair: Pair, tools: None) -> None:
    assert pair.apply(pair.standby, check=True, **LOWER)["restarted"]
    other = {"name": "db1/main", "host": "127.0.0.1", "port": pair.primary.server.port}
    as_it_is = {**other, "limits": pair.apply(pair.primary, value=50)["limits"]}
    for known in (other, as_it_is):
        for check in (True, False):
            undone = pair.apply(pair.standby, check=check, **LOWER, peers=[known])
            assert undone["deferred"]
            assert "this run has not restarted its primary with less" in undone["warnings"][0]
    for setting in ("SET recovery_min_apply_delay = '1h'", "RESET recovery_min_apply_delay"):
        pair.standby.server.value(f"ALTER SYSTEM {setting}")
        pair.standby.server.reload()
        late = setting.startswith("SET")
        if late:
            # Only commits are replayed late, and what comes after them.
            pair.primary.server.value("CREATE TABLE something ()")
            assert pair.apply(pair.primary, value=40, nodes_gone=["db2"])["restarted"]
        predicted, done = (pair.apply(pair.standby, check=check, **LOWER) for check in (True, False))
        assert bool(predicted["deferred"]) is bool(done["deferred"]) is late
        words = done.get("warnings", [])
        assert words == predicted.get("warnings", [])
        assert ["recovery_min_apply_delay = 1h" in one for one in words] == [True] * late
    assert pair.standby.server.value("SHOW max_connections") == "40"


@pytest.mark.every_major(since=18)
def test_all_that_a_standby_must_have_is_read_of_its_primary(pair: Pair, tools: None) -> None:
    least = {"max_locks_per_transaction": 140, "max_prepared_transactions": 3, "max_worker_processes": 9}
    raised = pair.apply(pair.standby, settings=least)
    pair.apply(pair.primary, settings=least, peers=[pair.done(raised)])
    replays(pair)
    least = {"max_locks_per_transaction": 130, "max_prepared_transactions": 2, "max_worker_processes": 8}
    (waiting, *_others) = pair.apply(pair.standby, settings=least)["deferred"]
    assert (waiting["name"], waiting["primary"]) == ("max_locks_per_transaction", 140)
    pair.apply(pair.primary, settings=least)
    done = pair.apply(pair.standby, settings=least, after_primary=True)
    assert (done["restarted"], done["deferred"]) == (True, [])


@pytest.mark.every_major(since=18)
def test_a_removal_goes_on_as_far_as_it_can_and_says_what_it_waits_for(pair: Pair, tools: None) -> None:
    wanted = {"settings": {"max_connections": 70, "work_mem": "8MB"}}
    raised = pair.apply(pair.standby, **wanted)
    pair.apply(pair.primary, **wanted, peers=[pair.done(raised)])
    replays(pair)
    pair.standby.server.value("SELECT pg_wal_replay_pause()")
    first = pair.apply(pair.standby, state="absent", settings={})
    assert [one["name"] for one in first["deferred"]] == ["max_connections"]
    assert first["changes"] == ["update setting work_mem"] or first["changes"] == ["remove setting work_mem"]
    back = pair.apply(pair.primary, state="absent", settings={}, peers=[pair.done(first)])
    assert back["restarted"]
    peers = [{"name": "db1/main", "host": "127.0.0.1", "port": pair.primary.server.port, "limits": back["limits"]}]
    again = {"state": "absent", "settings": {}, "after_primary": True, "peers": peers}
    with pytest.raises(Conflict) as caught:
        pair.apply(pair.standby, **again)
    assert "keeps max_connections = 70 (primary: 70): replay is paused here" in str(caught.value)
    pair.standby.server.value("SELECT pg_wal_replay_resume()")
    assert pair.apply(pair.standby, **again)["restarted"]
    assert pair.standby.server.value("SHOW max_connections") == "50"
    assert pair.apply(pair.standby, state="absent", settings={})["changed"] is False


@pytest.mark.every_major(since=18)
def test_a_removal_raises_no_primary_before_its_standby(pair: Pair, tools: None) -> None:
    pair.know(pair.peer)
    assert pair.apply(pair.primary, value=40)["restarted"]
    replays(pair)
    assert pair.apply(pair.standby, value=40)["restarted"]
    with pytest.raises(Conflict, match="runs with max_connections = 40"):
        pair.apply(pair.primary, state="absent", settings={})
    assert pair.apply(pair.standby, state="absent", settings={})["restarted"]
    assert pair.apply(pair.primary, state="absent", settings={})["restarted"]
