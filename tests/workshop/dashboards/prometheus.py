# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dashboards of the metrics that `pgops export` writes, read through Grafana's Prometheus data source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgops.metrics import exposition
from pgops.reports.charts import CHARTS, MAXIMUM, Line

from . import charted, drawing, promql
from .charted import Charts
from .drawing import About, Columns, Frame, Limits

COLLECTED = exposition.exported_name(exposition.COLLECTED)
CLUSTERS = f'label_values({COLLECTED}{{collector="agent"}}, cluster)'
NODES_OF_ONE = f'label_values({COLLECTED}{{collector="agent",cluster="$cluster"}}, node)'
AGE = f'max by (cluster, node) (time() - last_over_time({COLLECTED}{{collector="agent",cluster=~"$clusters"}}[1d]))'
TO_INSTANCE = (
    "/d/pgops-prometheus-instance?var-datasource=${datasource}&var-cluster=${__data.fields.cluster}"
    "&var-node=${__value.raw}&${__url_time_range}"
)
LATE = Limits(300, 600)
"""Seconds: the file is written each minute, and read by each scrape."""


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
    """All nodes of all clusters."""
    board = _of_clusters(
        About("pgops-prometheus-fleet", "pgops fleet (Prometheus)", "prometheus.md", "All nodes.", promql.KIND)
    )
    board = board.with_panel(_firing())
    frame = Frame("Nodes by role", span=8, height=4)
    standby = charts.names.select("server_in_recovery", promql.EVERY_NODE)
    kinds = (("A", 0, "primaries"), ("B", 1, "standbys"))
    # Not count(), which has no answer where there is none.
    roles = [promql.now(f"sum({standby} == bool {value})", ref, name) for ref, value, name in kinds]
    board = board.with_panel(drawing.numbers(frame, promql.KIND, roles))
    frame = Frame("Clusters that cannot be recovered", span=8, height=4, limits=Limits(critical=1))
    recoverable = charts.names.select("recoverable", promql.EVERY_NODE)
    lost = f"sum(max by (cluster) ({recoverable}) == bool 0)"
    board = board.with_panel(drawing.numbers(frame, promql.KIND, [promql.now(lost, legend="clusters")]))
    frame = Frame("Age of samples in seconds, of nodes seen within a day", span=24, limits=LATE)
    shown = Columns({"Value": "s"}, {"node": TO_INSTANCE})
    board = board.with_panel(drawing.listing(frame, promql.KIND, [promql.row(AGE)], shown))
    for chart in charted.FLEET:
        board = board.with_panel(charts.prometheus(chart, promql.EVERY_NODE))
    return board


def instance(charts: Charts) -> Any:
    """One node: the charts of its report."""
    board = _of_a_node(
        About("pgops-prometheus-instance", "pgops instance (Prometheus)", "metrics.md", "One node.", promql.KIND)
    )
    used = Line("disk_used_percent", "used", "disk", MAXIMUM, summed=False)
    bars = Frame("Disks", "percentunit", 24, 5, limits=Limits(0.8, 0.9))
    disks = promql.now(charts.names.series(used), legend=f"{{{{{promql.label(used)}}}}}")
    board = board.with_panel(drawing.bars(bars, promql.KIND, [disks]))
    for chart in CHARTS:
        board = board.with_panel(charts.prometheus(chart))
    return board


def queries(charts: Charts) -> Any:
    """The load that statements make; their texts are in the ops database only."""
    text = "The load of statements; statements themselves are in the ops database only."
    board = _of_a_node(
        About("pgops-prometheus-queries", "pgops queries (Prometheus)", "queries.md", text, promql.KIND)
    )
    for chart in charted.QUERIES:
        board = board.with_panel(charts.prometheus(chart))
    return board


def recovery(charts: Charts) -> Any:
    """Backups, WAL and the time to recover of one cluster."""
    text = "Backups, WAL and recovery windows of one cluster."
    board = drawing.empty(
        About("pgops-prometheus-recovery", "pgops recovery (Prometheus)", "recovery.md", text, promql.KIND)
    )
    board = board.with_variable(drawing.sources(promql.KIND)).with_variable(
        drawing.choice("cluster", promql.KIND, CLUSTERS)
    )
    cluster = 'cluster="$cluster"'
    frame = Frame("Recoverable to the newest WAL", span=8, height=5, limits=Limits(critical=1, below=True))
    recoverable = f"max({charts.names.select('recoverable', cluster)})"
    board = board.with_panel(drawing.numbers(frame, promql.KIND, [promql.now(recoverable, legend="1: yes, 0: no")]))
    frame = Frame("The last backup failed", span=8, height=5, limits=Limits(critical=1))
    failed = f"max({charts.names.select('backup_failed', cluster)})"
    board = board.with_panel(drawing.numbers(frame, promql.KIND, [promql.now(failed, legend="1: yes, 0: no")]))
    frame = Frame("Backups in the repository", span=8, height=5)
    backups = f"max by (backup_type) ({charts.names.select('backups', cluster)})"
    board = board.with_panel(drawing.numbers(frame, promql.KIND, [promql.now(backups, legend="{{backup_type}}")]))
    for chart in charted.RECOVERY:
        board = board.with_panel(charts.prometheus(chart, cluster))
    return board


def alerts(_charts: Charts) -> Any:
    """What fires by the rule file of pgops.fleet, and what has fired."""
    text = "Alerts of the rule files that pgops_prometheus_rules_directory asks for."
    board = _of_clusters(
        About("pgops-prometheus-alerts", "pgops alerts (Prometheus)", "prometheus.md", text, promql.KIND)
    )
    board = board.with_panel(_firing())
    frame = Frame("Firing", span=16, height=8)
    shown = Columns(links={"node": TO_INSTANCE}, severities=["severity"])
    board = board.with_panel(drawing.listing(frame, promql.KIND, [promql.row(promql.FIRING)], shown))
    frame = Frame("When they fired", span=24, height=12)
    lines = promql.target(promql.ALERT_LINES.strip(), legend="{{alertname}} {{node}}")
    return board.with_panel(drawing.severities(frame, promql.KIND, [lines]))


# --- what several have


def _of_clusters(about: About) -> Any:
    board = drawing.empty(about).with_variable(drawing.sources(promql.KIND))
    return board.with_variable(drawing.choice("clusters", promql.KIND, CLUSTERS, every=True))


def _of_a_node(about: About) -> Any:
    board = drawing.empty(about).with_variable(drawing.sources(promql.KIND))
    board = board.with_variable(drawing.choice("cluster", promql.KIND, CLUSTERS))
    return board.with_variable(drawing.choice("node", promql.KIND, NODES_OF_ONE))


def _firing() -> Any:
    frame = Frame("Alerts that fire", span=8, height=4, nothing="none known")
    return drawing.firing(frame, promql.KIND, [promql.now(promql.FIRING_BY_SEVERITY, legend="{{severity}}")])
