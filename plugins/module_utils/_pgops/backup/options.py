# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The part of backups in the agent's configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput
from ..instance.configuration import Configuration

NATIVE, PGBACKREST = "native", "pgbackrest"
ENGINES = (NATIVE, PGBACKREST)
COMPRESSIONS = ("none", "gzip", "lz4", "zstd")
PRIMARY = "primary"
RATES = (0.04, 1000.0)
"""The least and the most megabytes a second that pg_basebackup can be limited to."""


@dataclass(frozen=True)
class Options:
    """What is declared of an instance's backups.

    ``engine`` is one of ENGINES, ``compression`` one of COMPRESSIONS. ``source`` is PRIMARY, or the name of the node
    that is backed up. ``incremental``: backups between two full ones are incremental; ``unsafe_incremental``: also
    where the server has an error that may leave out changes. After ``full_interval_hours`` the next one is full.
    ``max_rate_mb`` is the most megabytes that are copied each second, 0 for no limit. ``retention`` is what expiry
    reads, ``dumps`` what dump_options does. All that is in the repository is read again within ``verify_days``.
    ``bin_directory`` has PostgreSQL's programs, '' for that of the running server. The hooks are programs of root's,
    '' for none.
    """

    engine: str
    compression: str
    source: str
    incremental: bool
    unsafe_incremental: bool
    full_interval_hours: float
    max_rate_mb: float
    retention: Mapping[str, Any]
    bin_directory: str
    hook_before: str
    hook_after: str
    dumps: Mapping[str, Any] = field(default_factory=dict)
    verify_days: float = 7.0


def options(configuration: Configuration) -> Options:
    """The options of backups in the configuration.

    Raises InvalidInput for a value that none of them takes.
    """
    found = Options(**configuration.part("backup"))
    for variable, value, known in (
        ("pgops_backup_engine", found.engine, ENGINES),
        ("pgops_backup_compression", found.compression, COMPRESSIONS),
    ):
        if value not in known:
            raise InvalidInput(f"{variable} is {value!r}.", f"It can be {', '.join(known)}.")
    if not 0 <= found.full_interval_hours < float("inf"):
        raise InvalidInput(
            f"pgops_backup_full_interval_hours is {found.full_interval_hours}.", "It has to be 0 or more."
        )
    if not 1 <= found.verify_days < float("inf"):
        raise InvalidInput(f"pgops_backup_verify_days is {found.verify_days}.", "It has to be 1 or more.")
    least, most = RATES
    if found.max_rate_mb and not least <= found.max_rate_mb <= most:
        raise InvalidInput(
            f"pgops_backup_max_rate_mb is {found.max_rate_mb}.",
            f"It can be 0, for no limit, or {least} to {most} megabytes each second.",
        )
    if found.engine == PGBACKREST:
        _check_pgbackrest(found)
    return found


def _check_pgbackrest(found: Options) -> None:
    """Raises InvalidInput for what pgBackRest cannot do."""
    if found.max_rate_mb:
        raise InvalidInput(
            f"pgops_backup_max_rate_mb is {found.max_rate_mb}, and pgBackRest has no such limit.",
            "Leave it out, or set pgops_backup_engine to native.",
        )
    if found.source != PRIMARY:
        raise InvalidInput(
            f"pgops_backup_source is {found.source}, and the engine pgbackrest backs up the primary.",
            "Leave it out, or set pgops_backup_engine to native.",
        )


def repository(configuration: Configuration) -> str:
    """The repository that backups go into.

    Raises InvalidInput if there is none.
    """
    if not configuration.repository:
        raise InvalidInput(
            "This instance has no repository.", "Set pgops_repository and run site.yml (docs/archiving.md)."
        )
    return configuration.repository
