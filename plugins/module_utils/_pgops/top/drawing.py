# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines on a terminal that are drawn anew again and again. The only file that imports rich, which knows terminals."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import HostFailed
from .screen import BAD, FAINT, PLAIN, TITLE, WARNING, Line

STYLES: Mapping[str, str] = {PLAIN: "", TITLE: "bold", FAINT: "dim", WARNING: "yellow", BAD: "bold red"}


def _rich(module: str) -> Any:
    try:
        return importlib.import_module(f"rich.{module}")
    except ImportError as error:
        raise HostFailed(
            f"rich, which draws on the terminal, cannot be imported: {error}.",
            "Install the package python3-rich of Debian, or rich of PyPI for the agent's Python. Without it, "
            "`pgops top --once` shows the same, once.",
        ) from None


class Drawing:
    """The whole terminal, in a screen of its own, so that what was there before comes back in the end.

    Raises HostFailed if rich is not installed.
    """

    def __init__(self) -> None:
        # Nothing in a text is markup, an emoji or something to be coloured.
        self._text = _rich("text").Text
        self._console = _rich("console").Console(markup=False, emoji=False, highlight=False)
        self._live = _rich("live").Live(console=self._console, screen=True, auto_refresh=False)
        self._shown: object = None

    @property
    def able(self) -> bool:
        """Whether the terminal can be drawn on anew."""
        return bool(self._console.is_terminal and not self._console.is_dumb_terminal)

    @property
    def size(self) -> tuple[int, int]:
        """Its columns and lines now."""
        found = self._console.size
        return int(found.width), int(found.height)

    def show(self, lines: Sequence[Line]) -> None:
        """Draw lines, unless they are there."""
        seen = (self.size, tuple(lines))
        if seen != self._shown:
            self._shown = seen
            whole = self._text("\n", no_wrap=True, overflow="crop").join(
                self._text(line.text, style=STYLES[line.style], no_wrap=True, overflow="crop") for line in lines
            )
            self._live.update(whole, refresh=True)

    def __enter__(self) -> Drawing:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
