# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The section ``alerts`` of the facts: what fires, what may soon, and whether rules are evaluated. And what they say
of the watch on a host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..capabilities import Section
from ..errors import PgOpsError
from ..instance.layout import Layout
from . import channels, ledger
from .channels import Channel

ALERTS = """
WITH open AS MATERIALIZED (
    SELECT a.* FROM pgops.alert_history AS a WHERE a.ended_at IS NULL
),

ruled AS MATERIALIZED (
    SELECT r.source, count(*) AS rules, count(*) FILTER (WHERE r.is_enabled) AS enabled
    FROM pgops.alert_rules AS r GROUP BY r.source
)

SELECT
    s.evaluated_at,
    extract(epoch FROM s.age)::bigint AS evaluated_age_s,
    (SELECT coalesce(json_agg(json_build_object(
        'alert', f.alert_id,
        'rule', f.rule_name,
        'severity', f.severity_level,
        'status', f.alert_status,
        'node', f.node,
        'labels', f.additional_context,
        'metric', f.metric_name,
        'value', f.metric_value,
        'threshold', f.threshold_value,
        'fired_at', f.fired_at,
        'flapping', f.flapping,
        'acknowledged_by', f.acknowledged_by
    ) ORDER BY f.severity_level = 'critical' DESC, f.fired_at, f.alert_id), '[]') FROM (
        SELECT o.* FROM open AS o WHERE o.fired_at IS NOT NULL
        ORDER BY o.severity_level = 'critical' DESC, o.fired_at, o.alert_id LIMIT 1000
    ) AS f) AS firing,
    (SELECT count(*) FROM open AS o WHERE o.fired_at IS NOT NULL) AS firing_count,
    (SELECT count(*) FROM open AS o WHERE o.fired_at IS NULL) AS pending_count,
    (SELECT coalesce(json_agg(json_build_object(
        'source', r.source, 'rules', r.rules, 'enabled', r.enabled
    ) ORDER BY r.source), '[]') FROM ruled AS r) AS rules
FROM pgops.alerting_status AS s
"""

SECTION = Section(
    "alerts",
    ALERTS,
    ("evaluated_at", "evaluated_age_s"),
    lists=("firing", "rules"),
    fixed={"firing_count": 0, "pending_count": 0},
)


def watch(layout: Layout) -> dict[str, Any]:
    """What the watch on this host remembers, and whom it tells: the object ``jobs.watch``. For root or the agent's
    user, as whom it has to be read."""
    book, now = ledger.opened(layout), time.time()
    book.load()
    kinds = {channel.kind for channel in _channels(layout).values()}
    return {
        "looked_at": _time(book.looked),
        "looked_age_s": None if book.looked is None else max(0, round(now - book.looked)),
        "firing": sorted(one.rule for one in book.alerts if one.fires),
        "tells": bool(kinds & {"apprise", "alertmanager"}),
        "unwatched": "heartbeat" not in kinds,
        "beat_at": _time(book.beat),
    }


def _channels(layout: Layout) -> Mapping[str, Channel]:
    """Those whose addresses can be used; the watch says itself what is wrong with others."""
    try:
        return channels.load(layout.channels)[0]
    except PgOpsError:
        return {}


def _time(day: float | None) -> str | None:
    return None if day is None else datetime.fromtimestamp(day, timezone.utc).isoformat()
