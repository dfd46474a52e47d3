# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sections that PostgreSQL itself answers, whatever is installed in it: one query each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..server import managers
from ..server.session import Session
from .answer import hide, section

NO_SETTINGS = "needs the role pg_read_all_settings (or pg_monitor)"
NO_STATISTICS = "needs the role pg_read_all_stats (or pg_monitor)"

SETTINGS = (
    "archive_mode",
    "archive_timeout",
    "autovacuum",
    "autovacuum_freeze_max_age",
    "autovacuum_max_workers",
    "checkpoint_completion_target",
    "checkpoint_timeout",
    "compute_query_id",
    "effective_cache_size",
    "fsync",
    "full_page_writes",
    "hot_standby_feedback",
    "huge_pages",
    "idle_in_transaction_session_timeout",
    "io_method",
    "listen_addresses",
    "log_min_duration_statement",
    "maintenance_work_mem",
    "max_connections",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "max_wal_size",
    "max_worker_processes",
    "password_encryption",
    "shared_buffers",
    "shared_preload_libraries",
    "ssl",
    "synchronous_commit",
    "synchronous_standby_names",
    "track_io_timing",
    "wal_keep_size",
    "wal_level",
    "work_mem",
)

SERVER = """
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::integer AS version_num,
    CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS role,
    (SELECT c.system_identifier::text FROM pg_control_system() AS c) AS system_identifier,
    (SELECT c.timeline_id FROM pg_control_checkpoint() AS c) AS timeline,
    pg_postmaster_start_time() AS started_at,
    extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::bigint AS uptime_s,
    pg_conf_load_time() AS configuration_loaded_at,
    CASE WHEN may.see_settings THEN current_setting('data_directory') END AS data_directory,
    CASE WHEN may.see_settings THEN current_setting('config_file') END AS config_file,
    nullif(current_setting('cluster_name'), '') AS cluster_name,
    (SELECT pg_encoding_to_char(d.encoding) FROM pg_database AS d WHERE d.datname = 'template1') AS encoding,
    current_setting('data_checksums') = 'on' AS data_checksums,
    CASE WHEN pg_is_in_recovery() THEN json_build_object(
        'paused', pg_is_wal_replay_paused(),
        'receive_lsn', pg_last_wal_receive_lsn(),
        'replay_lsn', pg_last_wal_replay_lsn(),
        'last_replayed_at', pg_last_xact_replay_timestamp()
    ) END AS recovery,
    current_user AS login_role,
    current_setting('is_superuser') = 'on' AS login_superuser,
    may.see_settings,
    may.see_statistics,
    -- A database of another owner is not ours: what a superuser reads there may run its owner's functions.
    (
        SELECT has_database_privilege(d.oid, 'CONNECT') FROM pg_database AS d
        WHERE d.datname = %s AND pg_get_userbyid(d.datdba) = 'pgops_owner'
    ) AS ops_database,
    (SELECT to_json(m) FROM ({neighbours}) AS m) AS manager
FROM (
    SELECT
        pg_has_role('pg_read_all_settings', 'USAGE') AS see_settings,
        pg_has_role('pg_read_all_stats', 'USAGE') AS see_statistics
) AS may
"""

# reset_val: the value with which sessions start, not the one that this session has set.
PARAMETERS = """
WITH parameter AS MATERIALIZED (
    SELECT p.name, p.reset_val, p.unit, p.source, p.pending_restart
    FROM pg_settings AS p
    WHERE p.name = ANY (%s) OR p.pending_restart
)

SELECT
    (SELECT json_object_agg(p.name, json_build_object('value', p.reset_val, 'unit', p.unit, 'source', p.source))
     FROM parameter AS p WHERE p.name = ANY (%s)) AS parameters,
    (SELECT coalesce(json_agg(p.name ORDER BY p.name), '[]')
     FROM parameter AS p WHERE p.pending_restart) AS pending_restart
"""

