# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a standby measures arrives in its cluster's ops database, or the run says why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clusters
import pytest
from clusters import PASSWORD, Node
from deploying import install
from servers import Server, free_port

from pgops.agent import schedule
from pgops.errors import NotDelivered
from pgops.instance.layout import Layout


@dataclass
class Pair:
    """A primary, and a standby on a host with an installed agent."""

    primary: Node
    standby: Node

    def configure(self, *peers: tuple[str, int]) -> list[str]:
        """Have the standby's agent deliver there; the places as pg_ops_schedule takes them."""
        install(
            prefix=str(self.standby.state),
            node="db2/main",
            port=self.standby.server.port,
            socket_directory=str(self.standby.server.socket_dir),
            peers=[{"host": host, "port": port} for host, port in peers],
            password=PASSWORD,
            user="root",
        )
        return [f"{host}:{port}" for host, port in peers]

    @property
    def right(self) -> tuple[str, int]:
        return "127.0.0.1", self.primary.server.port

    def schedule(self, places: list[str] | None, check: bool = False) -> dict[str, Any]:
        """What pg_ops_schedule returns; raises what it reports."""
        instance = {"name": "main", "jobs": [], "delivers_to": places}
        shared = {"state": "present", "backend": "none", "prefix": str(self.standby.state)}
        return schedule.converge({**shared, "instances": [instance]}, check)

    def rounds(self) -> int:
        counted = "SELECT count(DISTINCT collected_at) FROM pgops.system_metrics WHERE node = 'db2/main'"
        with self.primary.server.connect("pgops") as session:
            return int((session.execute(counted).fetchone() or [0])[0])


@pytest.fixture(name="pair")
def _pair(
    major: int, new_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    # The Python of the tests may be one that only root can run.
    monkeypatch.setattr("pgops.agent.declared.is_root", lambda _name: False)
    (tmp_path / "db1").mkdir()
    (tmp_path / "db2").mkdir()
    first = clusters.primary(new_server(major).start(), "db1/main", tmp_path / "db1")
    second = first.standby("db2/main", tmp_path / "db2")
    with second.server:
        clusters.streaming(first.server)
        yield Pair(first, second)


def test_it_is_proven_once_that_samples_arrive(pair: Pair) -> None:
    places = pair.configure(pair.right)
    assert pair.schedule(places, check=True)["changed"] is False
    assert pair.rounds() == 0
    assert pair.schedule(places)["changed"] is False
    proven = pair.rounds()
    assert proven > 0
    pair.schedule(places)
    assert pair.rounds() == proven


def test_what_does_not_arrive_is_an_error_until_it_does(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgops.agent.arrival.PATIENCE", 0)
    nobody = ("127.0.0.1", free_port())
    places = pair.configure(nobody)
    for _time in range(2):
        with pytest.raises(NotDelivered, match="what this standby measures does not arrive at") as caught:
            pair.schedule(places)
        assert "pgops_address" in caught.value.hint
    assert "which is this host itself" in pair.schedule(places, check=True)["warnings"][0]
    itself = pair.configure(("127.0.0.1", pair.standby.server.port))
    with pytest.raises(NotDelivered):
        pair.schedule(itself)
    pair.schedule(pair.configure(nobody, pair.right))
    assert pair.rounds() > 0


def test_a_standby_that_delivers_to_nobody_is_a_warning(pair: Pair) -> None:
    (words,) = pair.schedule(pair.configure())["warnings"]
    assert "no other node of its cluster is known" in words
    assert pair.schedule(pair.configure(), check=True)["warnings"] == [words]
    assert "warnings" not in pair.schedule(None) or pair.schedule(None)["warnings"] == []


def test_a_standby_that_cannot_collect_yet_is_a_warning(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgops.agent.arrival.PATIENCE", 0)
    places = pair.configure(pair.right)
    pair.standby.server.stop()
    (*_loopback, words) = pair.schedule(places)["warnings"]
    assert "nothing can be collected on this standby yet" in words
    pair.standby.server.start()
    pair.schedule(places)
    kept = json.loads(Path(Layout("main", str(pair.standby.state)).delivered).read_text())
    assert kept["configuration"]
