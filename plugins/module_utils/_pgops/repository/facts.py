# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sections ``archiving`` and ``backups`` of the facts: the WAL in the repository, what is at risk, and what can
be brought back."""

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

TAKEN = """
WITH own AS MATERIALIZED (
    SELECT s.* FROM pgops.recovery_status AS s WHERE s.generation = pgops.server_generation()
),

taken AS MATERIALIZED (
    SELECT b.*, extract(epoch FROM now() - b.ended_at)::bigint AS age_s
    FROM pgops.backup_history AS b
    WHERE (b.generation IS NULL OR b.generation = pgops.server_generation()) AND b.database_name IS NULL
),

dumped AS MATERIALIZED (
    SELECT DISTINCT ON (b.database_name) b.*
    FROM pgops.backup_history AS b
    WHERE b.generation = pgops.server_generation() AND b.database_name IS NOT NULL
        AND b.status = 'completed' AND b.damage IS NULL
    ORDER BY b.database_name, b.timeline DESC, b.wal_start_lsn DESC, b.ended_at DESC
),

undumped AS MATERIALIZED (
    SELECT DISTINCT ON (b.database_name) b.*
    FROM pgops.backup_history AS b
    WHERE b.generation = pgops.server_generation() AND b.database_name IS NOT NULL AND b.status = 'failed'
        AND (b.database_name LIKE '%\\\\x%' OR EXISTS (
            SELECT FROM pg_database AS d WHERE d.datname = b.database_name))
    ORDER BY b.database_name, b.ended_at DESC
),

newest AS MATERIALIZED (
    SELECT DISTINCT ON (t.backup_type) t.* FROM taken AS t
    WHERE t.status = 'completed' AND t.damage IS NULL
    ORDER BY t.backup_type, t.timeline DESC, t.wal_end_lsn DESC
),

base AS MATERIALIZED (
    SELECT n.* FROM newest AS n ORDER BY n.timeline DESC, n.wal_end_lsn DESC LIMIT 1
),

recovery AS MATERIALIZED (
    SELECT w.* FROM pgops.recovery_windows AS w WHERE w.generation = pgops.server_generation()
),

drilled AS MATERIALIZED (
    SELECT r.*, extract(epoch FROM now() - r.completed_at)::bigint AS age_s
    FROM pgops.restore_drills AS r
    WHERE coalesce(r.generation, pgops.server_generation()) = pgops.server_generation()
),

failure AS (
    SELECT t.* FROM taken AS t WHERE t.status = 'failed' ORDER BY t.ended_at DESC LIMIT 1
)

