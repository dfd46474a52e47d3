# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitions of the days to come are made, those older than the retention, or without room, dropped one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .collection import source_target
from .configuration import Configuration
from .errors import PgOpsError
from .server import connect

EXPIRED = "SELECT e.expired FROM pgops.expired_partitions() AS e (expired)"
OVERSIZED = "SELECT o.day FROM pgops.oversized_partitions() AS o (day)"


def maintain(configuration: Configuration) -> dict[str, Any]:
    """Keep the store of the instance's own ops database; on a standby there is nothing to do.

    Raises PgOpsError where the server cannot be reached.
    """
    with connect(source_target(configuration)) as session:
        if session.in_recovery:
            return {"skipped": "standby", "errors": []}
        result: dict[str, Any] = {}
        errors: list[str] = []
        with _noted(errors, "partitions cannot be made"):
            result["created"] = session.value("SELECT pgops.maintain_partitions(7)")
        # Dropping a day locks the parent for a moment: rather an hour later than behind a long query.
        session.execute("SET lock_timeout = '2s'")
        early: set[Any] = set()
        with _noted(errors, "the store's size cannot be looked at"):
            early = {row["day"] for row in session.rows(OVERSIZED)}
        expired = []
        with _noted(errors, "expired days cannot be listed"):
            expired = [row["expired"] for row in session.rows(EXPIRED)]
        dropped = []
        for partition in expired:
            with _noted(errors, f"{partition} cannot be dropped"):
                session.value("SELECT pgops.drop_partition(%s)", [partition])
                dropped.append(str(partition))
        lost = [str(day) for day in sorted(early) if str(day) in dropped]
        if lost:
            errors.append(f"dropped early, since the store is larger than pgops_max_size_mb: {', '.join(lost)}")
        with _noted(errors, "unused shapes cannot be forgotten"):
            result["forgotten"] = session.value("SELECT pgops.forget_unused_shapes()")
        with _noted(errors, "unused statements cannot be forgotten"):
            result["statements"] = session.value("SELECT pgops.forget_unused_statements()")
        return {**result, "dropped": dropped, "errors": errors}


@contextlib.contextmanager
def _noted(errors: list[str], what: str) -> Iterator[None]:
    """Note an error, and go on with the next step: a full disk must not keep old days from being dropped."""
    try:
        yield
    except PgOpsError as error:
        errors.append(f"{what}: {error}")
