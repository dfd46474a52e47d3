# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the declared state is reached: read, plan, and unless in check mode lock, read and plan again, and apply. The
functions that do so are passed in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Callable, Protocol, TypeVar

from .plan import Change, Plan


class Planned(Protocol):
    """Something that has a plan; each of its parts may be carried out in its own way."""

    @property
    def plan(self) -> Plan[Change]:
        """All changes, as they are reported."""


Found = TypeVar("Found")
Result = TypeVar("Result", bound=Planned)


def read_plan_apply(
    read: Callable[[], Found],
    plan: Callable[[Found], Result],
    apply: Callable[[Found, Result], None],
    check_mode: bool,
    lock: Callable[[], AbstractContextManager[object]] | None = None,
    review: Callable[[Found, Result], None] | None = None,
) -> Result:
    """Plan and apply changes; returns the plan that was carried out, or would be.

    Nothing is applied in check mode, nor if nothing is planned. ``lock`` is taken only if there is something to do,
    and then all is read and planned again; without one, the caller has held it since before reading. ``review`` gets
    the first plan, in check mode too, and raises an error against it.
    """
    found = read()
    planned = plan(found)
    if review:
        review(found, planned)
    if check_mode or not planned.plan:
        return planned
    if lock is None:
        apply(found, planned)
        return planned
    with lock():
        found = read()
        planned = plan(found)
        apply(found, planned)
    return planned
