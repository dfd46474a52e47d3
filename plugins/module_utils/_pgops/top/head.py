# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The head of a picture, asked of a server: what it is, how full and how busy it is, and whether it is replicated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..server import encoding
from ..server.session import Session
from . import rates

STATE = """
SELECT
    clock_timestamp() AS at,
    split_part(current_setting('server_version'), ' ', 1) AS version,
    pg_is_in_recovery() AS standby,
    pg_postmaster_start_time() AS started_at,
    extract(EPOCH FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS uptime_seconds,
    current_setting('max_connections')::integer AS connections_max,
    s.*,
    d.*,
    x.*,
    (
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0'::pg_lsn
    )::float8 AS wal_bytes
FROM (
    SELECT
        count(*) AS connections,
        count(*) FILTER (WHERE a.state = 'active' AND a.pid <> pg_backend_pid()) AS active,
        count(*) FILTER (WHERE a.state = 'idle') AS idle,
        count(*) FILTER (WHERE a.state LIKE 'idle in transaction%') AS idle_in_transaction,
        count(*) FILTER (WHERE a.wait_event_type = 'Lock') AS waiting_for_locks
    FROM pg_stat_activity AS a
    WHERE a.backend_type = 'client backend'
) AS s
CROSS JOIN (
    SELECT
        sum(b.xact_commit)::float8 AS commits,
        sum(b.xact_rollback)::float8 AS rollbacks,
        sum(b.blks_hit)::float8 AS blocks_hit,
        sum(b.blks_read)::float8 AS blocks_read,
        sum(b.tup_returned)::float8 AS rows_read,
        sum(b.tup_inserted + b.tup_updated + b.tup_deleted)::float8 AS rows_written,
        sum(b.temp_bytes)::float8 AS temp_bytes,
        string_agg(concat(b.datid, ' ', b.stats_reset), ',' ORDER BY b.datid) AS counted_since
    FROM pg_stat_database AS b
) AS d
CROSS JOIN (
    SELECT
        (100.0 * greatest(max(age(w.datfrozenxid)), max(mxid_age(w.datminmxid))) / 2147483648)::float8
        AS wraparound_percent
    FROM pg_database AS w
) AS x
"""
HORIZON = f"""
SELECT
    h.holder, h.name, h.xids,
    (100.0 * h.xids / current_setting('autovacuum_freeze_max_age')::bigint)::float8 AS freeze_percent
FROM (
    SELECT
        CASE a.backend_type WHEN 'walsender' THEN 'standby' ELSE 'session' END AS holder,
        a.pid::text::bytea AS name,
        greatest(age(a.backend_xid), age(a.backend_xmin)) AS xids
    FROM pg_stat_activity AS a
    -- VACUUM and its workers hold back nothing.
    WHERE
        a.pid <> pg_backend_pid()
        AND coalesce(a.leader_pid, a.pid) NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum AS v)
    UNION ALL
    SELECT 'prepared transaction', {encoding.BYTES.format("x.gid")}, age(x.transaction) FROM pg_prepared_xacts AS x
    UNION ALL
    SELECT 'slot', s.slot_name::text::bytea, greatest(age(s.xmin), age(s.catalog_xmin))
    FROM pg_replication_slots AS s
    WHERE s.wal_status IS DISTINCT FROM 'lost'
) AS h
WHERE h.xids IS NOT NULL
ORDER BY h.xids DESC
LIMIT 1
"""
STANDBYS = f"""
SELECT
    {encoding.BYTES.format("r.application_name")} AS application, host(r.client_addr) AS client, r.state,
    r.sync_state AS sync, (w.lsn - r.replay_lsn)::float8 AS lag_bytes,
    extract(EPOCH FROM r.replay_lag)::float8 AS lag_seconds
FROM pg_stat_replication AS r
CROSS JOIN (
    SELECT
        CASE
            WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_lsn()
        END AS lsn
) AS w
ORDER BY lag_bytes DESC NULLS FIRST, r.pid ASC
LIMIT 20
"""
RECEIVER = """
SELECT
    coalesce(w.status, 'none') AS status, w.sender_host AS sender,
    (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - pg_last_wal_replay_lsn())::float8 AS lag_bytes,
    extract(EPOCH FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS last_commit_seconds,
    pg_get_wal_replay_pause_state() <> 'not paused' AS paused
FROM (SELECT) AS here
LEFT JOIN pg_stat_wal_receiver AS w ON TRUE
"""

SHOWN = (
    *("version", "uptime_seconds", "connections", "connections_max", "active", "idle", "idle_in_transaction"),
    *("waiting_for_locks", "wraparound_percent"),
)


def read(session: Session) -> dict[str, Any]:
    """A look at a server: the values of STATE, ``horizon`` (who holds back the oldest row version), ``standbys``, and
    ``receiver``, which is None on a primary.

    Raises QueryFailed.
    """
    state = session.rows(STATE)[0]
    receiver = session.row(RECEIVER) if state["standby"] else None
    return {
        **state,
        "horizon": _named(session.row(HORIZON), "name"),
        "standbys": [_named(row, "application") for row in session.rows(STANDBYS)],
        "receiver": receiver,
    }


def _named(row: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    if row is None:
        return None
    return {**row, name: encoding.readable(encoding.text(bytes(row[name])))}


def head(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The head of two looks, the one ``before`` None where there was none. Pure."""
    return {
        "role": "standby" if now["standby"] else "primary",
        **{name: now[name] for name in SHOWN},
        **rates.between(before, now),
        **{name: now[name] for name in ("horizon", "standbys", "receiver")},
    }
