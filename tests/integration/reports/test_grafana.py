# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each query of the Grafana dashboards runs as a reader, and returns what Grafana needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import artifact
import panels
import psycopg
import pytest
from deploying import collect, inspect
from panels import Asked
from servers import Server

READER = "grafana"
PAGE = artifact.ROOT / "docs" / "grafana.md"
PUT_IN = {
    "$__interval": "2m",
    "${node:sqlstring}": "'db1/main'",
    "${order:sqlstring}": "'time'",
}
ORDERS = ("calls", "rows", "io", "temp", "wal", "planning")
METRIC = "m.metric_name = '"


@pytest.fixture(name="reading")
def _reading(deployed: Server, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A session of the login role of the docs, a member of pgops_reader and of nothing else, after a collection."""
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    deployed.psql(block)
    assert collect(deployed, tmp_path)["errors"] == []
    assert inspect(deployed, tmp_path)["errors"] == []
    deployed.value("SELECT pgops.evaluate_alerts()", "pgops")
    with deployed.connect("pgops", user=READER) as session:
        yield session
    deployed.value(f"DROP ROLE {READER}")


def put_in(session: psycopg.Connection[Any], **other: str) -> dict[str, str]:
    """What Grafana would put in for the last two hours."""
    times = "to_char(clock_timestamp() AT TIME ZONE 'UTC' - interval '{}', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    ((starts, ends),) = session.execute(f"SELECT {times.format('2 hours')}, {times.format('-1 minute')}".encode())
    return {"$__timeFrom()": f"'{starts}'", "$__timeTo()": f"'{ends}'", **PUT_IN, **other}


def ran(session: psycopg.Connection[Any], one: Asked, **other: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The columns and the rows of a query."""
    try:
        answer = session.execute(one.filled(put_in(session, **other)).encode())
    except psycopg.Error as error:
        raise AssertionError(f"{one.place}: {error}") from error
    return [column.name for column in answer.description or ()], answer.fetchall()


@pytest.mark.every_major
def test_every_query_runs_as_a_reader_and_has_the_columns_that_grafana_needs(
    reading: psycopg.Connection[Any],
) -> None:
    found = panels.asked("postgresql")
    assert {one.form for one in found} == {"time_series", "table", "variable", "annotation"}
    for one in found:
        columns, _rows = ran(reading, one)
        if one.form == "time_series":
            assert set(columns) == {"time", "metric", "value"}, one.place
        elif one.form == "annotation":
            assert {"time", "text", "tags"} <= set(columns), one.place
        elif one.form == "variable":
            assert len(columns) == 1, one.place
        assert len(set(columns)) == len(columns), one.place


@pytest.mark.every_major
def test_what_has_samples_is_drawn(reading: psycopg.Connection[Any]) -> None:
    """A gauge with a sample has a value in its chart; without the label it is drawn by, it would have no line."""
    sampled = {
        str(name)
        for (name,) in reading.execute(
            "SELECT m.metric_name FROM pgops.metrics AS m"
            " CROSS JOIN LATERAL pgops.metric_values(m.metric_name, now() - interval '1 hour', now()) AS v"
            " WHERE m.kind = 'gauge' AND v.node = 'db1/main' GROUP BY 1"
        )
    }
    drawn = set()
    for one in panels.asked("postgresql"):
        metric = one.text.partition(METRIC)[2].partition("'")[0]
        if one.form != "time_series" or metric not in sampled:
            continue
        columns, rows = ran(reading, one)
        assert [row for row in rows if row[columns.index("value")] is not None], one.place
        drawn.add(metric)
    assert {"connections", "connections_used_percent", "database_size_mb", "waiting_sessions"} <= drawn


def test_what_was_not_measured_is_a_gap(reading: psycopg.Connection[Any]) -> None:
    columns, rows = ran(reading, of("instance: Connections used, A"))
    values = [row[columns.index("value")] for row in rows]
    assert len(values) == 61
    assert len([value for value in values if value is not None]) == 1


@pytest.mark.parametrize("order", ORDERS)
def test_statements_are_ordered_by_all_that_can_be_chosen(reading: psycopg.Connection[Any], order: str) -> None:
    ran(reading, of("queries: Top statements by ${order}, A"), **{"${order:sqlstring}": f"'{order}'"})


def test_the_orders_that_can_be_chosen_are_those() -> None:
    variables = panels.documents("postgresql")["queries"]["templating"]["list"]
    (order,) = [one for one in variables if one["name"] == "order"]
    assert set(order["query"].split(",")) == {"time", *ORDERS}


def of(place: str) -> Asked:
    """The query at a place."""
    (found,) = [one for one in panels.asked("postgresql") if one.place == place]
    return found


def test_nodes_are_listed_with_their_worst_values(reading: psycopg.Connection[Any]) -> None:
    columns, rows = ran(reading, of("fleet: Nodes, A"))
    (row,) = [dict(zip(columns, row)) for row in rows]
    assert (row["node"], row["cluster"], row["role"]) == ("db1/main", "shop", "primary")
    assert row["critical"] is not None
    assert row["connections"] is not None
    assert 0 <= row["age of samples"] < 7200


def test_an_alert_that_fires_is_counted_listed_and_drawn(deployed: Server, reading: psycopg.Connection[Any]) -> None:
    columns = "rule_name, metric_name, condition_operator, threshold_value, severity_level, minimum_duration"
    values = "'full', 'connections_used_percent', '>', -1, 'critical', '0'"
    rule = f"INSERT INTO pgops.alert_rules ({columns}) VALUES ({values})"
    with deployed.connect("pgops") as owner:
        owner.execute(rule.encode())
        owner.execute(b"SELECT pgops.evaluate_alerts()")
    names, rows = ran(reading, of("alerts: Alerts that fire, A"))
    assert dict(zip(names, rows[0]))["critical"] >= 1
    names, rows = ran(reading, of("fleet: Nodes, A"))
    assert dict(zip(names, rows[0]))["critical"] >= 1
    for place in ("alerts: Firing, A", "alerts: Alerts of the chosen time, A"):
        names, rows = ran(reading, of(place))
        assert ("full", "critical") in {(row[names.index("rule")], row[names.index("severity")]) for row in rows}
    names, rows = ran(reading, of("alerts: When they fired, A"))
    drawn = [dict(zip(names, row))["value"] for row in rows if dict(zip(names, row))["metric"] == "full db1/main"]
    assert set(drawn) == {None, 2}


def test_without_an_evaluation_nothing_is_said_of_alerts(deployed: Server, reading: psycopg.Connection[Any]) -> None:
    deployed.value("DELETE FROM pgops.alert_evaluation", "pgops")
    assert ran(reading, of("alerts: Alerts that fire, A"))[1] == []
    columns, rows = ran(reading, of("fleet: Nodes, A"))
    assert [row[columns.index("critical")] for row in rows] == [None]
