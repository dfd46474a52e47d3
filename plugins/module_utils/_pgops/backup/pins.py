# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pins: a backup that has one never expires, nor does what it needs. As the server's user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InvalidInput
from ..repository import backups
from ..repository.backups import Kept

LONGEST_REASON = 1000
"""Characters of a reason."""
NEWEST = "newest"
"""Instead of the name of a backup: that with the most WAL behind it, in the newest generation."""


def pin(repository: str, backup: str, reason: str, check: bool = False) -> dict[str, Any]:
    """Pin a backup, given by its UUID, its name, or as NEWEST; one that is pinned gets the new reason. With ``check``
    only say whether that would change anything.

    Returns ``backup``, ``name``, ``generation``, ``pinned`` (the reason) and ``changed``. Raises InvalidInput where
    there is no such backup, or no reason, and HostFailed where the repository cannot be written, or the backup is
    being removed.
    """
    text = " ".join(reason.split())
    if not text or len(text) > LONGEST_REASON:
        raise InvalidInput(
            "A pin needs a reason.", f"Say why the backup is to be kept, in at most {LONGEST_REASON} characters."
        )
    generation, kept = find(repository, backup)
    if kept.pin != text and not check:
        backups.pin(backups.folder(repository, generation), kept.name, text)
    return _result(generation, kept, text)


def unpin(repository: str, backup: str, check: bool = False) -> dict[str, Any]:
    """Let a backup expire as others do; as `pin`, with ``pinned`` None."""
    generation, kept = find(repository, backup)
    if kept.pin is not None and not check:
        backups.unpin(backups.folder(repository, generation), kept.name)
    return _result(generation, kept, None)


def _result(generation: str, kept: Kept, pinned: str | None) -> dict[str, Any]:
    return {
        "backup": kept.manifest.id,
        "name": kept.name,
        "generation": generation,
        "pinned": pinned,
        "changed": kept.pin != pinned,
    }


def find(repository: str, backup: str) -> tuple[str, Kept]:
    """The generation and the backup that a UUID, a name or NEWEST stands for.

    Raises InvalidInput if there is none, or more than one, and HostFailed.
    """
    known = backups.everywhere(repository)
    found = known[-1:] if backup == NEWEST else [one for one in known if backup in (one[1].manifest.id, one[1].name)]
    if len(found) > 1:
        places = ", ".join(f"{generation}/{kept.name}" for generation, kept in found)
        raise InvalidInput(f"{backup} stands for more than one backup: {places}.", "Give the UUID.")
    if not found:
        raise InvalidInput(f"{repository} has no backup {backup}.", _hint([kept for _generation, kept in known]))
    return found[0]


def _hint(known: Sequence[Kept]) -> str:
    if not known:
        return "There is none at all."
    return f"The newest ones are {', '.join(kept.name for kept in known[-3:])}."
