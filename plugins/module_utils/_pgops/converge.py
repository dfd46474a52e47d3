# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How everything is brought to what is declared: read, plan, and unless in check mode read again under the lock, and
apply. What reads, plans and applies is handed in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Callable, Protocol, TypeVar

from .plan import Change, Plan


class Planned(Protocol):
    """Something that has a plan; its parts may be carried out each in its own way."""

    @property
    def plan(self) -> Plan[Change]:
        """All of it, as it is reported."""


Found = TypeVar("Found")
Made = TypeVar("Made", bound=Planned)


def read_plan_apply(
    read: Callable[[], Found],
    plan: Callable[[Found], Made],
    apply: Callable[[Found, Made], None],
    check_mode: bool,
    lock: Callable[[], AbstractContextManager[object]] | None = None,
    review: Callable[[Found, Made], None] | None = None,
) -> Made:
    """Bring what is found to what is planned; the plan that was carried out, or would be.

    Nothing is applied in check mode, nor where nothing is planned. ``lock`` is taken only where there is something
    to do, and all is read and planned again once it is held; without one, the caller holds it from before reading.
    ``review`` sees the first plan, in check mode too, and raises what speaks against it.
    """
    found = read()
    made = plan(found)
    if review:
        review(found, made)
    if check_mode or not made.plan:
        return made
    if lock is None:
        apply(found, made)
        return made
    with lock():
        found = read()
        made = plan(found)
        apply(found, made)
    return made
