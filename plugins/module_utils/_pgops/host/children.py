# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work that may hang, each piece in a process of its own with one deadline for all."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .identity import close_all, end


def answers(works: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Any]:
    """What each piece of work returns, which must be JSON, all at the same time. What failed, or has no answer after
    ``seconds``, is missing. The process that asks has no threads."""
    until = time.monotonic() + seconds
    running: dict[int, tuple[str, int]] = {}
    heard: dict[str, bytes] = dict.fromkeys(works, b"")
    try:
        for name, work in works.items():
            reading, process = _started(work, seconds)
            running[reading] = (name, process)
        while running:
            ready = select.select(list(running), [], [], max(0.0, until - time.monotonic()))[0]
            if not ready:
                break
            for reading in ready:
                part = os.read(reading, 65536)
                heard[running[reading][0]] += part
                if not part:
                    _dismiss(reading, running.pop(reading)[1])
    finally:
        for reading, (_name, process) in running.items():
            _dismiss(reading, process)
    return {name: answer for name, text in heard.items() for answer in _read(text)}


def _started(work: Callable[[], Any], seconds: float) -> tuple[int, int]:
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        _work(work, writing, seconds)
    os.close(writing)
    return reading, process


def _dismiss(reading: int, process: int) -> None:
    os.close(reading)
    end(process)


def _read(text: bytes) -> list[Any]:
    """The one answer, none where it is not whole."""
    with contextlib.suppress(ValueError):
        return [json.loads(text)]
    return []


def _work(work: Callable[[], Any], answer: int, seconds: float) -> NoReturn:
    """In the child: it ends by itself as well, should whoever started it be gone."""
    try:
        close_all(but=answer)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(seconds) + 1)
        text = json.dumps(work()).encode()
        while text:
            text = text[os.write(answer, text) :]
    finally:
        os._exit(0)
