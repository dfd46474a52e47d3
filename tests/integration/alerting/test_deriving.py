# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is derived for rules from stored samples, at chosen moments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deploying import SHIPPED, collect
from servers import Server

DEFINE = "SELECT pgops.define_shape(%s, %s, '[]', %s)"
STORE = "SELECT pgops.store_round(%s, %s, %s, %s::timestamptz + make_interval(mins => %s), %s::float8[])"
DERIVED = """
SELECT s.other, s.database_name, v.sample FROM pgops.samples_between(ARRAY[%s], %s, %s) AS v
JOIN pgops.series AS s USING (series_id) ORDER BY 1, 2
"""


class Store:
    """Rounds of some series of nodes, whose first moment is 0, in minutes, and what is derived of them."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self.session = session
        self.start = self.value("SELECT date_trunc('hour', now()) - interval '12 hours'")
        self.node = self.value("SELECT pgops.primary_node_id()")

    def value(self, query: str, *values: Any) -> Any:
        (found,) = self.session.execute(query.encode(), values).fetchone() or (None,)
        return found

    def standby(self) -> int:
        """A second node of the cluster."""
        return int(self.value("SELECT pgops.register_node('shop', 'db2/main', '1', false, '')"))

    def place(self, key: bytes, *series: dict[str, Any], node: int | None = None) -> None:
        """Define a shape of these series."""
        self.value(DEFINE, node or self.node, key, json.dumps(series))

    def round(self, key: bytes, minute: float, *values: float | None, node: int | None = None) -> None:
        """Store a round of them."""
        self.value(STORE, node or self.node, key, "here 2020 -", self.start, minute, list(values))

    def derive(self, minute: float, metric: str) -> list[tuple[Any, ...]]:
        """What is derived of a metric at a minute: (other labels, database, value)."""
        moment = self.value("SELECT %s::timestamptz + make_interval(secs => %s)", self.start, minute * 60)
        self.value("SELECT pgops.derive_metrics(%s)", moment)
        before = self.value("SELECT %s::timestamptz - interval '1 second'", moment)
        return self.session.execute(DERIVED.encode(), [metric, before, moment]).fetchall()


@pytest.fixture(name="store")
def _store(deployed: Server) -> Iterator[Store]:
    with deployed.connect("pgops") as session:
        yield Store(session)


def counters(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "database": "shop"} for name in names]


def test_shares_are_of_the_last_minutes_and_not_of_all_time(store: Store) -> None:
    store.place(b"a", *counters("blocks_hit", "blocks_read"))
    for minute in range(10):
        # A million hits long ago, and since then three in four blocks are read.
        store.round(b"a", minute, 1_000_000 + minute * 1000, minute * 3000)
    assert store.derive(9.5, "cache_hit_recent_percent") == [({}, "shop", 25)]


def test_an_idle_database_has_no_share(store: Store) -> None:
    store.place(b"a", *counters("transactions_rolled_back", "transactions_committed"))
    for minute in range(10):
        store.round(b"a", minute, minute * 10, minute * 9)
    assert store.derive(9.5, "rollback_recent_percent") == []
    store.round(b"a", 10, 1000, 1000)
    assert len(store.derive(10.5, "rollback_recent_percent")) == 1


def test_a_share_needs_both_of_its_counters(store: Store) -> None:
    store.place(b"a", *counters("checkpoints_requested", "checkpoints_timed"))
    for minute in range(10):
        store.round(b"a", minute, minute, None)
    assert store.derive(9.5, "checkpoints_requested_percent") == []


@pytest.mark.parametrize(("each_minute", "seconds"), [(-10.0, 6100), (0.0, 2_592_000), (5.0, 2_592_000)])
def test_a_disk_is_full_when_it_goes_on_as_in_the_last_hour(store: Store, each_minute: float, seconds: float) -> None:
    store.place(b"a", {"metric": "disk_free_mb", "other": {"disk": "data"}})
    for minute in range(60):
        store.round(b"a", minute, 1000 + (59 - minute) * -each_minute)
    ((labels, _database, found),) = store.derive(59, "disk_full_in_seconds")
    assert labels == {"disk": "data"}
    assert found == pytest.approx(seconds, abs=200)


def test_a_forecast_needs_a_quarter_of_an_hour(store: Store) -> None:
    store.place(b"a", {"metric": "disk_free_mb", "other": {"disk": "data"}})
    for minute in range(12):
        store.round(b"a", minute, 1000 - minute)
    assert store.derive(12, "disk_full_in_seconds") == []


@pytest.mark.parametrize(("each_minute", "expected"), [(-1e6, 0), (0, 2e9), (1e6, 2e9 + 6e6)])
def test_a_lag_counts_where_it_does_not_shrink(store: Store, each_minute: float, expected: float) -> None:
    store.place(b"a", {"metric": "replication_lag_bytes", "other": {"standby": "db2"}})
    for minute in range(7):
        store.round(b"a", minute, 2e9 + minute * each_minute)
    assert store.derive(6.1, "replication_lag_not_shrinking_bytes") == [({"standby": "db2"}, "", expected)]
    assert store.derive(12, "replication_lag_not_shrinking_bytes") == []


def test_standbys_are_compared_with_those_that_are_expected(store: Store) -> None:
    for key, node in ((b"a", store.node), (b"b", store.standby())):
        store.place(key, {"metric": "standbys_connected"}, node=node)
        store.round(key, 0, 1, node=node)
    assert store.derive(1, "standby_surplus") == []
    store.session.execute("INSERT INTO pgops.setting (name, value) VALUES ('expected_standbys', '3')")
    assert store.derive(2, "standby_surplus") == [({}, "", -1)]
    # Whose primary does not report is not known to lack one.
    assert store.derive(4, "standby_surplus") == []


def test_a_slot_is_unused_on_a_standby_only_after_it_was_used(store: Store) -> None:
    kept = {"metric": "slot_active", "other": {"slot": "kept", "slot_type": "physical"}}
    cascade = {"metric": "slot_active", "other": {"slot": "cascade", "slot_type": "physical"}}
    standby = store.standby()
    store.place(b"a", kept, node=standby)
    store.place(b"b", cascade, node=standby)
    store.place(b"c", kept)
    store.round(b"a", 0, 0, node=standby)
    store.round(b"b", 0, 1, node=standby)
    store.round(b"b", 1, 0, node=standby)
    store.round(b"c", 1, 0)
    assert [(labels["slot"], value) for labels, _database, value in store.derive(1.5, "slot_unused")] == [
        ("cascade", 1),
        ("kept", 1),
    ]


REPORTS = {"connections": 0, "index_health": 0}


def reported(store: Store, minute: float, **errors: float | None) -> None:
    """What the agent reports of its collectors: errors of their runs, None for one that was not due."""
    store.round(b"r", minute, *({**dict.fromkeys(REPORTS, None), **errors}[name] for name in REPORTS))


@pytest.fixture(name="watched")
def _watched(store: Store) -> Store:
    store.place(b"r", *({"metric": "collector_errors", "other": {"collector": name}} for name in REPORTS))
    return store


def late(store: Store, minute: float) -> dict[str, float]:
    found = store.derive(minute, "collector_late_ratio")
    return {labels["collector"]: value for labels, _database, value in found}


def test_a_collector_that_fails_is_late_in_its_own_intervals(watched: Store) -> None:
    reported(watched, 0, connections=0, index_health=0)
    for minute in range(1, 121):
        reported(watched, minute, connections=0, index_health=1 if minute % 60 == 0 else None)
    assert late(watched, 120.5) == {"agent": 0.5, "connections": 0, "index_health": 2}


def test_an_agent_that_is_gone_is_one_series(watched: Store) -> None:
    for minute in range(3):
        reported(watched, minute, connections=0)
    assert late(watched, 22) == {"agent": 20, "connections": 0}


def test_a_collector_that_was_switched_off_is_not_late(watched: Store) -> None:
    reported(watched, 0, connections=0, index_health=0)
    for minute in range(1, 10):
        reported(watched, minute, index_health=0)
    assert late(watched, 9) == {"agent": 0, "index_health": 0}


def test_a_collector_of_the_other_role_is_not_late(watched: Store) -> None:
    reported(watched, 0, connections=0, index_health=0)
    watched.session.execute("UPDATE pgops.node SET is_primary = false")
    assert late(watched, 1) == {"agent": 1, "connections": 0}


def test_an_interval_that_the_inventory_chose_counts(store: Store) -> None:
    names = ("collector_errors", "collector_interval_seconds")
    store.place(b"r", *({"metric": name, "other": {"collector": "connections"}} for name in names))
    store.round(b"r", 0, 0, 600)
    store.round(b"r", 10, 1, 600)
    assert late(store, 10) == {"agent": 0, "connections": 1}


@pytest.mark.parametrize(("scheduled", "expected"), [(0, 3), (None, None)])
def test_an_inspection_is_late_while_it_is_scheduled(
    watched: Store, scheduled: int | None, expected: int | None
) -> None:
    watched.place(b"i", {"metric": "collector_errors", "other": {"collector": "sequences"}})
    watched.place(b"j", *({"metric": "job_age_seconds", "other": {"job": job}} for job in ("collect", "inspect")))
    watched.round(b"i", 0, 0)
    reported(watched, 30, connections=0)
    watched.round(b"j", 30, 0, scheduled)
    assert late(watched, 30).get("inspect") == expected


def test_what_is_derived_tells_that_it_was(store: Store) -> None:
    assert ({"collector": "derived"}, "", 0) in store.derive(1, "collector_errors")


def test_the_agent_reports_an_interval_of_the_inventory(deployed: Server, tmp_path: Path) -> None:
    found = [one for one in SHIPPED if one.name in ("connections", "slots")]
    ran = collect(deployed, tmp_path, found=found, collectors={"connections": {"interval": 300}})
    assert ran["errors"] == []
    reported = """
        SELECT array_agg(concat_ws(' ', additional_info ->> 'collector', metric_value)) FROM pgops.system_metrics
        WHERE metric_name = 'collector_interval_seconds'
    """
    assert deployed.value(reported, "pgops") == ["connections 300"]
