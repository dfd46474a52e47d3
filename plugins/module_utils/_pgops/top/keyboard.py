# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Single keys of a terminal, as they are pressed."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

GONE = "\x04"
"""What is pressed on a terminal that is gone."""


@contextlib.contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Within it, keys are not shown and need no return. Yields what waits so many seconds for one: '' if none was
    pressed. Without a terminal there are none."""
    if not sys.stdin.isatty():
        yield _without
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _pressed(descriptor, seconds)
    finally:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _without(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _pressed(descriptor: int, seconds: float) -> str:
    if not select.select([descriptor], [], [], seconds)[0]:
        return ""
    with contextlib.suppress(OSError):
        return os.read(descriptor, 64).decode("latin-1")[:1] or GONE
    return GONE
