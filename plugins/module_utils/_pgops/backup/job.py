# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The jobs of backups: take one, dump databases, do what was asked for, verify them all, remove what is no longer
kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..agent import runner
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..server.session import connect
from . import choice, source, work
from . import requests as asked
from .options import options as parsed


def backup(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Take a backup, of the kind that is due or the one that was asked for; after a good one, expire others."""

    def tell(known: Mapping[str, Any]) -> None:
        # A line of its own, before hours of copying.
        runner.log(layout, layout.keeping, {"job": "backup", "begins": True, **known})

    return work.back_up(settings, layout, options.type or choice.AUTO, tell=tell)


def dump(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Dump the databases that are due, or those that were asked for; expire others."""

    def tell(known: Mapping[str, Any]) -> None:
        runner.log(layout, layout.keeping, {"job": "dump", "begins": True, **known})

    return work.dump_databases(settings, options.database or (), tell)


def requests(settings: Configuration, layout: Layout, _options: argparse.Namespace) -> dict[str, Any]:
    """Do what was asked for in SQL."""
    return asked.serve(settings, layout)


def verify(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Verify backups, dumps and WAL again: on schedule what is due, by hand all of it."""
    return work.verify(settings, layout, due=options.scheduled)


def expire(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Remove the backups and dumps that are no longer kept, and WAL that nobody needs; or tell what would be."""
    with connect(endpoints.backed_up(settings)) as session:
        skipped = source.elsewhere(parsed(settings).source, settings.node, session.in_recovery)
    if skipped:
        return {"skipped": skipped, "errors": []}
    return work.expire(settings, layout, options.dry_run)
