# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Queries of the ops database for Grafana's PostgreSQL data source. Pure: texts.

Grafana puts `$__timeFrom()`, `$__timeTo()` and `$__interval` in, and for `${node:sqlstring}` what is chosen, quoted.
"""

from __future__ import annotations

from typing import Any

from pgops.metrics.collectors import Metric
from pgops.reports.charts import MAXIMUM, Line

from . import drawing

KIND = "grafana-postgresql-datasource"
MOST_LINES = 20
"""Of one metric in a chart, the largest."""
BY_NODE = "node"
ONE_NODE = "${node:sqlstring}"
EVERY_NODE = "SELECT n.node FROM pgops.nodes AS n"

# Each step is there for each line, with NULL where nothing was measured, so that Grafana draws a gap. The join with
# pgops.metrics leaves out what this installation does not have.
SERIES = """\
WITH bounds AS (
    SELECT $__timeFrom()::timestamptz AS starts, $__timeTo()::timestamptz AS ends, '$__interval'::interval AS step
),

found AS (
    SELECT
        date_bin(b.step, v.ended_at - interval '1 microsecond', b.starts) AS began,
        {name} AS name,
        {value} AS value
    FROM bounds AS b
    INNER JOIN pgops.metrics AS m ON m.metric_name = '{metric}' AND m.kind = '{kind}'
    CROSS JOIN LATERAL pgops.{function}(m.metric_name, b.starts, b.ends, b.step) AS v
    WHERE v.node IN ({nodes})
    GROUP BY 1, 2
),

line AS (
    SELECT f.name FROM found AS f WHERE f.name IS NOT NULL GROUP BY f.name ORDER BY max(f.value) DESC LIMIT {most}
)

SELECT s.began AS time, l.name AS metric, f.value
FROM bounds AS b
CROSS JOIN LATERAL generate_series(b.starts, b.ends, b.step) AS s (began)
CROSS JOIN line AS l
LEFT JOIN found AS f ON f.began = s.began AND f.name = l.name
ORDER BY 1, 2
"""

LATEST = """\
SELECT {name} AS metric, {value} AS value, now() AS time
FROM pgops.metrics AS m
CROSS JOIN LATERAL pgops.metric_values(m.metric_name, now() - interval '{age}', now()) AS v
WHERE m.metric_name = '{metric}' AND m.kind = 'gauge' AND v.node IN ({nodes})
GROUP BY 1
ORDER BY 2 DESC
LIMIT {most}
"""


def target(text: str, ref: str = "A", form: str = "time_series") -> Any:
    """A query of a panel; the SDK has no builder for those of PostgreSQL."""
    return drawing.Plain(
        {
            "refId": ref,
            "rawSql": text.strip(),
            "rawQuery": True,
            "editorMode": "code",
            "format": form,
            "datasource": {"type": KIND, "uid": drawing.SOURCE},
        }
    )


def rows(text: str) -> Any:
    """The query of a table, a variable's or an annotation's."""
    return target(text, form="table")


def series(line: Line, metric: Metric, nodes: str = ONE_NODE) -> str:
    """A line of a chart over time, in the metric's unit: a gauge by its values, a counter by its rate per second."""
    if metric.kind == "counter":
        function, value = "metric_rates", "sum(v.rate)"
    else:
        fold, column = "sum" if line.summed else "max", "maximum" if line.take == MAXIMUM else "average"
        function, value = "metric_values", f"{fold}(v.{column})"
    given = {"metric": metric.name, "kind": metric.kind, "function": function, "value": value, "most": MOST_LINES}
    return SERIES.format(**given, name=_name(line), nodes=nodes)


def latest(line: Line, age: str, nodes: str = ONE_NODE) -> str:
    """The last values of a gauge, none of them older than ``age`` (an interval of PostgreSQL)."""
    value = f"{'sum' if line.summed else 'max'}(v.last)"
    return LATEST.format(metric=line.metric, name=_name(line), value=value, age=age, nodes=nodes, most=MOST_LINES)


