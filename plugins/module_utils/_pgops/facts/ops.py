# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sections that the ops database answers: what is installed in it, and how fresh its samples are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import QueryFailed
from ..opsdb.fingerprints import CATALOGUE
from ..server.session import Session
from .answer import ask, failed

MISSING = ("42P01", "3F000")
"""undefined_table, invalid_schema_name: the schema was never installed here."""

# Another major version of the server writes definitions differently: then nothing can be said about drift.
SCHEMA = f"""
WITH installed AS MATERIALIZED (
    SELECT f.object, f.sha256, f.server_major FROM pgops.installed_objects AS f
),

comparison AS (
    SELECT NOT EXISTS (
        SELECT FROM installed AS i WHERE i.server_major <> current_setting('server_version_num')::integer / 10000
    ) AS possible
)

SELECT
    current_database() AS database,
    true AS installed,
    s.migration,
    s.collection_version,
    s.migrated_at,
    s.retention_days,
    CASE WHEN c.possible THEN (
        SELECT coalesce(json_agg(coalesce(i.object, o.object) ORDER BY coalesce(i.object, o.object)), '[]')
        FROM installed AS i FULL JOIN ({CATALOGUE}) AS o ON i.object = o.object
        WHERE i.sha256 IS DISTINCT FROM o.sha256
    ) END AS drifted
FROM comparison AS c LEFT JOIN pgops.schema_status AS s ON true
"""

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


# What was archived since the catalogue was last brought up to date counts too, as far as the server knows of it.
ARCHIVING = """
WITH own AS MATERIALIZED (
    SELECT g.*,
        CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END AS written_to,
        (SELECT '0/0'::pg_lsn + g.segment_bytes * (1 + n.high * (4294967296 / g.segment_bytes) + n.low)
         FROM pg_stat_archiver AS a
         CROSS JOIN LATERAL (SELECT ('x' || substr(a.last_archived_wal, 9, 8))::bit(32)::bigint AS high,
                                    ('x' || substr(a.last_archived_wal, 17, 8))::bit(32)::bigint AS low) AS n
         WHERE NOT pg_is_in_recovery() AND a.last_archived_wal ~ '^[0-9A-F]{24}$'
           AND a.last_archived_wal LIKE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '%') AS sent_to
    FROM pgops.wal_archive_generations AS g
    WHERE g.generation = (SELECT s.system_identifier FROM pg_control_system() AS s)::text || '-'
                         || current_setting('server_version_num')::integer / 10000
)

SELECT
    o.repository,
    o.generation,
    o.catalogued_at,
    o.segment_bytes,
    o.segments,
    o.stored_bytes,
    o.continuous_since,
    o.continuous_to,
    CASE WHEN o.written_to < greatest(o.continuous_to, o.sent_to) THEN 0
         ELSE pg_wal_lsn_diff(o.written_to, greatest(o.continuous_to, o.sent_to))::bigint END AS lost_bytes,
    (SELECT coalesce(json_agg(json_build_object(
        'first_wal', w.first_wal,
        'last_wal', w.last_wal,
        'segments', w.segments,
        'wal_bytes', w.wal_bytes,
        'noticed_at', w.noticed_at
    ) ORDER BY w.first_wal DESC), '[]') FROM pgops.wal_archive_gaps AS w WHERE w.generation = o.generation) AS gaps,
    ARRAY(SELECT f.wal_filename FROM pgops.wal_archive_status AS f
          WHERE f.generation = o.generation AND f.status = 'failed' ORDER BY 1 DESC LIMIT 100) AS failed
FROM (SELECT) AS one LEFT JOIN own AS o ON true
"""

QUERIES = {"schema": SCHEMA, "monitoring": MONITORING, "archiving": ARCHIVING}


def read(session: Session, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sections of these names: asked for in one query, and where that fails one by one, each with its error."""
    queries = {name: QUERIES[name] for name in names}
    columns = [f"(SELECT to_json(s) FROM ({query}) AS s) AS {name}" for name, query in queries.items()]
    try:
        found = ask(session, f"SELECT {', '.join(columns)}")
    except QueryFailed:
        return {name: _section(session, name) for name in names}
    return {name: _finished(name, found[name]) for name in names}


def _section(session: Session, name: str) -> dict[str, Any]:
    try:
        return _finished(name, ask(session, QUERIES[name]))
    except QueryFailed as error:
        return absent(session.database)[name] if error.sqlstate in MISSING else failed(error)


def _finished(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    found = {**answer, "error": None, "hidden": {}}
    if name == "schema" and found["drifted"] is None:
        found["hidden"]["drifted"] = "installed on another major version of PostgreSQL; pg_ops_schema records it anew"
    return found


def absent(database: str) -> dict[str, dict[str, Any]]:
    """The sections where there is no ops database, or no schema in it."""
    schema = ("migration", "collection_version", "migrated_at", "retention_days", "drifted")
    monitoring = ("series", "partitions", "oldest_day", "newest_day", "store_bytes")
    archiving = ("repository", "generation", "catalogued_at", "segment_bytes", "segments", "stored_bytes")
    archived = ("continuous_since", "continuous_to", "lost_bytes")
    whole: dict[str, Any] = {"error": None, "hidden": {}}
    return {
        "schema": {"database": database, "installed": False, **dict.fromkeys(schema), **whole},
        "monitoring": {"nodes": [], "newest": [], **dict.fromkeys(monitoring), **whole},
        "archiving": {**dict.fromkeys((*archiving, *archived)), "gaps": [], "failed": [], **whole},
    }
