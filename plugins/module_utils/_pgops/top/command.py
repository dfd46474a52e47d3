# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command ``pgops top``: what runs on an instance, who blocks whom, what fires and what changed; now, or at a
moment in the past."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .. import terminal
from ..agent import runner
from ..errors import DriverMissing, InvalidInput, LoginRefused, PgOpsError
from ..host.files import failure, user_name
from ..instance import configuration
from ..instance.configuration import Configuration
from ..instance.layout import Layout, only_instance
from ..server.session import connect
from . import live, moment, past
from .drawing import Drawing
from .keyboard import GONE, keys
from .live import Login, Watcher
from .picture import Picture
from .screen import BAD, FAINT, SORTS, WARNING, Line, lines
from .values import cut, line, span, wrapped

INTERVAL, LEAST = 2.0, 0.5
"""Seconds between two looks, unless it is told otherwise, and the fewest."""
GAP = 1.0
"""Seconds between the two looks of one picture, whose rates are of that time."""
SHARE = 4.0
"""So many times as long as a look took is waited at least until the next: a server in trouble is not asked more."""
TICK = 0.25
"""Seconds after which the screen is drawn anew at the latest."""
SLOW = 1.5
"""Seconds after which it is said that a look is not over."""
WIDE = 160
"""Columns of what is not a terminal."""


@dataclass(frozen=True)
class Asked:
    """What the options ask for: ``at`` a moment in the past; ``once``, and not again and again."""

    interval: float
    at: datetime | None
    once: bool
    json: bool


def top(options: argparse.Namespace) -> int:
    """Show what happens, as the options say; the exit code."""
    try:
        asked = parse(options, datetime.now().astimezone(), sys.stdout.isatty())
        layout = Layout(options.instance or only_instance(options.prefix), options.prefix)
        own = configuration.load(layout)
        login = _logging_in(own, layout)
        os.chdir("/")  # where the agent's user may look
        if asked.at is not None:
            return _told(past.read(own, asked.at), asked)
        watcher = Watcher(own, login)
        return _told(_twice(watcher), asked) if asked.once else _drawn(watcher, asked)
    except InvalidInput as error:
        return _failed(error, runner.USAGE)
    except PgOpsError as error:
        return _failed(error, runner.FAILED)
    except OSError as error:
        return _failed(failure(error, "The picture cannot be made"), runner.FAILED)
    except KeyboardInterrupt:
        return runner.DONE


def _failed(error: PgOpsError, code: int) -> int:
    terminal.say_all(sys.stderr, f"pgops: {error}")
    return code


def parse(options: argparse.Namespace, now: datetime, drawable: bool) -> Asked:
    """What options mean; ``drawable``: there is a terminal to draw on. Pure.

    Raises InvalidInput.
    """
    at = moment.parse(options.at, now) if options.at is not None else None
    once = options.once or options.json or at is not None or not drawable
    return Asked(_interval(options.interval), at, once, options.json)


def _interval(text: str | None) -> float:
    if text is None:
        return INTERVAL
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not LEAST <= seconds <= 3600:
        raise InvalidInput(f"{text!r} is no interval in seconds.", f"Use a number from {LEAST:g} to 3600.")
    return seconds


def _logging_in(own: Configuration, layout: Layout) -> Login:
    """Become the user that looks, and how that logs in: the agent's; or the server's, where that one runs this, or
    where root does and all connections are taken but those that are reserved to superusers."""
    reserved = not own.host and os.path.isdir(layout.keeping) and _reserved(own, layout)
    runner.step_down(layout.keeping if reserved else layout.state)
    return live.reserved(own) if reserved else live.agents(own)


def _reserved(own: Configuration, layout: Layout) -> bool:
    if os.geteuid() != 0:
        return os.stat(layout.keeping).st_uid == os.geteuid() != _owner(layout.state)
    target = replace(live.agents(own).target, os_user=user_name(_owner(layout.state)))
    try:
        connect(target).close()
    except LoginRefused as error:
        return error.full
    except PgOpsError:
        return False  # it is said where it is looked for in earnest
    return False


def _owner(path: str) -> int:
    return os.stat(path).st_uid


