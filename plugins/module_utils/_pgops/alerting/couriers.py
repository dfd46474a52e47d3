# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Processes that each carry one message: a service that hangs holds up nobody else, and is ended in time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NoReturn, TypeVar

from ..host.identity import close_all, end
from .outcome import AMBIGUOUS, Outcome

SECONDS = 20.0
"""That a message may take."""
LARGEST = 65536
"""Bytes of an answer."""


Key = TypeVar("Key")


@dataclass
class _Courier(Generic[Key]):
    key: Key
    process: int
    answers: int
    until: float
    heard: bytes = b""


@dataclass
class Couriers(Generic[Key]):
    """Those that are on their way, each with what it carries. The process that starts them has no threads."""

    running: list[_Courier[Key]] = field(default_factory=list)

    def start(self, key: Key, work: Callable[[], Outcome], seconds: float = SECONDS) -> None:
        """Do some work in a process of its own; ``key`` is returned with its outcome."""
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            _carry(work, writing, seconds)
        os.close(writing)
        self.running.append(_Courier(key, process, reading, time.monotonic() + seconds))

    def wait(self) -> list[tuple[Key, Outcome]]:
        """Wait until at least one has ended or is late; what came of those."""
        patience = max(0.0, min(courier.until for courier in self.running) - time.monotonic())
        ready = select.select([courier.answers for courier in self.running], [], [], patience)[0]
        found: list[tuple[Key, Outcome]] = []
        for courier in list(self.running):
            ended = courier.answers in ready and _read(courier)
            if ended or time.monotonic() >= courier.until:
                self._dismiss(courier)
                found.append((courier.key, _outcome(courier, ended)))
        return found

    def _dismiss(self, courier: _Courier[Key]) -> None:
        self.running.remove(courier)
        os.close(courier.answers)
        end(courier.process)

    def __enter__(self) -> Couriers[Key]:
        return self

    def __exit__(self, *exception: object) -> None:
        for courier in list(self.running):
            self._dismiss(courier)


def _read(courier: _Courier[Key]) -> bool:
    """Whether it has said all that it had to say."""
    heard = os.read(courier.answers, LARGEST)
    courier.heard += heard
    return not heard


def _outcome(courier: _Courier[Key], ended: bool) -> Outcome:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = json.loads(courier.heard)
        return Outcome(answer["word"], answer["error"])
    return Outcome(
        AMBIGUOUS, "The sending process ended without an answer." if ended else "There was no answer in time."
    )


def _carry(work: Callable[[], Outcome], answers: int, seconds: float) -> NoReturn:
    """In the child: it ends by itself as well, should whoever started it be gone."""
    try:
        close_all(but=answers)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(seconds) + 1)
        try:
            outcome = work()
        except Exception as error:  # noqa: BLE001 - of whatever service; its text may hold an address
            outcome = Outcome(AMBIGUOUS, f"The service failed with {type(error).__name__}.")
        os.write(answers, json.dumps({"word": outcome.word, "error": outcome.error}).encode())
    finally:
        os._exit(0)