# The oldest come first: if the list is cut, they remain.
DATABASES = """
SELECT
    count(*) AS total,
    max(age(d.datfrozenxid)) AS oldest_xid_age,
    json_agg(json_build_object(
        'name', d.datname,
        'owner', pg_get_userbyid(d.datdba),
        'encoding', pg_encoding_to_char(d.encoding),
        'collation', d.datcollate,
        'template', d.datistemplate,
        'connections_allowed', d.datallowconn,
        'connection_limit', nullif(d.datconnlimit, -1),
        'connect', has_database_privilege(d.oid, 'CONNECT'),
        'xid_age', age(d.datfrozenxid),
        'mxid_age', mxid_age(d.datminmxid),
        'size_bytes', CASE
            -- NULL: dropped meanwhile, of which the size is an error; 0 that its files cannot be read
            WHEN %s AND has_database_privilege(d.oid, 'CONNECT') IS NOT NULL
                AND (has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE'))
                THEN nullif(pg_database_size(d.oid), 0)
        END
    ) ORDER BY age(d.datfrozenxid) DESC, d.datname) AS list
FROM pg_database AS d
"""

# Here and below the functions under pg_stat_activity and pg_stat_replication: the views' joins would cost more than
# all the rest.
CONNECTIONS = """
WITH session AS MATERIALIZED (
    SELECT a.state, a.wait_event_type, a.xact_start, pg_has_role('pg_read_all_stats', 'USAGE') AS seen
    FROM pg_stat_get_activity(NULL) AS a
    WHERE a.pid <> pg_backend_pid() AND CASE
        WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN a.backend_type = 'client backend'
        ELSE a.usesysid IS NOT NULL AND a.datid IS NOT NULL
    END
)

SELECT
    count(*) AS total,
    count(*) FILTER (WHERE state = 'active') AS active,
    count(*) FILTER (WHERE state = 'idle') AS idle,
    count(*) FILTER (WHERE state IN ('idle in transaction', 'idle in transaction (aborted)')) AS idle_in_transaction,
    count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting_for_locks,
    extract(epoch FROM clock_timestamp() - min(xact_start))::bigint AS longest_transaction_s,
    current_setting('max_connections')::integer AS max,
    current_setting('superuser_reserved_connections')::integer
    + coalesce(current_setting('reserved_connections', true)::integer, 0) AS reserved
FROM session
"""

REPLICATION = """
WITH here AS MATERIALIZED (
    SELECT CASE
        WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        ELSE pg_current_wal_lsn()
    END AS lsn
)

SELECT
    h.lsn,
    (SELECT coalesce(json_agg(json_build_object(
        'name', a.application_name,
        'address', host(a.client_addr),
        'state', r.state,
        'sync_state', r.sync_state,
        'sent_lag_bytes', pg_wal_lsn_diff(h.lsn, r.sent_lsn)::bigint,
        'replay_lag_bytes', pg_wal_lsn_diff(h.lsn, r.replay_lsn)::bigint,
        'replay_lag_s', round(extract(epoch FROM r.replay_lag), 3)
    ) ORDER BY a.application_name, r.pid), '[]')
     FROM pg_stat_get_wal_senders() AS r INNER JOIN pg_stat_get_activity(NULL) AS a ON r.pid = a.pid) AS standbys,
    (SELECT json_build_object(
        'status', w.status,
        'sender_host', w.sender_host,
        'sender_port', w.sender_port,
        'slot', w.slot_name,
        'last_message_age_s', round(extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time), 3),
        'replay_lag_bytes', pg_wal_lsn_diff(h.lsn, pg_last_wal_replay_lsn())::bigint
    ) FROM pg_stat_wal_receiver AS w) AS receiver,
    (SELECT coalesce(json_agg(json_build_object(
        'name', s.slot_name,
        'type', s.slot_type,
        'database', s.database,
        'active', s.active,
        'temporary', s.temporary,
        'wal_status', s.wal_status,
        'retained_bytes', k.bytes
    ) ORDER BY k.bytes DESC NULLS LAST, s.slot_name), '[]')
     FROM pg_replication_slots AS s
     -- A lost slot retains nothing, though most still have a restart_lsn.
     CROSS JOIN LATERAL (
        SELECT CASE WHEN s.wal_status IS DISTINCT FROM 'lost' THEN (h.lsn - s.restart_lsn)::bigint END AS bytes
     ) AS k) AS slots
FROM here AS h
"""