def _name(line: Line) -> str:
    """What tells lines of a metric apart."""
    own = {"": f"'{line.name}'::text", BY_NODE: "v.node", "database": "v.database_name"}
    return own.get(line.by, f"v.additional_info ->> '{line.by}'")


# --- variables

NODES = "SELECT node FROM pgops.nodes ORDER BY is_primary DESC NULLS LAST, node"

# --- annotations

EVENTS = """\
SELECT e.occurred_at AS time, e.kind || coalesce(' ' || e.node, '') || ': ' || e.event_text AS text, e.kind AS tags
FROM pgops.events AS e
WHERE e.occurred_at > $__timeFrom()::timestamptz AND e.occurred_at <= $__timeTo()::timestamptz {of}
ORDER BY e.occurred_at DESC
LIMIT 200
"""
EVENTS_OF_ALL = EVENTS.format(of="")
EVENTS_OF_ONE = EVENTS.format(of="AND coalesce(e.node, ${node:sqlstring}) = ${node:sqlstring}")

# --- tables

# Where no rule was ever evaluated, nothing is known of alerts, and no row or NULL says so.
FLEET = """\
SELECT
    n.node,
    n.cluster,
    CASE WHEN n.is_primary THEN 'primary' WHEN NOT n.is_primary THEN 'standby' ELSE 'unknown' END AS role,
    extract(EPOCH FROM now() - c.collected_at)::double precision AS "age of samples",
    a.critical,
    a.warning,
    l.connections_used_percent AS connections,
    l.disk_used_percent AS disk,
    l.replay_delay_seconds AS "delay of replay",
    l.xid_wraparound_percent AS "transaction ids",
    n.agent_version AS agent
FROM pgops.nodes AS n
LEFT JOIN LATERAL (
    SELECT max(s.collected_at) AS collected_at FROM pgops.collector_status AS s WHERE s.node = n.node
) AS c ON TRUE
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE h.severity_level = 'critical') AS critical,
        count(*) FILTER (WHERE h.severity_level = 'warning') AS warning
    FROM pgops.alerting_status AS s
    LEFT JOIN pgops.alert_history AS h ON h.node = n.node AND h.fired_at IS NOT NULL AND h.ended_at IS NULL
    WHERE s.evaluated_at IS NOT NULL
    GROUP BY s.evaluated_at
) AS a ON TRUE
LEFT JOIN (
    SELECT
        v.node,
        max(v.last) FILTER (WHERE m.metric_name = 'connections_used_percent') AS connections_used_percent,
        max(v.last) FILTER (WHERE m.metric_name = 'disk_used_percent') AS disk_used_percent,
        max(v.last) FILTER (WHERE m.metric_name = 'replay_delay_seconds') AS replay_delay_seconds,
        max(v.last) FILTER (WHERE m.metric_name = 'xid_wraparound_percent') AS xid_wraparound_percent
    FROM pgops.metrics AS m
    CROSS JOIN LATERAL pgops.metric_values(m.metric_name, now() - interval '30 minutes', now()) AS v
    WHERE
        m.metric_name IN (
            'connections_used_percent', 'disk_used_percent', 'replay_delay_seconds', 'xid_wraparound_percent'
        )
    GROUP BY v.node
) AS l ON n.node = l.node
ORDER BY a.critical DESC NULLS LAST, a.warning DESC NULLS LAST, n.cluster, n.node
"""

