# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The major versions of PostgreSQL that this version of the collection is for: those that upstream supports. Pure."""

from __future__ import annotations

from ..errors import TooOld

OLDEST = 15
"""A server of an older one is refused."""
NEWEST = 19
"""One of a newer one is taken, and said to be unknown."""


def check(major: int) -> None:
    """Raises TooOld for backups of a version that is too old."""
    if major < OLDEST:
        raise TooOld(
            f"The backups are of PostgreSQL {major}. PostgreSQL {OLDEST} is the oldest supported version.",
            "Restore them with a release of pgops.fleet that supports it: a restore needs no agent.",
            major,
        )


def support(major: int | None) -> str | None:
    """How the collection stands to a server, as facts say it; None where its version is unknown."""
    if major is None:
        return None
    return "too old" if major < OLDEST else "too new" if major > NEWEST else "supported"


def unknown(major: int) -> tuple[str, ...]:
    """What to say of a server that is newer than what was tested; nothing of others.

    >>> unknown(NEWEST)
    ()
    """
    if major <= NEWEST:
        return ()
    known = f"This version of pgops.fleet was tested with {OLDEST} to {NEWEST}, and goes on as with {NEWEST}."
    return (f"The server is PostgreSQL {major}. {known} Look for a newer version of the collection.",)
