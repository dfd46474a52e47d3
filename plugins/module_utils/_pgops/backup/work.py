# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the jobs, requests in SQL and pg_ops_backup have in common: backups and dumps are seen to together, after a
good one old ones expire, and the ops database is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Busy, PgOpsError
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from . import dump_expiry, dump_verify, record
from .dump import dump
from .expiry import expire as expired
from .take import Tell, take
from .verify import verify as verified


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
    """Expire what retention does not keep, as `expiry.expire` and `dump_expiry.expire` do, and tell the ops database.

    Returns what they do, with ``warnings``. Raises PgOpsError.
    """
    done = expired(configuration, layout, dry_run)
    told = [] if dry_run else record.expired(configuration, [one["backup"] for one in done["removed"]])
    return _both({**done, "warnings": [*done["notes"], *told]}, expire_dumps(configuration, dry_run))


def expire_dumps(configuration: Configuration, dry_run: bool) -> dict[str, Any]:
    """Expire dumps, as `dump_expiry.expire` does; what keeps them from it is among the ``errors``."""
    try:
        return dump_expiry.expire(configuration, dry_run)
    except PgOpsError as error:
        return {"dumps_removed": [], "dumps_retained": [], "errors": [f"Dumps cannot be expired: {error}"]}


def dump_databases(configuration: Configuration, asked: Sequence[str] = (), tell: Tell = silent) -> dict[str, Any]:
    """Dump databases as `dump.dump` does, and expire.

    Returns what that does, with ``expired``: the names of the dumps that were removed. Raises PgOpsError.
    """
    done = dump(configuration, asked, tell)
    if done.get("skipped"):
        return done
    gone = expire_dumps(configuration, dry_run=False)
    return {**_both(done, gone), "expired": [one["name"] for one in gone["dumps_removed"]]}


def verify(
    configuration: Configuration, layout: Layout, names: Sequence[str] = (), due: bool = False
) -> dict[str, Any]:
    """Verify all backups, dumps and WAL again, what is ``due`` of them, or those backups that are named.

    Returns what `verify.verify` does, with ``dumps_verified``, and damaged dumps among the ``damaged``.

    Raises PgOpsError.
    """
    done = verified(configuration, layout, names, due)
    if names or done.get("skipped"):
        return {"dumps_verified": 0, **done}
    found = dump_verify.verify(configuration, due=due)
    return {
        **done,
        "dumps_verified": found["verified"],
        "damaged": {**done["damaged"], **found["damaged"]},
        "errors": [*done["errors"], *found["errors"]],
    }


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two results as one: lists of the same name one after the other."""
    lists = {name: [*first[name], *second[name]] for name in first if name in second}
    return {**first, **second, **lists}
