# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pins: a backup or a dump that has one never expires, nor does what it needs. As the server's user."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..repository import backups, dumps
from ..repository.backups import Kept
from ..repository.dumps import Stored

LONGEST_REASON = 1000
"""Characters of a reason."""
NEWEST = "newest"
"""Instead of the name of a backup: that with the most WAL behind it, in the newest generation."""


@dataclass(frozen=True)
class Held:
    """What can be pinned: the directory ``name`` in the directory ``place`` of a generation. ``id`` is its UUID,
    ``pin`` why it is pinned, None if it is not; ``title`` is what it is, for people."""

    generation: str
    place: str
    name: str
    id: str
    pin: str | None
    title: str


def pin(repository: str, backup: str, reason: str, check: bool = False) -> dict[str, Any]:
    """Pin a backup or a dump, given by its UUID, its name, or as NEWEST; one that is pinned gets the new reason. With
    ``check`` only say whether that would change anything.

    Returns ``backup``, ``name``, ``title``, ``generation``, ``before`` and ``pinned`` (the reasons, None for no pin)
    and ``changed``. Raises InvalidInput where there is none such, or no reason, and HostFailed where the repository
    cannot be written, or it is being removed.
    """
    text = " ".join(reason.split())
    if not text or len(text) > LONGEST_REASON:
        raise InvalidInput(
            "A pin needs a reason.", f"Say why it is to be kept, in at most {LONGEST_REASON} characters."
        )
    held = find(repository, backup)
    if held.pin != text and not check:
        backups.pin(held.place, held.name, text)
    return _result(held, text)


def unpin(repository: str, backup: str, check: bool = False) -> dict[str, Any]:
    """Let a backup or a dump expire as others do; as `pin`, with ``pinned`` None."""
    held = find(repository, backup)
    if held.pin is not None and not check:
        backups.unpin(held.place, held.name)
    return _result(held, None)


def _result(held: Held, pinned: str | None) -> dict[str, Any]:
    return {
        "backup": held.id,
        "name": held.name,
        "title": held.title,
        "generation": held.generation,
        "before": held.pin,
        "pinned": pinned,
        "changed": held.pin != pinned,
    }


def find(repository: str, backup: str, dumped: bool = True) -> Held:
    """The backup that a UUID, a name or NEWEST stands for, or the dump, unless nothing that was ``dumped`` will do.

    Raises InvalidInput if there is none, or more than one, and HostFailed.
    """
    known = [_backup(repository, *one) for one in backups.everywhere(repository)]
    if backup == NEWEST:
        found = known[-1:]
    else:
        others = [_dump(repository, *one) for one in dumps.everywhere(repository)] if dumped else []
        found = [one for one in (*known, *others) if backup in (one.id, one.name)]
    if len(found) > 1:
        places = ", ".join(f"{one.generation}/{one.name}" for one in found)
        raise InvalidInput(f"{backup} stands for more than one: {places}.", "Give the UUID.")
    if not found:
        raise InvalidInput(f"{repository} has no backup {backup}.", _hint(known))
    return found[0]


def _backup(repository: str, generation: str, kept: Kept) -> Held:
    place = backups.folder(repository, generation)
    return Held(generation, place, kept.name, kept.manifest.id, kept.pin, f"backup {kept.name}")


def _dump(repository: str, generation: str, stored: Stored) -> Held:
    place = os.path.join(dumps.folder(repository, generation), stored.dump.database)
    title = f"dump {stored.name} of database {stored.dump.shown}"
    return Held(generation, place, stored.name, stored.dump.id, stored.pin, title)


def _hint(known: Sequence[Held]) -> str:
    if not known:
        return "There is none at all."
    return f"The newest ones are {', '.join(one.name for one in known[-3:])}."
