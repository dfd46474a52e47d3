# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings as ALTER SYSTEM writes them, and the restart that some of them need."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import QueryFailed
from ..plan import Change
from ..server import service
from ..server.changes import ServerChange
from ..server.service import Service
from ..server.session import Session, identifier, listed, statement
from .parameters import EMPTY_ELEMENT, LISTS, Parameter


@dataclass(frozen=True)
class Setting:
    """A parameter's value to be written: ``words`` for a list whose elements the server quotes, None to remove it."""

    parameter: Parameter
    text: str | None
    words: tuple[str, ...] | None = None

    @property
    def by_file(self) -> bool:
        """Whether it has to be written into the file itself."""
        return by_file(self.parameter.name, self.text)


@dataclass(frozen=True)
class SettingChange(ServerChange):
    """A parameter is written to postgresql.auto.conf; ``known`` is whether the server knows it already."""

    setting: Setting = field(repr=False, compare=False)
    known: bool = field(default=True, compare=False)

    def apply(self, session: Session) -> None:
        """The server applies it at its next reload or start."""
        name, text = self.setting.parameter.name, self.setting.text
        if not self.known:
            # Before 17 ALTER SYSTEM knows a parameter of a library that is not loaded only if the session has set it.
            session.value("SELECT set_config(%s, %s, false)", [name, text or ""])
        session.execute(alter(name, text, self.setting.words))


@dataclass(frozen=True)
class Restart(Change):
    """The server is restarted; how is known only on its host."""

    verb: ClassVar[str] = "restart"

    def apply(self, session: Session, found: Service) -> None:
        """After a checkpoint, to keep the downtime short; the restart goes on if the checkpoint fails.

        Raises HostFailed.
        """
        with contextlib.suppress(QueryFailed):
            session.script(f"SET statement_timeout = '{service.LONGEST_START}s'; CHECKPOINT")
        service.restart(found)


def by_file(name: str, text: str | None) -> bool:
    """Whether ALTER SYSTEM cannot write a value: of a list whose elements it quotes, it writes an empty one as a list
    with one empty element, with which no server starts."""
    quoted = LISTS.get(name.lower(), False) and name.lower() not in EMPTY_ELEMENT
    return quoted and text is not None and not text.strip()


def alter(name: str, text: str | None, words: Sequence[str] | None = None) -> Any:
    """The statement that writes a parameter, or resets it."""
    quoted = identifier(*name.split("."))
    if text is None:
        return statement("ALTER SYSTEM RESET {}", quoted)
    return statement("ALTER SYSTEM SET {} = {}", quoted, listed(words) if words else text)
