# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The section ``monitoring`` of the facts: which nodes are monitored, and how fresh the samples are."""

from __future__ import annotations

from ..capabilities import Section

MONITORING = """
WITH newest AS MATERIALIZED (
    SELECT w.node, w.collector, w.collected_at FROM pgops.collector_status AS w
)

SELECT
    (SELECT coalesce(json_agg(json_build_object(
        'node', n.node,
        'cluster', n.cluster,
        'primary', n.is_primary,
        'agent_version', nullif(n.agent_version, ''),
        'seen_age_s', extract(epoch FROM now() - n.last_seen_at)::bigint,
        'newest_age_s', (SELECT extract(epoch FROM now() - max(w.collected_at))::bigint
                         FROM newest AS w WHERE w.node = n.node)
    ) ORDER BY n.last_seen_at, n.node), '[]') FROM pgops.nodes AS n) AS nodes,
    (SELECT coalesce(json_agg(json_build_object(
        'node', w.node,
        'collector', w.collector,
        'age_s', extract(epoch FROM now() - w.collected_at)::bigint
    ) ORDER BY w.collected_at, w.node, w.collector), '[]') FROM newest AS w) AS newest,
    d.series,
    d.partitions,
    d.oldest_day,
    d.newest_day,
    d.store_bytes
FROM pgops.store_status AS d
"""

SECTION = Section(
    "monitoring",
    MONITORING,
    ("series", "partitions", "oldest_day", "newest_day", "store_bytes"),
    lists=("nodes", "newest"),
)
