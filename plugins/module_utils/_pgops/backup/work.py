# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the jobs, requests in SQL and pg_ops_backup have in common: after a good backup old ones expire, and the ops
database is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Busy, PgOpsError
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from . import record
from .expiry import expire as expired
from .take import Tell, take


def silent(_known: Mapping[str, Any]) -> None:
    """Tells nobody."""


def back_up(
    configuration: Configuration, layout: Layout, kind: str, requested: str = "", tell: Tell = silent
) -> dict[str, Any]:
    """Take a backup as `take` does, and if all went well, what its hooks do included, expire.

    Returns what `take` does, with ``expired``: the names of the backups that were removed.
    """
    done = take(configuration, layout, kind, requested, tell)
    if done.get("skipped") or done["errors"]:
        return done
    try:
        gone = expire(configuration, layout, dry_run=False)
    except Busy:  # who holds the lock expires, or takes a backup and expires then
        return {**done, "expired": []}
    except PgOpsError as error:
        return {**done, "expired": [], "errors": [f"The backup is good, but old ones cannot be removed: {error}"]}
    return {**done, "expired": [one["name"] for one in gone["removed"]], "errors": gone["errors"]}


def expire(configuration: Configuration, layout: Layout, dry_run: bool) -> dict[str, Any]:
    """Expire what retention does not keep, as `expiry.expire` does, and tell the ops database.

    Returns what that does, with ``warnings``. Raises PgOpsError.
    """
    done = expired(configuration, layout, dry_run)
    told = [] if dry_run else record.expired(configuration, [one["backup"] for one in done["removed"]])
    return {**done, "warnings": [*done["notes"], *told]}
