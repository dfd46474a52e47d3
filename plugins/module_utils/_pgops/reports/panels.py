# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a report shows of a node besides its charts: lists, each with the time that it is of, or its error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import QueryFailed
from ..facts.answer import ask, failed
from ..server.session import Session
from .window import Window

MOST_TEXT = 500
"""Characters of a statement."""
RECENT = 7200
"""Seconds for which the newest sample of a series counts: most collectors run more than once in that time."""
LATE = 180
"""Seconds: a window that ended longer ago is of the past, and the sessions of now are not its."""

# All of the usage counts, also what was not stored statement by statement.
QUERIES = """
WITH total AS (
    SELECT sum(t.exec_ms) AS exec_ms
    FROM pgops.query_totals(to_timestamp(%(starts)s), to_timestamp(%(ends)s), %(node)s) AS t
),

top AS (
    SELECT q.*, row_number() OVER () AS place
    FROM pgops.top_queries('time', to_timestamp(%(starts)s), to_timestamp(%(ends)s), 15, %(node)s) AS q
)

SELECT
    (SELECT coalesce(json_agg(json_build_object(
        'queryid', t.queryid::text,
        'query', left(t.query, %(most)s),
        'databases', t.databases[1:5],
        'users', t.users[1:5],
        'calls', t.calls,
        'exec_ms', t.exec_ms,
        'average_ms', t.exec_ms / nullif(t.calls, 0),
        'longest_ms', t.max_exec_ms,
        'rows', t.row_count,
        'io_blocks', t.io_blks,
        'temp_blocks', t.temp_blks,
        'wal_bytes', t.wal_bytes,
        'share_percent', 100 * t.exec_ms / nullif((SELECT a.exec_ms FROM total AS a), 0)
    ) ORDER BY t.place), '[]') FROM top AS t) AS rows,
    (
        SELECT extract(EPOCH FROM max(c.ended_at))::bigint FROM pgops.query_coverage AS c
        WHERE c.node = %(node)s AND c.ended_at <= to_timestamp(%(ends)s)
    ) AS newest
"""

REGRESSIONS = """
SELECT coalesce(json_agg(json_build_object(
    'queryid', r.queryid::text,
    'query', left(r.query, %(most)s),
    'calls', r.calls_now,
    'average_ms_before', r.avg_ms_before,
    'average_ms', r.avg_ms_now,
    'factor', r.factor,
    'more_ms', r.more_ms
) ORDER BY r.more_ms DESC), '[]') AS rows,
extract(EPOCH FROM clock_timestamp())::bigint AS newest
FROM (SELECT q.* FROM pgops.query_regressions(24, 7, 1.5, 10, %(node)s) AS q LIMIT 10) AS r
"""

# Thresholds colour, and do not alert; objects without thresholds are listed for what they are.
CARE = """
WITH watched AS (
    SELECT m.metric_name, m.unit, m.direction, m.warning, m.critical
    FROM pgops.metrics AS m
    WHERE
        m.kind = 'gauge'
        AND (coalesce(m.warning, m.critical) IS NOT NULL OR m.metric_name = ANY (%(listed)s))
        AND m.metric_name <> ALL (%(unlisted)s)
),

found AS (
    SELECT
        w.metric_name, w.unit, v.database_name, v.schema_name, v.table_name, v.index_name, v.additional_info,
        v.last, v.ended_at,
        CASE
            WHEN w.direction IS NULL THEN CASE WHEN v.last > 0 THEN 'notice' END
            WHEN w.direction = 'above' AND v.last > w.critical OR w.direction = 'below' AND v.last < w.critical
                THEN 'critical'
            WHEN w.direction = 'above' AND v.last > w.warning OR w.direction = 'below' AND v.last < w.warning
                THEN 'warning'
        END AS level
    FROM watched AS w
    CROSS JOIN LATERAL pgops.metric_values(
        w.metric_name, to_timestamp(%(ends)s) - make_interval(secs => %(recent)s), to_timestamp(%(ends)s)
    ) AS v
    WHERE v.node = %(node)s
),

listed AS (
    SELECT f.*, row_number() OVER (ORDER BY f.level, f.metric_name, f.last DESC) AS place
    FROM found AS f WHERE f.level IS NOT NULL
)

SELECT
    (SELECT coalesce(json_agg(json_build_object(
        'level', l.level,
        'metric', l.metric_name,
        'value', l.last,
        'unit', l.unit,
        'database', l.database_name,
        'object', nullif(concat_ws('.', l.schema_name, coalesce(l.index_name, l.table_name)), ''),
        'labels', nullif(l.additional_info, '{}'::jsonb),
        'newest', extract(EPOCH FROM l.ended_at)::bigint
    ) ORDER BY l.place), '[]') FROM listed AS l WHERE l.place <= 60) AS rows,
    greatest((SELECT count(*) FROM listed) - 60, 0) AS left_out,
    (SELECT extract(EPOCH FROM max(f.ended_at))::bigint FROM found AS f) AS newest
"""
LISTED = ["invalid_index", "duplicate_index_bytes", "unused_index_bytes"]
UNLISTED = ["table_size_mb", "database_size_mb"]
"""Their thresholds are the user's to set; the shipped ones say nothing of need."""

