# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dumps are verified again, by the checksums of all their files. Nothing is removed: what is found is noted beside
the dump, which no longer counts as a good one."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any

from ..errors import PgOpsError
from ..instance.configuration import Configuration
from ..repository import backups, dumps, generations
from ..repository.dumps import Dumped, Stored
from . import dumper, scrub
from .options import options, repository

MOST = 20
"""Problems of a dump that are told."""


def verify(configuration: Configuration, due: bool = False) -> dict[str, Any]:
    """Verify all dumps of the repository, or those that are ``due``, as the server's user: the number of those that
    are as they should be, ``damaged``: what is wrong with others by their names, and ``errors``.

    Raises HostFailed if the repository cannot be read.
    """
    where = repository(configuration)
    now, days = datetime.now(timezone.utc), options(configuration).verify_days
    verified, damaged, errors = 0, dict[str, list[str]](), list[str]()
    for dumped in (one for name in generations.present(where) for one in dumps.databases(where, name)):
        damaged.update({name: [why] for name, why in dumped.damaged.items()})
        for stored in dumped.dumps:
            if due and not stored.problems and not scrub.is_due(stored.seen, now, days):
                continue
            try:
                problems = _problems(dumped, stored)
            except PgOpsError as error:
                if os.path.isdir(os.path.join(dumped.place, stored.name)):  # it has not expired meanwhile
                    errors.append(f"dump {stored.name} cannot be verified: {error}")
                continue
            verified += not problems
            damaged.update({stored.name: problems} if problems else {})
    errors += [f"dump {name} is damaged: {'; '.join(why)}" for name, why in sorted(damaged.items())]
    return {"verified": verified, "damaged": damaged, "errors": errors}


def _problems(dumped: Dumped, stored: Stored) -> list[str]:
    """What is wrong with a dump, which is noted beside it. Raises HostFailed if it cannot be found out."""
    with backups.reading(dumped.place, [stored.name]):
        found = dumper.problems(os.path.join(dumped.place, stored.name), stored.dump.checksum)[:MOST]
        backups.note_checked(dumped.place, stored.name, found, datetime.now(timezone.utc))
    return found
