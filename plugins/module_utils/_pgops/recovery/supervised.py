# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work in a process of its own that is looked after: it is ended when its time is over, or something forbids it to go
on, and it ends with whoever looks after it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import PgOpsError

LOOKING = 0.5
"""Seconds between two looks."""
PR_SET_PDEATHSIG = 1
"""Source: prctl(2), linux/prctl.h."""

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Ended:
    """How work ended: by itself (``why`` is ''), or for what a look said. A process that ended without having said
    that it was done was ``killed``."""

    why: str = ""
    killed: bool = False


def run(work: Callable[[Tell], None], heard: Tell, look: Callable[[], str]) -> Ended:
    """Have a child process do some work, which tells what is to be ``heard``, as JSON, while it goes on. ``look`` is
    asked again and again why it has to end, '' for not yet. Errors of the library are told as ``error`` and ``code``.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(work, writing, parent)
    os.close(writing)
    done: list[bool] = []

    def told(message: Mapping[str, Any]) -> None:
        if "done" in message:
            done.append(True)
        else:
            heard(message)

    try:
        why = _listened(reading, told, look)
    finally:
        os.close(reading)
        _end(child)
    return Ended(why, killed=not why and not done)


def _listened(reading: int, told: Tell, look: Callable[[], str]) -> str:
    """Listen until the end of the work; why it is to be ended before, '' if it ended by itself."""
    text = b""
    looked = time.monotonic()
    while True:
        if select.select([reading], [], [], LOOKING)[0]:
            part = os.read(reading, 65536)
            *lines, text = (text + part).split(b"\n")
            for line in lines:
                told(json.loads(line))
            if not part:
                return ""
        if time.monotonic() >= looked + LOOKING:
            looked = time.monotonic()
            why = look()
            if why:
                return why


def _end(child: int) -> None:
    """End the child, and the programs that it runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)  # it may not lead its group yet
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


def _child(work: Callable[[Tell], None], writing: int, parent: int) -> NoReturn:
    """In the child. What it runs is of its group, so that it can be ended at once."""

    def tell(message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(writing, line) :]

    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            _work(work, tell)
    finally:
        os._exit(0)


def _work(work: Callable[[Tell], None], tell: Tell) -> None:
    try:
        work(tell)
    except PgOpsError as error:
        tell({"error": str(error), "kind": type(error).__name__})
    except Exception as error:  # noqa: BLE001 - whoever listens has to know why
        tell({"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__})
    tell({"done": True})
