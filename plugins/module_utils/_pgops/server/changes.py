# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes of a server, carried out in a session of the caller."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import QueryFailed
from ..plan import Change
from .session import Session


@dataclass(frozen=True)
class ServerChange(Change, ABC):
    """A change of the server or the database of a session."""

    @abstractmethod
    def apply(self, session: Session) -> None:
        """Carry it out. Raises QueryFailed."""


@dataclass(frozen=True)
class Statements(ServerChange):
    """A change by a few statements, as `session.statement` composes them; they may contain secrets."""

    statements: tuple[Any, ...] = field(repr=False, compare=False)

    def apply(self, session: Session) -> None:
        """Execute the statements in their order."""
        for one in self.statements:
            session.execute(one)


def apply(session: Session, changes: Iterable[ServerChange]) -> None:
    """Carry changes out in their order.

    Raises QueryFailed, which names the change that the server refused.
    """
    for change in changes:
        with _named(change):
            change.apply(session)


def apply_together(session: Session, changes: Sequence[Statements]) -> None:
    """Carry many small changes out in one round trip, within a transaction.

    Raises QueryFailed, which names the change that the server refused.
    """
    try:
        with session.transaction():
            session.script(*(one for change in changes for one in change.statements))
    except QueryFailed:
        apply(session, changes)  # one by one, to name the one at fault


@contextlib.contextmanager
def _named(change: Change) -> Iterator[None]:
    try:
        yield
    except QueryFailed as error:
        raise QueryFailed(f"{change.subject}: {error.message}", error.hint, error.sqlstate) from error
