# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recovery points: names for moments in the WAL that a cluster can be restored to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..converge import read_plan_apply
from ..errors import Conflict, HostFailed, InvalidInput
from ..plan import Change, Plan, changes
from ..repository.catalogue import guarded
from ..server.session import Session, connect
from ..server.target import Target

LONGEST = 63
"""Bytes of the longest name: PostgreSQL cuts what is longer (src/include/access/xlog_internal.h, MAXFNAMELEN)."""
PATIENCE = 60.0
"""Seconds without a newly archived segment after which the WAL of a point is given up."""
PAUSE = 0.1
"""Seconds between two looks at the archiver."""

THERE = "SELECT to_regclass('pgops.recovery_point') IS NOT NULL"
READ = """
SELECT r.recovery_id::text AS id, r.recovery_name AS name, r.description, r.target_lsn::text AS lsn,
       r.target_time::text AS time, r.base_backup_id::text AS base_backup_id, r.obstacle
FROM pgops.recovery_point AS r WHERE r.recovery_name = %s ORDER BY r.created_at LIMIT 1
"""
HERE = """
SELECT s.system_identifier::text || '-' || current_setting('server_version_num')::integer / 10000 AS generation
FROM pg_control_system() AS s
"""
# As pgops.create_recovery_point() does, which a superuser's session does not call (server/guard.py).
CREATE = """
WITH point AS MATERIALIZED (SELECT pg_create_restore_point(%(name)s) AS lsn),

timeline AS MATERIALIZED (
    SELECT p.lsn, ('x' || substr(pg_walfile_name(p.lsn), 1, 8))::bit(32)::bigint AS number FROM point AS p
)

INSERT INTO pgops.recovery_point (
    recovery_name, description, generation, timeline, target_lsn, target_time, base_backup_id, created_by
)
SELECT %(name)s, %(description)s, %(generation)s, t.number, t.lsn, clock_timestamp(),
       (SELECT b.backup_id FROM pgops.backup AS b
        WHERE b.generation = %(generation)s AND b.status = 'completed' AND b.damage IS NULL
          AND b.timeline <= t.number AND b.stop_lsn <= t.lsn
        ORDER BY b.timeline DESC, b.stop_lsn DESC LIMIT 1),
       session_user
FROM timeline AS t
"""
HOLDING = "SELECT pg_walfile_name(%s::pg_lsn)"
PRESENT = "SELECT pg_walfile_name(pg_current_wal_lsn())"
SWITCH = "SELECT pg_switch_wal()"
ARCHIVER = """
SELECT archived_count, failed_count, last_failed_wal, current_setting('archive_mode') AS mode,
       coalesce(last_archived_wal >= %s, false) AS arrived
FROM pg_stat_archiver
"""


def plan(name: str, description: str, known: Mapping[str, Any] | None) -> Plan[Change]:
    """What creates a point; nothing if there is one of that name already, which a recovery would stop at. Pure.

    Raises InvalidInput for what can be no name.
    """
    if not name or len(name.encode()) > LONGEST or any(ord(character) < 32 for character in name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a recovery point.", "Use 1 to 63 bytes without control characters."
        )
    if known:
        return changes()
    return changes([Change(f"recovery point {name}", None, description or "created")])


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Create a recovery point unless it exists, and have its WAL archived; what pg_ops_recovery_point returns.

    Raises Conflict where there is no ops database with backups, and HostFailed where the WAL is not archived.
    """
    name, description = params["name"], params["description"] or ""
    with connect(replace(target, database=params["database"])) as session:
        if session.in_recovery:
            return changes(skipped_reason="standby: the primary writes recovery points").result()
        if not session.value(THERE):
            raise Conflict(
                f"Database {params['database']} has no recovery points.",
                "Set pgops_backup to true and run site.yml.",
            )
        generation = session.value(HERE)
        with guarded(session):
            done = read_plan_apply(
                read=lambda: session.row(READ, [name]),
                plan=lambda known: plan(name, description, known),
                apply=lambda _known, _planned: _create(session, name, description, generation),
                check_mode=check_mode,
            )
            point = session.row(READ, [name])
        segment = _archived(session, point["lsn"]) if point and params["wait"] and not check_mode else None
    return done.plan.result(point=point, segment=segment)


def _create(session: Session, name: str, description: str, generation: str) -> None:
    values = {"name": name, "description": description or None, "generation": generation}
    session.execute(CREATE, values)


def _archived(session: Session, lsn: str) -> str:
    """Wait until the segment with a point is archived, as long as others arrive before it; its name. The present one
    is ended for that.

    Raises HostFailed.
    """
    segment, present = str(session.value(HOLDING, [lsn])), str(session.value(PRESENT))
    if segment == present:
        session.value(SWITCH)
    progress: Any = None
    deadline = time.monotonic() + PATIENCE
    while True:
        now = session.rows(ARCHIVER, [segment])[0]
        if now["arrived"]:
            return segment
        if now["mode"] == "off":
            raise HostFailed(
                "archive_mode is off: the recovery point is in the WAL, which is not archived.",
                "Apply the role pgops_archiving (docs/archiving.md).",
            )
        if now["archived_count"] != progress:
            progress, deadline = now["archived_count"], time.monotonic() + PATIENCE
        if time.monotonic() > deadline:
            raise HostFailed(
                f"The recovery point is in the WAL, but {segment} was not archived within {PATIENCE:g} seconds. "
                f"{now['failed_count']} attempts failed, the last one for {now['last_failed_wal']}.",
                "The server's log shows the error of the archiver.",
            )
        time.sleep(PAUSE)