SELECT
    o.recoverable,
    o.obstacle,
    p.recovery,
    p.interval_hours > 0 AS drills_declared,
    p.not_run AS drills_not_run,
    (SELECT json_build_object(
        'drill', r.drill_id,
        'backup', r.backup_name,
        'node', r.node,
        'proven_at', r.completed_at,
        'proven_age_s', r.age_s,
        'rto_s', r.rto_seconds,
        'rpo_s', r.rpo_seconds,
        'rpo_bytes', r.rpo_bytes,
        'reached_lsn', r.reached_lsn,
        'timeline', r.timeline,
        'select_s', r.select_seconds,
        'copy_s', r.copy_seconds,
        'combine_s', r.combine_seconds,
        'verify_s', r.verify_seconds,
        'replay_s', r.replay_seconds,
        'start_s', r.start_seconds,
        'checks_s', r.checks_seconds
    ) FROM drilled AS r WHERE r.drill_id = p.drill_id) AS proof,
    (SELECT json_build_object(
        'drill', r.drill_id,
        'status', r.status,
        'reason', r.reason,
        'message', left(r.error_message, 500),
        'backup', r.backup_name,
        'node', r.node,
        'ended_at', r.completed_at,
        'ended_age_s', r.age_s
    ) FROM drilled AS r ORDER BY r.completed_at DESC LIMIT 1) AS drill,
    -- Corrected in 17.13 and 18.7; older ones have no incremental backups.
    (v.num >= 170000 AND v.num < 170013) OR (v.num >= 180000 AND v.num < 180007) AS incremental_unsafe,
    o.backups_seen_at AS seen_at,
    o.lost,
    o.lost_at,
    (SELECT count(*) FROM taken AS t WHERE t.status = 'completed') AS backups,
    (SELECT count(*) FROM taken AS t WHERE t.status = 'requested') AS requested,
    (o.backup_bytes + coalesce(o.wal_bytes, 0) + (
        SELECT coalesce(sum(b.backup_file_size), 0) FROM pgops.backup_history AS b
        WHERE b.generation = o.generation AND b.database_name IS NOT NULL AND b.status = 'completed'
    ))::bigint AS repository_bytes,
    (SELECT coalesce(json_agg(json_build_object(
        'type', n.backup_type,
        'backup', n.backup_id,
        'completed_at', n.completed_at,
        'completed_age_s', n.age_s,
        'stored_bytes', n.backup_file_size,
        'data_bytes', n.data_bytes,
        'duration_s', n.duration_seconds,
        'node', n.node,
        'verified_at', n.verified_at,
        'pinned', n.pinned
    ) ORDER BY n.timeline DESC, n.wal_end_lsn DESC), '[]') FROM newest AS n) AS newest,
    (SELECT coalesce(json_agg(json_build_object(
        'type', t.backup_type, 'backup', t.backup_id, 'started_at', t.started_at, 'node', t.node
    ) ORDER BY t.started_at), '[]') FROM taken AS t WHERE t.status = 'running') AS running,
    (SELECT json_build_object(
        'type', f.backup_type, 'backup', f.backup_id, 'ended_at', f.ended_at, 'failed_age_s', f.age_s,
        'message', left(f.error_message, 500), 'newest', f.ended_at > ALL (SELECT n.ended_at FROM newest AS n)
    ) FROM failure AS f) AS failure,
    (SELECT coalesce(json_agg(json_build_object(
        'timeline', w.timeline,
        'starts_at', w.starts_at,
        'ends_at', w.ends_at,
        'start_lsn', w.start_lsn,
        'end_lsn', w.end_lsn,
        'missing_wal', w.missing_wal,
        'backups', cardinality(w.backups),
        'recovery_s', w.recovery_seconds,
        'recovery_basis', w.recovery_basis
    ) ORDER BY w.timeline DESC, w.start_lsn DESC), '[]') FROM recovery AS w) AS windows,
    (SELECT coalesce(json_agg(json_build_object(
        'database', n.database_name,
        'backup', n.backup_id,
        'completed_at', n.completed_at,
        'completed_age_s', extract(epoch FROM now() - n.completed_at)::bigint,
        'stored_bytes', n.backup_file_size,
        'data_bytes', n.data_bytes,
        'duration_s', n.duration_seconds,
        'node', n.node,
        'verified_at', n.verified_at,
        'pinned', n.pinned,
        'failed_at', CASE WHEN f.ended_at > n.ended_at OR n.ended_at IS NULL THEN f.ended_at END,
        'message', CASE WHEN f.ended_at > n.ended_at OR n.ended_at IS NULL THEN left(f.error_message, 500) END
    ) ORDER BY n.database_name), '[]')
     FROM (
        SELECT coalesce(g.database_name, b.database_name) AS database_name, g.backup_id, g.completed_at,
            g.backup_file_size, g.data_bytes, g.duration_seconds, coalesce(g.node, b.node) AS node, g.verified_at,
            g.pinned, g.ended_at
        FROM dumped AS g FULL JOIN undumped AS b USING (database_name)
        ORDER BY 1 LIMIT 1000
     ) AS n LEFT JOIN undumped AS f USING (database_name)) AS dumps,
    o.recovery_seconds AS recovery_s,
    o.recovery_basis,
    (SELECT coalesce(json_agg(json_build_object(
        'part', p.part ->> 'part', 'predicted_s', p.part -> 'seconds', 'basis', p.part ->> 'basis'
    ) ORDER BY p.place), '[]')
     FROM jsonb_array_elements(o.recovery_parts) WITH ORDINALITY AS p (part, place)) AS recovery_parts,
    (SELECT pg_wal_lsn_diff(w.end_lsn, b.wal_end_lsn)::bigint
     FROM recovery AS w JOIN base AS b ON b.backup_id = ANY (w.backups)
     ORDER BY w.timeline DESC, w.start_lsn DESC LIMIT 1) AS replay_bytes
FROM (SELECT current_setting('server_version_num')::integer AS num) AS v
CROSS JOIN pgops.recovery_proof AS p LEFT JOIN own AS o ON true
"""

BACKUPS = Section(
    "backups",
    TAKEN,
    (
        *("recoverable", "obstacle", "seen_at", "lost", "lost_at", "repository_bytes", "failure", "recovery_s"),
        *("recovery_basis", "replay_bytes", "incremental_unsafe", "proof", "drill"),
    ),
    lists=("newest", "running", "windows", "dumps", "recovery_parts"),
    fixed={"recovery": "unproven", "drills_declared": False, "drills_not_run": 0, "backups": 0, "requested": 0},
)
