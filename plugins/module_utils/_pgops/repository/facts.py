# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The section ``archiving`` of the facts: the WAL in the repository, and what is at risk."""

from __future__ import annotations

from ..capabilities import Section

# WAL archived since the last update of the catalogue counts too, if the server knows about it.
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

SECTION = Section(
    "archiving",
    ARCHIVING,
    (
        "repository",
        "generation",
        "catalogued_at",
        "segment_bytes",
        "segments",
        "stored_bytes",
        "continuous_since",
        "continuous_to",
        "lost_bytes",
    ),
    lists=("gaps", "failed"),
)
