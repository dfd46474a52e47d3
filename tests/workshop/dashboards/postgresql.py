# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dashboards of the ops databases, read through Grafana's PostgreSQL data source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Row

from pgops.reports.charts import CHARTS, MAXIMUM, Line

from . import charted, drawing, sql
from .charted import Charts
from .drawing import About, Columns, Frame, Limits

OF_PGOPS = "/^pgops/"
"""Data sources whose names begin so are those of ops databases."""
TO_INSTANCE = "/d/pgops-instance?var-datasource=${datasource}&var-node=${__value.raw}&${__url_time_range}"
LATE = Limits(180, 600)
"""Seconds since samples came or rules were evaluated."""
USED = Line("disk_used_percent", "used", "disk", MAXIMUM, summed=False)


def dashboards(charts: Charts) -> Mapping[str, Any]:
    """All of them, by the names of their files."""
    made = {
        "fleet": fleet(charts),
        "instance": instance(charts),
        "queries": queries(charts),
        "recovery": recovery(charts),
        "alerts": alerts(charts),
    }
    return {name: drawing.finished(one) for name, one in made.items()}


def fleet(charts: Charts) -> Any:
    """All ops databases, each in a row of its own."""
    board = drawing.empty(
        About("pgops-fleet", "pgops fleet", "grafana.md", "All nodes of all ops databases.", sql.KIND)
    )
    board = board.with_variable(drawing.sources(sql.KIND, OF_PGOPS, several=True))
    board = board.with_row(Row("$datasource").repeat("datasource"))
    board = board.with_panel(_firing()).with_panel(_evaluated()).with_panel(_recoverable(12, 4))
    shown = Columns(
        {"age of samples": "s", "connections": "percent", "disk": "percent", "delay of replay": "s"}
        | {"transaction ids": "percent"},
        {"node": TO_INSTANCE},
    )
    frame = Frame("Nodes", span=24, text="Values that are older than 30 minutes are left out.")
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.FLEET)], shown))
    for chart in charted.FLEET:
        board = board.with_panel(charts.postgresql(chart, sql.EVERY_NODE))
    return board


def instance(charts: Charts) -> Any:
    """One node: the charts of its report."""
    board = _of_a_node(About("pgops-instance", "pgops instance", "metrics.md", "The charts of one node.", sql.KIND))
    limits = drawing.limits_of(charts.metrics["disk_used_percent"])
    disks = Frame("Disks", "percent", 8, 7, limits=limits)
    board = board.with_panel(drawing.bars(disks, sql.KIND, [sql.target(sql.latest(USED, "30 minutes"))]))
    shown = Columns({"lag": "bytes", "lag in time": "s", "retained": "bytes"})
    text = "As the server of the data source sees it; without pg_monitor states and lags are hidden."
    topology = Frame("Replication", span=16, height=7, text=text)
    board = board.with_panel(drawing.listing(topology, sql.KIND, [sql.rows(sql.TOPOLOGY)], shown))
    for chart in CHARTS:
        board = board.with_panel(charts.postgresql(chart))
    collectors = Frame("Collectors, the latest last run first", span=24)
    return board.with_panel(drawing.listing(collectors, sql.KIND, [sql.rows(sql.COLLECTORS)], Columns({"age": "s"})))


def queries(charts: Charts) -> Any:
    """The statements of one node, and the load that they make."""
    board = _of_a_node(
        About(
            "pgops-queries", "pgops queries", "queries.md", "Top, slower and slow statements of one node.", sql.KIND
        )
    )
    board = board.with_variable(drawing.options("order", ["time", "calls", "rows", "io", "temp", "wal", "planning"]))
    for chart in charted.QUERIES[:2]:
        board = board.with_panel(charts.postgresql(chart))
    times = dict.fromkeys(("time", "average time", "longest time"), "ms")
    top = Columns({**times, "share": "percent", "wal": "bytes"})
    frame = Frame(
        "Top statements by ${order}", span=24, height=12, text="Over the chosen time; share is of all time."
    )
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.TOP)], top))
    slower = Columns(dict.fromkeys(("average before", "average now", "more time"), "ms"))
    frame = Frame(
        "Slower than before", span=24, text="The last 24 hours beside the 7 days before, whatever is chosen."
    )
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.REGRESSED)], slower))
    frame = Frame("Slow executions", span=24, text="See docs/queries.md for what is not in it.")
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.SLOW)], Columns({"duration": "ms"})))
    for chart in charted.QUERIES[2:]:
        board = board.with_panel(charts.postgresql(chart))
    return board


