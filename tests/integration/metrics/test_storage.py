# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of samples over days: partitions, rollups, retention, and what all that takes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import binaries
import majors
import pytest
from clocks import ServerClock
from deploying import SHIPPED, collect, configured, deploy, megabytes_besides
from servers import Server
from waiting import until

from pgops.errors import InvalidInput, QueryFailed
from pgops.instance import sink
from pgops.metrics import delivery, partitions
from pgops.metrics.rounds import Sample, Shapes, packed, place
from pgops.server.session import Session, connect
from pgops.server.target import Target

TURNS = 60 if majors.matrix() == "all" else 12
"""How often in an hour is measured. At one minute, a week takes a minute."""
EVERY = 3600 // TURNS
DAYS = 7
START = datetime(2026, 1, 28, tzinfo=timezone.utc)
"""The days of the simulation span the end of a month."""
SERIES = 80
"""Of a gauge, and as many of a counter."""
RESET = 4 * 24 * TURNS + TURNS // 4
"""The turn in which the counters begin again."""
GAUGE, COUNTER = "table_live_tuples", "table_seq_scans"
BRIEF, LONG = "active_connections", "waiting_locks"
METRICS = {metric.name: metric for found in SHIPPED for metric in found.metrics}


class Clocked:
    """A server whose clock the test sets."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clock = ServerClock(server)
        self.set(START)
        server.start()

    def set(self, moment: datetime) -> None:
        self.clock.set(moment)

    def rows(self, query: str) -> list[dict[str, Any]]:
        with connect(self.target()) as session:
            return session.rows(query)

    def target(self) -> Target:
        server = self.server
        return Target(host=str(server.socket_dir), port=str(server.port), user=server.superuser, database="pgops")


def gauge(series: int, turn: int) -> float:
    return round(100 * math.sin(2 * turn / TURNS + series), 3)


def counter(series: int, turn: int) -> float:
    """It grows by 7 and up to 4 more each time, and began again once."""
    counted = turn - RESET if turn >= RESET else turn
    return float(7 * counted + series + counted % 5)


def growth(series: int, turn: int) -> float:
    now = counter(series, turn)
    return now if turn == RESET else now - counter(series, turn - 1)


def labelled(metric: str, series: int) -> str:
    return f'{{"database": "shop", "metric": "{metric}", "schema": "public", "table": "t{series}"}}'


def measured(turn: int) -> list[Sample]:
    since = "b" if turn >= RESET else "a"
    found = [Sample(labelled(GAUGE, one), gauge(one, turn)) for one in range(SERIES)]
    found += [Sample(labelled(COUNTER, one), counter(one, turn), since) for one in range(SERIES)]
    return found


def store_hour(session: Session, node: int, hour: int, shapes: Shapes) -> int:
    """Store what is measured in an hour, each time half a minute late; how many samples."""
    kept = {BRIEF: 1, LONG: 5}
    stored = 0
    with session.transaction():
        for turn in range(hour * TURNS, (hour + 1) * TURNS):
            at = (START + timedelta(seconds=turn * EVERY + 30)).isoformat()
            found = {place(EVERY, "shop"): measured(turn)}
            for name, days in kept.items():
                found[place(EVERY, "shop", days)] = [Sample(labelled(name, 0), float(turn), keep_days=days)]
            for where, samples in found.items():
                marker = "start first" if turn < RESET else "start second"
                for one in packed(where, samples, at, marker, shapes):
                    delivery.store(session, node, one, METRICS)
                    stored += one.samples
    return stored


@pytest.fixture(name="clocked")
def _clocked(new_server: Callable[..., Server]) -> Clocked:
    """Of one major alone: a week takes its time, and the other tests show that all work alike."""
    return Clocked(new_server(max(binaries.majors())))


def hourly(rows: list[dict[str, Any]], table: int) -> list[dict[str, Any]]:
    return [row for row in rows if row["table_name"] == f"t{table}"]


def test_seven_days(clocked: Clocked, tmp_path: Path) -> None:
    deploy(clocked.server, retention_days=3, metric_retention={BRIEF: 1, LONG: 5})
    configuration, _layout = configured(clocked.server, tmp_path)
    shapes: Shapes = {}
    stored = 0
    with connect(clocked.target()) as session:
        node = session.value("SELECT pgops.register_node('shop', 'db1/main', '1', true, '')")
        for hour in range(DAYS * 24):
            clocked.set(START + timedelta(hours=hour + 1, minutes=3))
            stored += store_hour(session, node, hour, shapes)
            outcome = partitions.maintain(configuration)
            assert outcome["errors"] == []
            assert outcome["rolled_up"] == 1
    days_are_there_as_long_as_they_are_kept(clocked)
    every_hour_is_what_its_samples_were(clocked)
    no_increase_is_lost_with_the_samples(clocked)
    what_is_kept_is_small(clocked, stored)


def days_are_there_as_long_as_they_are_kept(clocked: Clocked) -> None:
    today = START.date() + timedelta(days=DAYS)
    found: dict[Any, list[Any]] = {}
    for row in clocked.rows("SELECT kind, keep_days, first_day FROM pgops.partitions ORDER BY first_day"):
        found.setdefault((row["kind"], row["keep_days"]), []).append((row["first_day"] - today).days)
    ahead = list(range(8))
    assert found[("round", 0)] == [-3, -2, -1, *ahead]
    assert found[("round", 1)] == [-1, *ahead]
    assert found[("round", 5)] == [-5, -4, -3, -2, -1, *ahead]
    assert found[("query_usage", None)] == [-3, -2, -1, *ahead]
    months = clocked.rows("SELECT partition_name FROM pgops.partitions WHERE kind = 'rollup' ORDER BY 1")
    assert [row["partition_name"] for row in months] == ["rollup_202601", "rollup_202602"]


WHOLE = f"'{START.isoformat()}', now()"


def every_hour_is_what_its_samples_were(clocked: Clocked) -> None:
    """Read alike from the rollups of days whose samples are gone, and from the samples of the others."""
    values = clocked.rows(f"SELECT * FROM pgops.metric_values('{GAUGE}', {WHOLE}, '1 hour') ORDER BY started_at")
    rates = clocked.rows(f"SELECT * FROM pgops.metric_rates('{COUNTER}', {WHOLE}, '1 hour') ORDER BY ended_at")
    for series in (0, 5, SERIES - 1):
        for hour, row in enumerate(hourly(values, series)):
            expected = [gauge(series, turn) for turn in range(hour * TURNS, (hour + 1) * TURNS)]
            assert row["samples"] == TURNS
            assert [row["minimum"], row["maximum"], row["last"]] == [min(expected), max(expected), expected[-1]]
            assert row["average"] == pytest.approx(sum(expected) / TURNS)
        assert len(hourly(values, series)) == DAYS * 24
        for hour, row in enumerate(hourly(rates, series)):
            turns = range(max(1, hour * TURNS), (hour + 1) * TURNS)
            assert row["increase"] == pytest.approx(sum(growth(series, turn) for turn in turns))
        assert len(hourly(rates, series)) == DAYS * 24
    kept = "SELECT u.statistic, u.sample_values[1] AS value FROM pgops.rollup AS u WHERE u.shape_id = ({}) AND {}"
    shape = "SELECT shape_id FROM pgops.shape_series NATURAL JOIN pgops.series NATURAL JOIN pgops.metric "
    shape += f"WHERE metric_name = '{COUNTER}' AND place = 1 AND table_name = 't0' ORDER BY 1 LIMIT 1"
    second = f"u.started_at = '{(START + timedelta(hours=1)).isoformat()}'"
    found = {row["statistic"]: row["value"] for row in clocked.rows(kept.format(shape, second))}
    grown = [growth(0, turn) / EVERY for turn in range(TURNS, 2 * TURNS)]
    assert found == pytest.approx(
        {
            "minimum": min(grown),
            "average": sum(grown) / TURNS,
            "maximum": max(grown),
            "last": counter(0, 2 * TURNS - 1),
            "weight": 3600,
        }
    )


def no_increase_is_lost_with_the_samples(clocked: Clocked) -> None:
    for series in (0, SERIES - 1):
        query = f"SELECT increase FROM pgops.metric_rates('{COUNTER}', {WHOLE}) WHERE table_name = 't{series}'"
        (row,) = clocked.rows(query)
        assert row["increase"] == pytest.approx(sum(growth(series, one) for one in range(1, DAYS * 24 * TURNS)))


def what_is_kept_is_small(clocked: Clocked, stored: int) -> None:
    (row,) = clocked.rows(
        "SELECT sum(size_bytes) FILTER (WHERE kind = 'round') AS samples,"
        "       sum(size_bytes) FILTER (WHERE kind = 'rollup') AS rollups FROM pgops.partitions"
    )
    (there,) = clocked.rows("SELECT count(*) AS samples FROM pgops.system_metrics")
    print(f"\n{row['samples'] / there['samples']:.1f} bytes a sample, its rollups {row['rollups'] / stored:.2f}")
    # What a day has once weighs the more the fewer samples there are.
    assert row["samples"] / there["samples"] < (14 if TURNS == 60 else 20)
    assert row["rollups"] / stored < 2 * 60 / TURNS


HOUR = timedelta(hours=1)


class Past:
    """Rounds of one node that were measured some hours ago."""

    def __init__(self, server: Server, state: Path) -> None:
        self.server = server
        self.configuration, _layout = configured(server, state)
        self.shapes: Shapes = {}
        self.now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
        with connect(self.target()) as session:
            call = "SELECT pgops.register_node('shop', 'db1/main', %s, true, '')"
            self.node = session.value(call, [session.value(sink.SYSTEM_IDENTIFIER)])

    def target(self) -> Target:
        return Target(
            host=str(self.server.socket_dir), port=str(self.server.port), user=self.server.superuser, database="pgops"
        )

    def store(self, hours_ago: int, minute: int, value: float, metric: str = GAUGE, keep_days: int = 0) -> None:
        at = self.now - hours_ago * HOUR + timedelta(minutes=minute)
        samples = [Sample(labelled(metric, 0), value, keep_days=keep_days)]
        with connect(self.target()) as session, session.transaction():
            for one in packed(place(60, "shop", keep_days), samples, at.isoformat(), "start first", self.shapes):
                delivery.store(session, self.node, one, METRICS)

    def maintain(self) -> dict[str, Any]:
        outcome = partitions.maintain(self.configuration)
        assert outcome["errors"] == []
        return outcome

    def rollup(self, hours_ago: int, metric: str = GAUGE) -> dict[str, float]:
        query = (
            "SELECT u.statistic, u.sample_values[p.place] AS value FROM pgops.rollup AS u "
            "JOIN pgops.shape_series AS p USING (shape_id) JOIN pgops.series AS s USING (series_id) "
            "JOIN pgops.metric AS m USING (metric_id) WHERE m.metric_name = %s AND u.started_at = %s"
        )
        with connect(self.target()) as session:
            rows = session.rows(query, [metric, self.now - hours_ago * HOUR])
        return {row["statistic"]: row["value"] for row in rows}


@pytest.fixture(name="past")
def _past(deployed: Server, tmp_path: Path) -> Past:
    return Past(deployed, tmp_path)


def test_an_hour_is_rolled_up_once_it_is_over_and_again_for_what_comes_late(past: Past) -> None:
    past.store(5, 10, 4)
    past.store(5, 20, 8)
    past.store(0, 0, 1)
    assert past.maintain()["rolled_up"] == 2  # the hour itself, and the one after it, which has nothing
    expected = {"minimum": 4, "average": 6, "maximum": 8, "last": 8, "weight": 2}
    assert past.rollup(5) == expected
    assert past.rollup(0) == {}
    assert past.maintain()["rolled_up"] == 0
    past.store(5, 15, 9)
    past.store(5, 15, 9)
    assert past.maintain()["rolled_up"] == 2
    assert past.rollup(5) == {**expected, "maximum": 9, "average": 7, "weight": 3}
    with pytest.raises(Exception, match="no complete hour starts at"):
        past.server.value("SELECT pgops.roll_up(1, date_trunc('hour', now()))", "pgops")


def test_a_late_sample_mends_the_rate_of_the_hour_after_it(past: Past) -> None:
    for hours_ago, minute, value in ((6, 30, 100), (4, 30, 820)):
        past.store(hours_ago, minute, value, COUNTER)
    past.maintain()
    assert past.rollup(4, COUNTER)["weight"] == 2 * 3600
    past.store(5, 30, 820, COUNTER)
    past.maintain()
    assert past.rollup(5, COUNTER) == {"minimum": 0.2, "average": 0.2, "maximum": 0.2, "last": 820, "weight": 3600}
    assert past.rollup(4, COUNTER) == {"minimum": 0, "average": 0, "maximum": 0, "last": 820, "weight": 3600}


def test_what_is_stored_while_its_hour_is_rolled_up_is_rolled_up_again(past: Past) -> None:
    past.store(5, 10, 4)
    with connect(past.target()) as session:
        hour = past.now - 5 * HOUR
        with session.transaction():
            session.value("SELECT pgops.roll_up(%s, %s)", [past.node, hour])
            storing = threading.Thread(target=past.store, args=(5, 20, 8))
            storing.start()
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
            until(lambda: past.server.value(waits), "waiting", 1)
        storing.join()
    past.maintain()
    assert past.rollup(5)["weight"] == 2


def test_what_is_left_of_an_hour_does_not_replace_what_was_made_of_all_of_it(past: Past) -> None:
    past.store(100, 10, 4)
    past.maintain()
    deploy(past.server, retention_days=2)
    assert len(past.maintain()["dropped"]) >= 1
    before = past.rollup(100)
    assert before["weight"] == 1
    with pytest.raises(QueryFailed, match="older than the retention of its samples"):
        past.store(100, 20, 8)
    past.maintain()
    assert past.rollup(100) == before
    count = f"SELECT count(*) FROM pgops.system_metrics WHERE metric_name = '{GAUGE}'"
    assert past.server.value(count, "pgops") == 0
    query = f"SELECT last FROM pgops.metric_values('{GAUGE}', now() - interval '10 days')"
    assert past.server.value(query, "pgops") == 4


def test_what_is_too_old_is_counted_as_lost_and_costs_nothing_else(past: Past) -> None:
    past.store(100, 10, 4)
    deploy(past.server, retention_days=2)
    past.maintain()
    at = [(past.now - hours * HOUR).isoformat() for hours in (100, 1)]
    samples = [Sample(labelled(GAUGE, one), 1.0) for one in range(50)]
    found = [one for moment in at for one in packed(place(60), samples, moment, "start first", {})]
    with connect(past.target()) as session:
        lost = delivery.deliver(sink.Sink(session, sink.node(past.configuration, session), sink.OFF), METRICS, found)
    assert [one.samples for one, _reason in lost] == [50]
    assert past.server.value("SELECT count(*) FROM pgops.system_metrics", "pgops") == 50


def test_a_sample_that_two_shapes_have_is_one(past: Past) -> None:
    for minute, value in ((10, 100), (20, 700), (30, 1300)):
        past.store(5, minute, value, COUNTER)
    past.server.value("UPDATE pgops.shape SET fingerprint = fingerprint || 'x'", "pgops")
    past.store(5, 20, 700, COUNTER)
    past.maintain()
    assert past.rollup(5, COUNTER)["average"] == 1
    increase = f"SELECT sum(increase) FROM pgops.metric_rates('{COUNTER}', now() - interval '8 hours')"
    assert past.server.value(increase, "pgops") == 1200


def test_an_index_that_is_dropped_is_no_reset_of_what_its_table_has_counted(past: Past) -> None:
    for minute, value in ((10, 1000), (20, 1060), (30, 500), (40, 560)):
        past.store(5, minute, value, COUNTER)
    increase = f"SELECT increase FROM pgops.metric_rates('{COUNTER}', now() - interval '8 hours')"
    assert past.server.value(increase, "pgops") == 120


def test_what_nothing_refers_to_any_more_is_forgotten(past: Past) -> None:
    def kept() -> list[Any]:
        counts = [f"SELECT count(*) FROM pgops.{table}" for table in ("shape", "series", "epoch")]
        return [past.server.value(count, "pgops") for count in counts]

    past.store(5, 10, 4)
    past.store(5, 10, 4, COUNTER)
    past.maintain()
    both = kept()
    past.server.value(
        "INSERT INTO pgops.epoch (node_id, origin, last_used_on) VALUES (1, 'of old', '2020-01-01')", "pgops"
    )
    for table in ("shape", "epoch"):
        past.server.value(f"UPDATE pgops.{table} SET last_used_on = '2020-01-01'", "pgops")
    past.shapes.clear()
    past.store(4, 10, 5)  # the first shape is used again, which has but one of the two series
    assert past.maintain()["forgotten"] == 1
    assert kept() == [both[0] - 1, both[1] - 1, both[2]]
    assert past.rollup(4)["last"] == 5


def test_an_hour_at_the_border_is_rolled_up_again_as_it_was(past: Past) -> None:
    day = (datetime.now(timezone.utc) - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    first = int((past.now - day).total_seconds() / 3600)
    for minute in range(0, 120, 10):
        past.store(first, minute, 100.0 * minute * 60 if minute < 60 else 360_000.0 + minute, COUNTER)
    past.store(first + 24, 0, 0, COUNTER)
    past.maintain()
    before = past.rollup(first - 1, COUNTER)
    deploy(past.server, retention_days=2)
    assert past.maintain()["dropped"] != []
    past.server.value(
        "INSERT INTO pgops.rollup_due SELECT node_id, started_at FROM pgops.node, "
        f"generate_series('{day}', '{day + 2 * HOUR}'::timestamptz, '1 hour') AS h (started_at)",
        "pgops",
    )
    past.maintain()
    assert past.rollup(first - 1, COUNTER) == before


def test_deliveries_of_several_days_do_not_wait_for_each_other_both(past: Past) -> None:
    make = "SELECT pgops.create_partition('round_0', current_date - {})"
    with past.server.connect("pgops") as one, past.server.connect("pgops") as other:
        one.execute("BEGIN")
        one.execute(make.format(20).encode())
        waiting = threading.Thread(target=other.execute, args=(make.format(21).encode(),))
        waiting.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: past.server.value(waits), "waiting", 1)
        one.execute(make.format(21).encode())
        one.execute("COMMIT")
        waiting.join()
    assert (
        past.server.value(
            "SELECT count(*) FROM pgops.partitions WHERE first_day < current_date AND kind = 'round'", "pgops"
        )
        == 2
    )


def test_a_sample_that_no_sum_can_hold_stops_no_other(past: Past) -> None:
    for minute in (1, 2):
        past.store(5, minute, 1.5e308)
    past.store(4, 1, 3)
    past.maintain()
    assert past.rollup(5)["maximum"] == 1.5e308
    assert past.rollup(4)["average"] == 3


def test_the_retention_of_a_metric_holds_for_what_is_collected_from_then_on(past: Past, tmp_path: Path) -> None:
    count = f"SELECT count(*) FROM pgops.system_metrics WHERE metric_name = '{BRIEF}'"
    past.store(60, 0, 1, BRIEF)
    for other in (50, 0):
        past.store(other, 0, 1)
    outcome = deploy(past.server, metric_retention={BRIEF: 1})
    assert outcome["changes"] == [f"create retention {BRIEF}"]
    assert deploy(past.server, metric_retention={BRIEF: 1})["changes"] == []
    assert past.maintain()["dropped"] == []  # what was there is kept as it was to be
    past.shapes.clear()
    past.store(50, 0, 1, BRIEF, keep_days=1)
    past.store(0, 0, 1, BRIEF, keep_days=1)
    (dropped,) = past.maintain()["dropped"]
    assert dropped.startswith("round_1_")
    assert past.server.value(count, "pgops") == 2
    deploy(past.server, metric_retention={})
    past.store(50, 0, 1, BRIEF)
    assert past.maintain()["dropped"] == []
    assert past.server.value(count, "pgops") == 3
    assert collect(past.server, tmp_path, retention={BRIEF: 1})["errors"] == []


def test_a_metric_that_a_shape_shares_with_others_is_kept_as_long_as_the_longest(past: Past) -> None:
    deploy(past.server, metric_retention={BRIEF: 1, LONG: 90})
    keep = "SELECT keep_days FROM pgops.shape ORDER BY shape_id DESC LIMIT 1"
    for names, days in (([BRIEF], 1), ([BRIEF, GAUGE], 0), ([GAUGE, LONG], 90), ([BRIEF, LONG], 90), ([GAUGE], 0)):
        samples = [Sample(labelled(name, 0), 1.0) for name in names]
        with connect(past.target()) as session:
            (one,) = packed(place(60), samples, past.now.isoformat(), "start first", {})
            delivery.store(session, past.node, one, METRICS)
        assert past.server.value(keep, "pgops") == days


@pytest.mark.parametrize("days", [0, -1, "a week", True, None, 1.5, 5000])
def test_a_retention_is_some_days(server: Server, days: object) -> None:
    with pytest.raises(InvalidInput, match="retention of active_connections must be whole days, 1 to 3660"):
        deploy(server, metric_retention={BRIEF: days})


def test_a_retention_of_an_unknown_metric_is_refused(server: Server) -> None:
    with pytest.raises(InvalidInput, match="unknown metrics nothing"):
        deploy(server, metric_retention={"nothing": 1})


def test_where_there_is_no_room_samples_go_before_hours(past: Past) -> None:
    insert = (
        "INSERT INTO pgops.round SELECT s, 1, current_date - {0} + interval '1 second' * s, 0, "
        "array_fill(random(), ARRAY[200]) FROM generate_series(1, 1000) AS s"
    )
    past.store(24 * 70, 0, 1)
    past.maintain()
    for day in (10, 9):
        past.server.value(f"SELECT pgops.create_partition('round_0', current_date - {day})", "pgops")
        past.server.value(insert.format(day), "pgops")
    filled = (
        "INSERT INTO pgops.rollup SELECT s, started_at, 'last', array_fill(random(), ARRAY[200]) "
        "FROM pgops.rollup, generate_series(1000, 2000) AS s WHERE statistic = 'last'"
    )
    past.server.value(filled, "pgops")
    deploy(past.server, max_size_mb=3 + megabytes_besides(past.server))
    (error,) = partitions.maintain(past.configuration)["errors"]
    assert "dropped early" in error
    kinds = "SELECT string_agg(kind, ' ') FROM pgops.partitions WHERE first_day < current_date - 40 OR {}"
    assert past.server.value(kinds.format("(first_day < current_date AND kind = 'round')"), "pgops") == "rollup"
    deploy(past.server, max_size_mb=1)
    partitions.maintain(past.configuration)
    assert past.server.value(kinds.format("false"), "pgops") is None