EVALUATED = 'SELECT extract(EPOCH FROM s.age)::double precision AS "age" FROM pgops.alerting_status AS s'
FIRING_COUNT = """\
SELECT
    count(*) FILTER (WHERE h.severity_level = 'critical') AS critical,
    count(*) FILTER (WHERE h.severity_level = 'warning') AS warning
FROM pgops.alerting_status AS s
LEFT JOIN pgops.alert_history AS h ON h.fired_at IS NOT NULL AND h.ended_at IS NULL
WHERE s.evaluated_at IS NOT NULL
GROUP BY s.evaluated_at
"""
FIRING = """\
SELECT
    h.fired_at AS since,
    h.severity_level AS severity,
    h.rule_name AS rule,
    h.cluster,
    h.node,
    h.additional_context::text AS labels,
    h.metric_value AS value,
    h.threshold_value AS threshold,
    h.alert_status AS status,
    h.acknowledged_by AS "acknowledged by"
FROM pgops.alert_history AS h
WHERE h.fired_at IS NOT NULL AND h.ended_at IS NULL
ORDER BY h.severity_level, h.fired_at
LIMIT 200
"""
FIRED = """\
SELECT
    h.fired_at AS since,
    h.ended_at AS until,
    extract(EPOCH FROM coalesce(h.ended_at, now()) - h.fired_at)::double precision AS lasted,
    h.severity_level AS severity,
    h.rule_name AS rule,
    h.cluster,
    h.node,
    h.additional_context::text AS labels,
    h.metric_value AS value,
    h.threshold_value AS threshold,
    h.reason,
    h.notification_channels_used::text AS "told to"
FROM pgops.alert_history AS h
WHERE
    h.fired_at <= $__timeTo()::timestamptz
    AND coalesce(h.ended_at, 'infinity') > $__timeFrom()::timestamptz
ORDER BY h.fired_at DESC
LIMIT 500
"""
ALERT_LINES = """\
WITH bounds AS (
    SELECT $__timeFrom()::timestamptz AS starts, $__timeTo()::timestamptz AS ends, '$__interval'::interval AS step
),

fired AS (
    SELECT
        h.rule_name || coalesce(' ' || h.node, '') AS name,
        CASE h.severity_level WHEN 'critical' THEN 2 ELSE 1 END AS severity,
        h.fired_at,
        coalesce(h.ended_at, 'infinity') AS ended_at
    FROM pgops.alert_history AS h
    CROSS JOIN bounds AS b
    WHERE h.fired_at <= b.ends AND coalesce(h.ended_at, 'infinity') > b.starts
    ORDER BY h.fired_at DESC
    LIMIT 100
)

SELECT s.began AS time, n.name AS metric, max(f.severity) AS value
FROM bounds AS b
CROSS JOIN LATERAL generate_series(b.starts, b.ends, b.step) AS s (began)
CROSS JOIN (SELECT DISTINCT g.name FROM fired AS g) AS n
LEFT JOIN fired AS f ON f.name = n.name AND f.fired_at < s.began + b.step AND f.ended_at > s.began
GROUP BY 1, 2
ORDER BY 1, 2
"""
EVENT_ROWS = """\
SELECT e.occurred_at AS time, e.kind, e.cluster, e.node, e.event_text AS event
FROM pgops.events AS e
WHERE e.occurred_at > $__timeFrom()::timestamptz AND e.occurred_at <= $__timeTo()::timestamptz
ORDER BY e.occurred_at DESC
LIMIT 500
"""

TOPOLOGY = """\
SELECT
    t.member, t.node, t.upstream, t.state, t.sync_state AS sync, t.lag_bytes AS "lag", t.lag_seconds AS "lag in time",
    t.slot_name AS slot, t.retained_bytes AS retained, t.remark
FROM pgops.replication_topology AS t
ORDER BY t.member, t.node
"""
COLLECTORS = """\
SELECT s.collector, s.collected_at AS "last run", extract(EPOCH FROM s.age)::double precision AS age
FROM pgops.collector_status AS s
WHERE s.node = ${node:sqlstring}
ORDER BY s.age DESC
"""

