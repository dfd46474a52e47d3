# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read, plan, and unless in check mode read again under the lock, and apply."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pgops.converge import read_plan_apply
from pgops.errors import Conflict
from pgops.plan import Change, Plan


class Place:
    """Somewhere a number is kept, with a record of what happens there; ``meanwhile`` another run sets it, until this
    one has the lock."""

    def __init__(self, number: int, meanwhile: int | None = None) -> None:
        self.number = number
        self.meanwhile = number if meanwhile is None else meanwhile
        self.events: list[str] = []

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others out."""
        self.events.append("lock")
        self.number = self.meanwhile
        yield
        self.events.append("unlock")

    def read(self) -> int:
        """What is there."""
        self.events.append("read")
        return self.number

    def plan(self, found: int) -> Plan[Change]:
        """It is to be 1."""
        return Plan(() if found == 1 else (Change("number", found, 1),))

    def apply(self, found: int, made: Plan[Change]) -> None:
        """Make it so."""
        assert (found, [change.before for change in made]) == (self.number, [] if found == 1 else [found])
        self.events.append("apply")
        self.number = 1

    def review(self, found: int, made: Plan[Change]) -> None:
        """Speak against negative numbers."""
        assert [change.before for change in made] == ([] if found == 1 else [found])
        self.events.append("review")
        if found < 0:
            raise Conflict("It is negative.")

    def converge(self, check_mode: bool = False, locked: bool = True) -> Plan[Change]:
        """All of it."""
        lock = self.lock if locked else None
        return read_plan_apply(self.read, self.plan, self.apply, check_mode, lock, self.review)


def test_check_mode_neither_applies_nor_takes_the_lock() -> None:
    place = Place(0)
    assert [change.before for change in place.converge(check_mode=True)] == [0]
    assert (place.events, place.number) == (["read", "review"], 0)


@pytest.mark.parametrize("locked", [True, False])
def test_nothing_is_done_where_nothing_is_planned(locked: bool) -> None:
    place = Place(1)
    assert not place.converge(locked=locked)
    assert place.events == ["read", "review"]


def test_all_is_read_and_planned_again_under_the_lock() -> None:
    place = Place(0, meanwhile=5)
    assert [change.before for change in place.converge()] == [5]
    assert place.events == ["read", "review", "lock", "read", "apply", "unlock"]


def test_what_another_run_has_done_meanwhile_is_not_told_as_done() -> None:
    assert not Place(0, meanwhile=1).converge()


def test_with_a_lock_that_is_held_already_it_is_read_once() -> None:
    place = Place(0, meanwhile=5)
    assert [change.before for change in place.converge(locked=False)] == [0]
    assert place.events == ["read", "review", "apply"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_what_speaks_against_a_plan_is_raised_before_anything_is_done(check_mode: bool) -> None:
    place = Place(-1)
    with pytest.raises(Conflict):
        place.converge(check_mode)
    assert place.events == ["read", "review"]
