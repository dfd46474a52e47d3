# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rolls up hours, creates partitions of the coming days, and drops those too old, or without space, one by one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .. import capabilities
from ..errors import PgOpsError, QueryFailed
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..server.session import Session, connect

ROLLING = 120.0
"""Seconds for rolling up hours: after an outage there may be many, and the rest of the job needs time, too."""

FAILURES = 3
"""Number of hours that may fail; with more, all most likely fail for the same reason: a full disk, a missing
right."""

PAUSES = (0.2, 0.5, 1.0)
"""Seconds between attempts to drop a partition that another session has locked."""

LOCKED = "55P03"
"""SQLSTATE lock_not_available."""

HOURS = "SELECT h.node_id, h.started_at FROM pgops.hours_to_roll_up() AS h"
DROP = "SELECT pgops.drop_partition(%s)"
EXPIRED = "SELECT e.partition_name, e.first_day, e.early FROM pgops.expired_partitions() AS e"


def maintain(configuration: Configuration) -> dict[str, Any]:
    """Maintain the store of the instance's own ops database; on a standby there is nothing to do.

    Raises PgOpsError if the server cannot be reached.
    """
    # Dropping a partition locks its parent table, and a session that waits for a lock blocks others behind it: rather
    # an hour later than behind a long query.
    target = replace(endpoints.agent(configuration, "maintain"), statement_timeout=ROLLING, lock_timeout=0.1)
    with connect(target) as session:
        if session.in_recovery:
            return {"skipped": "standby", "errors": []}
        result: dict[str, Any] = {}
        steps = Steps(session)
        with steps.step("partitions cannot be created"):
            result["created"] = session.value("SELECT pgops.maintain_partitions(7)")
        # Before anything is dropped, since rollups are made of what is to be dropped.
        result["rolled_up"] = _roll_up(session, steps)
        result["dropped"] = _drop(session, steps)
        with steps.step("unused shapes cannot be deleted"):
            result["forgotten"] = session.value("SELECT pgops.forget_unused_shapes()")
        for upkeep in (one for capability in capabilities.ALL for one in capability.upkeep):
            with steps.step(upkeep.what):
                result[upkeep.function] = session.value(f"SELECT pgops.{upkeep.function}()")
                if upkeep.lost and result[upkeep.function]:
                    steps.errors.append(
                        f"deleted early to keep to pgops_max_size_mb: {result[upkeep.function]} {upkeep.lost}"
                    )
        return {**result, "errors": steps.errors}


@dataclass
class Steps:
    """What is done one after the other in a session; an error is that of one step."""

    session: Session
    errors: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, failure: str) -> Iterator[None]:
        """Record an error as ``failure``, and go on with the next step, also where the session has ended: a full disk
        must not prevent the removal of old days."""
        try:
            self.session.revive()
            yield
        except PgOpsError as error:
            self.errors.append(f"{failure}: {error}")


def _roll_up(session: Session, steps: Steps) -> int:
    """How many hours of nodes were rolled up, each in its own transaction. The rest is due in the next run."""
    until = time.monotonic() + ROLLING
    hours: list[dict[str, Any]] = []
    with steps.step("hours to roll up cannot be listed"):
        hours = session.rows(HOURS)
    done, before = 0, len(steps.errors)
    for hour in hours:
        if len(steps.errors) - before >= FAILURES or time.monotonic() > until:
            steps.errors.append(f"{len(hours) - done} hours remain to be rolled up in the next run")
            break
        with steps.step(f"the hour of {hour['started_at']} cannot be rolled up"):
            session.value("SELECT pgops.roll_up(%s, %s)", [hour["node_id"], hour["started_at"]])
            done += 1
    return done


def _drop(session: Session, steps: Steps) -> list[str]:
    """The partitions that were dropped, oldest first."""
    expired: list[dict[str, Any]] = []
    with steps.step("expired partitions cannot be listed"):
        expired = session.rows(EXPIRED)
    dropped = []
    lost: set[str] = set()
    for partition in expired:
        name = partition["partition_name"]
        with steps.step(f"{name} cannot be dropped"):
            if _dropped(session, name):
                dropped.append(name)
                lost |= {str(partition["first_day"])} if partition["early"] else set()
    if lost:
        days = ", ".join(sorted(lost))
        steps.errors.append(f"dropped early, since the store is larger than pgops_max_size_mb: {days}")
    return dropped


def _dropped(session: Session, name: str) -> bool:
    """Drop a partition if it is still expired; retries while a collection has it locked."""
    for pause in PAUSES:
        try:
            return bool(session.value(DROP, [name]))
        except QueryFailed as error:
            if error.sqlstate != LOCKED:
                raise
            time.sleep(pause)
    return bool(session.value(DROP, [name]))
