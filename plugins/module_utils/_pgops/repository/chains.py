# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Chains of backups: a full one, and what was taken on top of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .backups import Kept
from .manifests import FULL


def lineage(kept: Kept, known: Mapping[str, Kept]) -> tuple[Kept, ...]:
    """A backup and what it stands on, the oldest first, as far as that is among the ``known`` (by their UUIDs)."""
    found = [kept]
    seen = {kept.manifest.id}
    while found[-1].manifest.kind != FULL:
        parent = known.get(found[-1].manifest.parent)
        # A manifest that names one of its own dependants as its parent was not written by us.
        if parent is None or parent.manifest.id in seen:
            break
        seen.add(parent.manifest.id)
        found.append(parent)
    return tuple(reversed(found))


def chain(kept: Kept, known: Mapping[str, Kept]) -> tuple[Kept, ...] | None:
    """All that restoring a backup needs, the full one first; None if something is missing."""
    found = lineage(kept, known)
    return found if found[0].manifest.kind == FULL else None


def complete(backups: Iterable[Kept]) -> tuple[Kept, ...]:
    """Those of the backups whose chains are whole, in the same order."""
    given = tuple(backups)
    known = {kept.manifest.id: kept for kept in given}
    return tuple(kept for kept in given if chain(kept, known) is not None)


def dependants(kept: Kept, backups: Iterable[Kept]) -> tuple[Kept, ...]:
    """The backups that cannot be restored without this one, in the same order."""
    given = tuple(backups)
    known = {other.manifest.id: other for other in given}
    return tuple(
        other
        for other in given
        if other.manifest.id != kept.manifest.id
        and any(one.manifest.id == kept.manifest.id for one in lineage(other, known))
    )


def dependants_first(backups: Iterable[Kept]) -> tuple[Kept, ...]:
    """Backups in an order in which they can be removed: none before what stands on it, otherwise the oldest first."""
    given = tuple(backups)
    known = {kept.manifest.id: kept for kept in given}
    depth = {kept.manifest.id: len(lineage(kept, known)) for kept in given}
    return tuple(sorted(given, key=lambda kept: -depth[kept.manifest.id]))
