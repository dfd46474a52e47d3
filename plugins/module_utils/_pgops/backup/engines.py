# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which engine takes the backups of a server, and which one verifies a backup that there is."""

from __future__ import annotations

import os

from ..errors import Conflict
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..repository import stanza as stanzas
from . import clients
from .clients import Clients
from .engine import Engine
from .native import Native
from .options import PGBACKREST, Options
from .pgbackrest import PgBackRest
from .source import Source


def engine(configuration: Configuration, declared: Options, source: Source) -> tuple[Clients | None, Engine]:
    """The engine that is declared, and PostgreSQL's own programs where it needs them.

    Raises Conflict where pgBackRest has no stanza of the server, and HostFailed.
    """
    if declared.engine != PGBACKREST:
        return native(configuration, declared, source)
    found = pgbackrest(configuration, declared, source.generation)
    if found is None:
        raise Conflict(
            f"{configuration.repository} has no stanza of pgBackRest for this server.",
            "Apply the role pgops_archiving with pgops_backup_engine: pgbackrest (docs/pgbackrest.md).",
        )
    return None, found


def native(configuration: Configuration, declared: Options, source: Source) -> tuple[Clients, Native]:
    """PostgreSQL's own programs. Raises HostFailed."""
    programs = clients.found(declared.bin_directory, source.bin_directory, source.major)
    return programs, Native(declared, programs, endpoints.backup(configuration), configuration.repository)


def readers(
    configuration: Configuration, declared: Options, beside: str, generation: str
) -> tuple[Clients, tuple[Engine, ...]]:
    """The engines that verify backups of a generation, whose server need not run, and PostgreSQL's own programs, of
    its directory ``beside`` or of others; clients.NONE where there are none.

    Raises HostFailed.
    """
    programs = clients.readers((declared.bin_directory, beside), int(generation.rpartition("-")[2]))
    own = Native(declared, programs, endpoints.backup(configuration), configuration.repository)
    stanza = pgbackrest(configuration, declared, generation)
    return programs, (own, stanza) if stanza else (own,)


def pgbackrest(configuration: Configuration, declared: Options, generation: str) -> PgBackRest | None:
    """The stanza of a generation, None if there is none. Raises HostFailed."""
    stanza = stanzas.of(configuration.repository, generation)
    if stanza is None:
        return None
    inside = os.path.join(configuration.repository, "pgbackrest")
    return PgBackRest(declared, stanza, inside if os.path.isdir(inside) else "")
