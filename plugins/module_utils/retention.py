# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitions of the days to come are made, those older than the retention dropped, one a transaction."""

from __future__ import annotations

from typing import Any

from .collection import source_target
from .configuration import Configuration
from .errors import PgOpsError
from .server import connect


def maintain(configuration: Configuration) -> dict[str, Any]:
    """Keep the store of the instance's own ops database; on a standby there is nothing to do.

    Raises PgOpsError where the server cannot be reached.
    """
    with connect(source_target(configuration)) as session:
        if session.in_recovery:
            return {"skipped": "standby", "errors": []}
        result: dict[str, Any] = {"created": session.value("SELECT pgops.maintain_partitions(7)")}
        dropped, errors = [], []
        # Dropping a day locks the parent for a moment: rather an hour later than behind a long query.
        session.execute("SET lock_timeout = '2s'")
        for row in session.rows("SELECT e.expired FROM pgops.expired_partitions() AS e (expired)"):
            try:
                session.value("SELECT pgops.drop_partition(%s)", [row["expired"]])
                dropped.append(str(row["expired"]))
            except PgOpsError as error:
                errors.append(f"{row['expired']}: {error}")
        result.update(dropped=dropped, forgotten=session.value("SELECT pgops.forget_unused_shapes()"), errors=errors)
        return result
