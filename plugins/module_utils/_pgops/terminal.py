# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people read of the commands. Names, paths, logs and messages are chosen by others, and a terminal obeys some
characters: it must not."""

from __future__ import annotations

import unicodedata
from typing import TextIO

OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what is not shown as it is: controls with ESC, marks of direction and other invisible ones,
halves of characters, and ends of lines and paragraphs."""


def shown(text: str) -> str:
    r"""A text as one line on which each character can be seen: \x1b, \u202e. Pure."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in OBEYED else one for one in text)


def _escaped(character: str) -> str:
    # A byte of a name that is not UTF-8 (surrogateescape) is shown as the byte.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def say(stream: TextIO, *lines: str) -> None:
    """Write lines."""
    stream.writelines(f"{shown(line)}\n" for line in lines)
    stream.flush()


def say_all(stream: TextIO, text: str) -> None:
    """Write a text with lines of its own, such as the end of a log."""
    say(stream, *text.rstrip("\n").split("\n"))