EVENTS = """
SELECT coalesce(json_agg(json_build_object(
    'at', extract(EPOCH FROM e.occurred_at)::bigint,
    'kind', e.kind,
    'node', e.node,
    'text', left(e.event_text, %(most)s)
) ORDER BY e.occurred_at DESC), '[]') AS rows,
extract(EPOCH FROM clock_timestamp())::bigint AS newest
FROM (
    SELECT v.* FROM pgops.events AS v
    WHERE
        v.occurred_at > to_timestamp(%(starts)s) AND v.occurred_at <= to_timestamp(%(ends)s)
        AND (v.node IS NULL OR v.node = %(node)s)
    ORDER BY v.occurred_at DESC LIMIT 100
) AS e
"""

ALERTS = """
SELECT coalesce(json_agg(json_build_object(
    'alert', a.alert_id,
    'rule', a.rule_name,
    'severity', a.severity_level,
    'status', a.alert_status,
    'labels', a.additional_context,
    'value', a.metric_value,
    'threshold', a.threshold_value,
    'fired_at', extract(EPOCH FROM a.fired_at)::bigint,
    'ended_at', extract(EPOCH FROM a.ended_at)::bigint,
    'acknowledged_by', a.acknowledged_by
) ORDER BY a.fired_at DESC), '[]') AS rows,
(SELECT extract(EPOCH FROM s.evaluated_at)::bigint FROM pgops.alerting_status AS s) AS newest
FROM (
    SELECT h.* FROM pgops.alert_history AS h
    WHERE
        h.fired_at <= to_timestamp(%(ends)s) AND coalesce(h.ended_at, 'infinity') > to_timestamp(%(starts)s)
        AND h.node = %(node)s
    ORDER BY h.fired_at DESC LIMIT 100
) AS a
"""

BLOCKING = """
SELECT s.scene -> 'rows' AS rows, (s.scene ->> 'left_out')::integer AS left_out,
extract(EPOCH FROM clock_timestamp())::bigint AS newest
FROM (SELECT pgops.scene_blocking(%(texts)s)) AS s (scene)
"""

PROGRESS = """
SELECT s.scene -> 'rows' AS rows, (s.scene ->> 'left_out')::integer AS left_out,
extract(EPOCH FROM clock_timestamp())::bigint AS newest
FROM (SELECT pgops.scene_progress()) AS s (scene)
"""

PANELS = {
    "alerts": ALERTS,
    "events": EVENTS,
    "care": CARE,
    "queries": QUERIES,
    "regressions": REGRESSIONS,
    "blocking": BLOCKING,
    "progress": PROGRESS,
}
OF_NOW = ("regressions", "blocking", "progress")
"""Those that the store does not have of the past."""


def read(session: Session, node: str, window: Window, texts: bool) -> dict[str, Any]:
    """By the name of each panel its ``rows``, ``left_out`` where that is not all, ``newest`` (seconds since 1970,
    None where nothing was measured) and ``error``, since one that fails loses itself only. ``texts``: whether
    statements of sessions may be shown. Of a moment in the past, those of now are absent."""
    params = {
        **window.bounds(),
        "node": node,
        "most": MOST_TEXT,
        "recent": RECENT,
        "listed": LISTED,
        "unlisted": UNLISTED,
        "texts": texts,
    }
    past = window.now - window.ends > LATE
    return {name: _panel(session, PANELS[name], params) for name in PANELS if not (past and name in OF_NOW)}


def _panel(session: Session, query: str, params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {**ask(session, query, params), "error": None}
    except QueryFailed as error:
        return {"rows": [], "newest": None, **failed(error)}
