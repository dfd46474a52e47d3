# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The jobs of backups: take one, expire what is old, and verify all."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..agent import runner
from ..errors import PgOpsError
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from . import choice, expiry
from .take import take
from .verify import verify as verify_all


def backup(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Take a backup, of the kind that is due or the one that was asked for; after a good one, expire others."""

    def tell(known: Mapping[str, Any]) -> None:
        # A line of its own, before hours of copying.
        runner.log(layout, layout.keeping, {"job": "backup", "begins": True, **known})

    done = take(settings, layout, options.type or choice.AUTO, tell=tell)
    return done if done["errors"] or "skipped" in done else {**done, **_expired(settings, layout)}


def _expired(settings: Configuration, layout: Layout) -> dict[str, Any]:
    """What has expired, in short; an error of it is one of the job, and does not undo the backup."""
    try:
        found = expiry.expire(settings, layout, dry_run=False)
    except PgOpsError as error:
        return {"errors": [f"nothing has expired: {error}"]}
    names = [one["name"] for one in found["removed"]]
    return {"expired": names, "wal_expired": found["wal_removed"], "errors": found["errors"]}


def expire(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Remove what has expired, or say what would."""
    return expiry.expire(settings, layout, options.dry_run)


def verify(settings: Configuration, layout: Layout, _options: argparse.Namespace) -> dict[str, Any]:
    """Verify all backups again."""
    return verify_all(settings, layout)
