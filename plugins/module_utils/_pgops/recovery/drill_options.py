# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The part of drills in the agent's configuration. Pure."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import spelling
from ..errors import InvalidInput
from ..instance.configuration import Configuration
from .resources import SIZE

PRIMARY = "primary"
KEYS = ("database", "query")


@dataclass(frozen=True)
class Assertion:
    """A question to the restored server, asked in a database, whose answer has to be true."""

    name: str
    database: str
    query: str


@dataclass(frozen=True)
class Options:
    """What is declared of an instance's drills.

    ``node`` is PRIMARY, or the name of the node that has drills. One is due ``interval_hours`` after the last that
    passed. ``directory`` is where servers are restored to, '' for the agent's own; ``reserve_mb`` megabytes are left
    free there. A drill is given up after ``minutes``, and not begun where the load of the last minute is above
    ``max_load`` for each processor, 0 for no limit. ``amcheck``: all tables and B-trees are read and checked.
    ``shared_buffers`` is the restored server's memory. ``assertions`` have a database and a query by their names.
    """

    node: str
    interval_hours: float
    directory: str
    reserve_mb: float
    minutes: float
    max_load: float
    amcheck: bool
    shared_buffers: str
    assertions: Mapping[str, Any]

    @property
    def asked(self) -> tuple[Assertion, ...]:
        """The assertions."""
        return tuple(Assertion(name, one["database"], one["query"]) for name, one in self.assertions.items())


def options(configuration: Configuration) -> Options:
    """The options of drills in the configuration.

    Raises InvalidInput for a value that none of them takes.
    """
    found = Options(**configuration.part("recovery"))
    for variable, value, least in (
        ("pgops_drill_interval_hours", found.interval_hours, 1.0),
        ("pgops_drill_minutes", found.minutes, 0.0),
        ("pgops_drill_reserve_mb", found.reserve_mb, 0.0),
        ("pgops_drill_max_load", found.max_load, 0.0),
    ):
        if not math.isfinite(value) or value < least:
            raise InvalidInput(f"{variable} is {value}.", f"It has to be {least:g} or more.")
    if found.directory and not os.path.isabs(found.directory):
        raise InvalidInput(f"pgops_drill_directory is {found.directory!r}.", "It has to be an absolute path.")
    if not SIZE.match(found.shared_buffers):
        raise InvalidInput(
            f"pgops_drill_shared_buffers is {found.shared_buffers!r}.", "Write it as PostgreSQL does: 64MB."
        )
    for name, one in found.assertions.items():
        _check(str(name), one)
    return found


def _check(name: str, declared: Any) -> None:
    """Raises InvalidInput."""
    hint = "Each has a database and a query: {'orders are there': {'database': 'shop', 'query': 'SELECT ...'}}."
    known = declared if isinstance(declared, Mapping) else {}
    if set(known) != set(KEYS) or not all(isinstance(known[key], str) and known[key] for key in KEYS):
        unknown = spelling.unknown(known, KEYS)
        more = f": unknown {unknown}" if unknown else ""
        raise InvalidInput(f"pgops_drill_assertions: {name!r} is no assertion{more}.", hint)