ARCHIVER = """
SELECT
    current_setting('archive_mode') AS mode,
    coalesce(current_setting('archive_command') NOT IN ('', '(disabled)'), false)
    OR coalesce(current_setting('archive_library', true), '') <> '' AS configured,
    a.archived_count,
    a.last_archived_wal,
    a.last_archived_time AS last_archived_at,
    extract(epoch FROM clock_timestamp() - a.last_archived_time)::bigint AS last_archived_age_s,
    a.failed_count,
    a.last_failed_wal,
    a.last_failed_time AS last_failed_at,
    coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false) AS failing,
    a.stats_reset AS counted_since
FROM pg_stat_archiver AS a
"""


@dataclass(frozen=True)
class Server:
    """The section ``server``, and what the other sections need to know of it. ``ops_database``: whether the role may
    connect to the ops database; None if there is none."""

    section: dict[str, Any]
    version: str
    sees_settings: bool
    sees_statistics: bool
    ops_database: bool | None


def server(session: Session, ops_database: str) -> Server:
    """Identity of the server, and what the role may see; if that fails, the rest continues as for a role without
    rights."""
    # Percent signs are doubled because the query takes a parameter.
    query = SERVER.replace("{neighbours}", managers.READ.replace("%", "%%"))
    found = section(session, query, [ops_database])
    version = f"{session.major}.{session.version_num % 10000}"
    if found["error"]:
        return Server(found, version, False, False, None)
    sees_settings, sees_statistics, ops = (
        found.pop(key) for key in ("see_settings", "see_statistics", "ops_database")
    )
    found["manager"] = managers.recognised(found["manager"], session) or None
    if not sees_settings:
        hide(found, ["data_directory", "config_file"], NO_SETTINGS)
    return Server(found, found["version"], sees_settings, sees_statistics, ops)


def settings(session: Session, known: Server) -> dict[str, Any]:
    """The settings that matter for a fleet, and which wait for a restart."""
    found = section(session, PARAMETERS, [list(SETTINGS), list(SETTINGS)])
    if found["error"]:
        return found
    found["parameters"] = {**dict.fromkeys(SETTINGS), **(found["parameters"] or {})}
    unseen = [f"parameters.{name}" for name in ("shared_preload_libraries",) if found["parameters"][name] is None]
    return found if known.sees_settings else hide(found, unseen, NO_SETTINGS)


def databases(session: Session, known: Server, sizes: bool) -> dict[str, Any]:
    """Every database, the one nearest to transaction id wraparound first."""
    found = section(session, DATABASES, [sizes])
    if not sizes:
        return hide(found, ["list.size_bytes"], "not requested (database_sizes)")
    if not known.sees_statistics:
        return hide(found, ["list.size_bytes"], f"if connect is false, {NO_STATISTICS}")
    return found


def connections(session: Session, known: Server) -> dict[str, Any]:
    """How many sessions there are, and what they do."""
    found = section(session, CONNECTIONS)
    if known.sees_statistics or found["error"]:
        return found
    unseen = ["active", "idle", "idle_in_transaction", "waiting_for_locks", "longest_transaction_s"]
    return hide({**found, **dict.fromkeys(unseen)}, unseen, NO_STATISTICS)


def replication(session: Session, known: Server) -> dict[str, Any]:
    """Its standbys, the server that it follows, and the WAL that slots retain."""
    found = section(session, REPLICATION)
    return found if known.sees_statistics else hide(found, ["standbys", "receiver"], f"details: {NO_STATISTICS}")


def archiver(session: Session) -> dict[str, Any]:
    """Whether WAL is archived, and whether that works."""
    return section(session, ARCHIVER)
