# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Chains: what a backup stands on, and what stands on it."""

from __future__ import annotations

import worlds
from hypothesis import given
from keeping import manifest

from pgops.repository import chains
from pgops.repository.backups import Kept


def kept(name: str, parent: str = "") -> Kept:
    return Kept(name, manifest(id=name, kind="incremental" if parent else "full", parent=parent))


FULL, FIRST, SECOND, SIDE = kept("f"), kept("a", "f"), kept("b", "a"), kept("s", "f")
ALL = (FULL, FIRST, SECOND, SIDE)
KNOWN = {one.manifest.id: one for one in ALL}


def test_a_chain_is_the_full_one_first() -> None:
    assert chains.chain(SECOND, KNOWN) == (FULL, FIRST, SECOND)
    assert chains.chain(SIDE, KNOWN) == (FULL, SIDE)
    assert chains.chain(FULL, {}) == (FULL,)


def test_a_chain_without_its_full_one_is_none() -> None:
    without = {"a": FIRST, "b": SECOND}
    assert chains.chain(SECOND, without) is None
    assert chains.lineage(SECOND, without) == (FIRST, SECOND)
    assert chains.complete((SIDE, SECOND, FULL)) == (SIDE, FULL)


def test_a_circle_is_no_chain() -> None:
    one, other = kept("x", "y"), kept("y", "x")
    known = {"x": one, "y": other}
    assert chains.chain(one, known) is None
    assert chains.complete((one, other, FULL)) == (FULL,)
    # One that stands on a circle is not in it.
    assert chains.chain(kept("w", "x"), known) is None
    assert chains.chain(kept("z", "z"), {"z": kept("z", "z")}) is None


def test_dependants() -> None:
    assert chains.dependants(FULL, ALL) == (FIRST, SECOND, SIDE)
    assert chains.dependants(FIRST, ALL) == (SECOND,)
    assert chains.dependants(SECOND, ALL) == ()
    assert chains.dependants(FIRST, (FIRST, SECOND)) == (SECOND,)


@given(worlds.acts(("backup", "backup", "promote")))
def test_none_is_removed_before_what_stands_on_it(acts: list[worlds.Act]) -> None:
    backups = worlds.World().live(acts).backups
    ordered = chains.dependants_first(backups)
    assert sorted(ordered, key=backups.index) == backups
    left = list(ordered)
    for one in ordered:
        left.remove(one)
        assert not {other.manifest.id for other in chains.dependants(one, [one, *left])}