TOP = """\
SELECT
    left(q.query, 500) AS query,
    q.calls,
    q.exec_ms AS time,
    q.exec_ms / nullif(q.calls, 0) AS "average time",
    q.max_exec_ms AS "longest time",
    100 * q.exec_ms / nullif((
        SELECT sum(t.exec_ms)
        FROM pgops.query_totals($__timeFrom()::timestamptz, $__timeTo()::timestamptz, ${node:sqlstring}) AS t
    ), 0) AS share,
    q.row_count AS rows,
    q.io_blks AS "blocks read and written",
    q.temp_blks AS "temporary blocks",
    q.wal_bytes AS wal,
    array_to_string(q.databases, ', ') AS databases,
    array_to_string(q.users, ', ') AS users,
    q.queryid::text AS queryid
FROM pgops.top_queries(
    ${order:sqlstring}, $__timeFrom()::timestamptz, $__timeTo()::timestamptz, 50, ${node:sqlstring}
) AS q
"""
REGRESSED = """\
SELECT
    left(r.query, 500) AS query,
    r.calls_now AS calls,
    r.avg_ms_before AS "average before",
    r.avg_ms_now AS "average now",
    r.factor,
    r.more_ms AS "more time",
    r.queryid::text AS queryid
FROM pgops.query_regressions(24, 7, 1.5, 10, ${node:sqlstring}) AS r
LIMIT 50
"""
SLOW = """\
SELECT
    s.executed_at AS time,
    s.execution_time_ms AS duration,
    CASE WHEN NOT s.time_is_exact THEN 'at least' END AS exact,
    s.database_name AS database,
    s.user_name AS "user",
    s.application_name AS application,
    s.rows_returned AS rows,
    left(s.query_text, 500) AS query
FROM pgops.slow_query_log AS s
WHERE
    s.node = ${node:sqlstring}
    AND s.executed_at > $__timeFrom()::timestamptz AND s.executed_at <= $__timeTo()::timestamptz
ORDER BY s.execution_time_ms DESC
LIMIT 100
"""

RECOVERABLE = """\
SELECT
    r.generation,
    r.recoverable,
    r.obstacle,
    r.recovery_seconds AS "time to recover",
    r.recovery_basis AS basis,
    r.backup_bytes AS backups,
    r.wal_bytes AS wal,
    r.backups_seen_at AS "last look",
    r.lost,
    r.lost_at AS "lost at"
FROM pgops.recovery_status AS r
ORDER BY r.backups_seen_at DESC NULLS LAST
"""
WINDOWS = """\
SELECT
    w.timeline,
    w.starts_at AS "from",
    w.ends_at AS "to",
    extract(EPOCH FROM w.ends_at - w.starts_at)::double precision AS length,
    w.newest,
    w.missing_wal AS "missing WAL",
    w.recovery_seconds AS "time to recover",
    w.generation
FROM pgops.recovery_windows AS w
ORDER BY w.ends_at DESC NULLS LAST
LIMIT 100
"""
BACKUPS = """\
SELECT
    b.started_at AS started,
    b.backup_type AS type,
    b.backup_method AS method,
    b.database_name AS database,
    b.status,
    b.duration_seconds AS duration,
    b.backup_file_size AS stored,
    b.data_bytes AS data,
    b.verified_at AS verified,
    b.retention_until AS "kept until",
    b.pinned,
    b.error_message AS error,
    b.node
FROM pgops.backup_history AS b
WHERE b.status <> 'expired'
ORDER BY coalesce(b.started_at, b.requested_at) DESC
LIMIT 200
"""
GAPS = """\
SELECT
    g.noticed_at AS noticed,
    g.first_wal AS "first",
    g.last_wal AS "last",
    g.segments,
    g.wal_bytes AS size,
    g.generation
FROM pgops.wal_archive_gaps AS g
ORDER BY g.noticed_at DESC
LIMIT 100
"""
POINTS = """\
SELECT
    p.created_at AS created,
    p.recovery_name AS name,
    p.description,
    p.created_by AS "by",
    p.obstacle,
    p.target_lsn::text AS lsn
FROM pgops.recovery_points AS p
ORDER BY p.created_at DESC
LIMIT 100
"""