def _twice(watcher: Watcher) -> Picture:
    """A picture with rates."""
    watcher.look()
    time.sleep(GAP)
    found = watcher.look()
    watcher.close()
    return found


def _told(picture: Picture, asked: Asked) -> int:
    """Print a picture."""
    if asked.json:
        sys.stdout.write(json.dumps(picture.data(), default=_plain, indent=2) + "\n")
        return runner.DONE
    width = shutil.get_terminal_size((WIDE, 24)).columns
    terminal.say(sys.stdout, *(one.text for one in lines(picture, width)))
    return runner.DONE


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


# --- again and again


@dataclass(frozen=True)
class Seen:
    """The last picture; since when (monotonic, in seconds) the server gives none, and why; and since when it has been
    asked for one, None if it is not just now."""

    picture: Picture | None = None
    since: float | None = None
    error: str = ""
    asked: float | None = None


class Looking(threading.Thread):
    """Looks, beside the thread that draws: a look at a server in trouble takes seconds. ``failed`` is what has ended
    it, None while it goes on."""

    def __init__(self, watcher: Watcher, interval: float) -> None:
        super().__init__(daemon=True)
        self.watcher, self.interval = watcher, interval
        self.seen = Seen()
        self.failed: Exception | None = None

    def run(self) -> None:
        """Look until the process ends."""
        try:
            while True:
                began = time.monotonic()
                self.seen = replace(self.seen, asked=began)
                self.seen = self._next(began)
                took = 0.0 if self.seen.error else time.monotonic() - began
                time.sleep(max(self.interval, SHARE * took))
        except Exception as error:  # noqa: BLE001 - the thread that draws raises it, once the terminal is as it was
            self.failed = error

    def _next(self, began: float) -> Seen:
        try:
            return Seen(self.watcher.look())
        except DriverMissing:
            raise
        except (PgOpsError, OSError) as error:
            return replace(self.seen, since=self.seen.since or began, error=str(error), asked=None)


def _drawn(watcher: Watcher, asked: Asked) -> int:
    """Draw until q is pressed."""
    drawing = Drawing()
    if not drawing.able:
        return _told(_twice(watcher), asked)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    looking = Looking(watcher, asked.interval)
    looking.start()
    with drawing, keys() as pressed:
        _watch(looking, drawing, pressed)
    if looking.failed is not None:
        raise looking.failed
    return runner.DONE


def _end(number: int, _frame: object) -> None:
    """On a signal, by way of all that leaves the terminal as it was; the exit code is that of shells."""
    raise SystemExit(128 + number)


def _watch(looking: Looking, drawing: Drawing, pressed: Callable[[float], str]) -> None:
    orders = list(SORTS)
    while looking.failed is None:
        drawing.show(screen(looking.seen, time.monotonic(), drawing.size, orders[0]))
        key = pressed(TICK)
        if key in ("q", "Q", GONE):
            return
        if key == "s":
            orders.append(orders.pop(0))


def screen(seen: Seen, now: float, size: tuple[int, int], sort: str) -> list[Line]:
    """All lines of the terminal; ``now`` is monotonic, in seconds. Pure."""
    width, height = size
    keys_shown = Line(cut(f"q quits   s sorts sessions (by {sort})", width), FAINT)
    told = _trouble(seen, now, width)
    body = lines(seen.picture, width, max(0, height - len(told) - 1), sort) if seen.picture else []
    whole = [*told, *body][: max(0, height - 1)]
    return [*whole, *[Line("")] * max(0, height - 1 - len(whole)), keys_shown][:height]


def _trouble(seen: Seen, now: float, width: int) -> list[Line]:
    """What is said before the picture, if that is not of now."""
    if seen.since is not None:
        text = f"NO ANSWER for {span(now - seen.since)}: {line(seen.error)}"
        last = [Line(cut("What follows is what was seen last.", width), FAINT)] if seen.picture else []
        return [*(Line(one, BAD) for one in wrapped(text, width, 3)), *last]
    waits = now - seen.asked if seen.asked is not None else 0.0
    if seen.picture is None or waits > SLOW:
        return [Line(cut(f"The server has been asked for {span(waits)}, and has not answered yet.", width), WARNING)]
    return []