def recovery(charts: Charts) -> Any:
    """What the cluster of an ops database can be recovered from."""
    board = _of_a_source(
        About("pgops-recovery", "pgops recovery", "recovery.md", "Backups, WAL and recovery windows.", sql.KIND)
    )
    board = board.with_panel(_recoverable(24, 5))
    windows = Columns({"length": "s", "time to recover": "s"})
    frame = Frame("Recovery windows", span=12)
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.WINDOWS)], windows))
    gaps = Frame("Gaps in the WAL", span=12)
    board = board.with_panel(drawing.listing(gaps, sql.KIND, [sql.rows(sql.GAPS)], Columns({"size": "bytes"})))
    backups = Columns({"duration": "s", "stored": "bytes", "data": "bytes"})
    frame = Frame("Backups and dumps", span=24, height=10, text="Without those that have expired.")
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.BACKUPS)], backups))
    for chart in charted.RECOVERY:
        board = board.with_panel(charts.postgresql(chart, sql.EVERY_NODE))
    points = Frame("Recovery points", span=24)
    return board.with_panel(drawing.listing(points, sql.KIND, [sql.rows(sql.POINTS)], Columns()))


def alerts(_charts: Charts) -> Any:
    """What fires, and what has fired, in an ops database."""
    board = _of_a_source(
        About("pgops-alerts", "pgops alerts", "alerts.md", "What fires, and what has fired.", sql.KIND)
    )
    board = board.with_panel(_firing()).with_panel(_evaluated())
    links = {"node": TO_INSTANCE}
    frame = Frame("Firing", span=24)
    shown = Columns(links=links, severities=["severity"])
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.FIRING)], shown))
    frame = Frame("When they fired", span=24, height=10, text="The 100 that began last.")
    board = board.with_panel(drawing.severities(frame, sql.KIND, [sql.target(sql.ALERT_LINES)]))
    frame = Frame("Alerts of the chosen time", span=24, height=10)
    shown = Columns({"lasted": "s"}, links, ["severity"])
    board = board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.FIRED)], shown))
    frame = Frame("Events", span=24)
    return board.with_panel(drawing.listing(frame, sql.KIND, [sql.rows(sql.EVENT_ROWS)], Columns()))


# --- what several have


def _of_a_source(about: About) -> Any:
    board = drawing.empty(about).with_variable(drawing.sources(sql.KIND, OF_PGOPS))
    return board.annotation(drawing.events("events", sql.KIND, sql.rows(sql.EVENTS_OF_ALL)))


def _of_a_node(about: About) -> Any:
    board = drawing.empty(about).with_variable(drawing.sources(sql.KIND, OF_PGOPS))
    board = board.with_variable(drawing.choice("node", sql.KIND, sql.NODES))
    return board.annotation(drawing.events("events", sql.KIND, sql.rows(sql.EVENTS_OF_ONE)))


def _firing() -> Any:
    frame = Frame("Alerts that fire", span=8, height=4)
    return drawing.firing(frame, sql.KIND, [sql.rows(sql.FIRING_COUNT)])


def _evaluated() -> Any:
    text = "Since the rules were last evaluated: if that is long ago, the alerts are of then."
    frame = Frame("Rules evaluated before", "s", 4, 4, text, LATE)
    return drawing.numbers(frame, sql.KIND, [sql.rows(sql.EVALUATED)])


def _recoverable(span: int, height: int) -> Any:
    shown = Columns({"time to recover": "s", "backups": "bytes", "wal": "bytes"})
    frame = Frame("Can it be recovered?", span=span, height=height, text="Nothing: no repository is known.")
    return drawing.listing(frame, sql.KIND, [sql.rows(sql.RECOVERABLE)], shown)
