# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job `watch`: what an instance's server cannot say of itself is seen from its host, and told without it.

It has no session, and imports nothing that could have one: it works where the server, its disk or the Python driver
does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from .. import terminal
from ..errors import PgOpsError
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from . import channels, choices, courses, ledger, looks, texts
from .channels import Channel
from .courses import RESOLVED, Alert
from .ledger import Clock, Ledger
from .telling import GIVEN_UP, Telling

LOOKS = 40.0
"""Seconds after which a run looks no other time."""
PAUSE = 10.0
"""Seconds between two looks of a run, which has several where something may begin to fire."""
LATE = 180.0
"""Seconds after the last look, after which it is said that nobody watches."""
UNWATCHED = "unwatched"


def watch(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Look, and tell what is new; or only show what is known.

    Raises Busy.
    """
    if options.status:
        terminal.say(sys.stdout, *status(layout, Clock()))
        return {"printed": True, "errors": []}
    with ledger.alone(layout):
        return run(settings, layout, ledger.opened(layout), Clock())


def run(settings: Configuration, layout: Layout, book: Ledger, clock: Clock) -> dict[str, Any]:
    """One run. Returns ``firing`` (the rules whose alerts fire), ``sent`` messages, the ``heartbeat`` (sent, failed,
    withheld or unwatched) and the errors."""
    errors = book.load()
    book.wake(clock.boot(), clock.since_boot())
    errors += _looked(settings, layout, book, clock)
    if not book.save():
        errors.append("nothing can be remembered: what fires is told each quarter of an hour")
    known, wrong = _channels(layout)
    telling = Telling(
        book, (settings.cluster, settings.node), _of_kinds(known, "apprise", "alertmanager"), _choices(layout), clock
    )
    telling.run()
    beat = _beat(telling, known, well=not wrong and not telling.untold() and book.kept)
    book.save()
    firing = sorted(one.rule for one in book.alerts if one.fires)
    return {"firing": firing, "sent": telling.sent, "heartbeat": beat, "errors": [*errors, *wrong, *telling.errors]}


def _looked(settings: Configuration, layout: Layout, book: Ledger, clock: Clock) -> list[str]:
    """Look until nothing waits to fire that could within the run; the errors of the last look."""
    until = clock.since_boot() + LOOKS
    lost = 0
    while True:
        now = clock.since_boot()
        sight = looks.look(settings, layout, book.jobs, now)
        book.looked = clock.day()
        before = book.alerts
        book.alerts = courses.advanced(before, sight.findings, clock.since_boot(), book.looked)
        lost += _lost(before, book.alerts)
        left = courses.waits(book.alerts, clock.since_boot())
        if left is None or clock.since_boot() + left > until:
            book.lost += lost
            return [*sight.errors, *([f"{lost} alerts ended a day ago, and nobody could be told"] if lost else [])]
        book.save()
        clock.sleep(min(PAUSE, max(left, 1.0)))


def _lost(before: list[Alert], after: list[Alert]) -> int:
    """How many alerts have gone that fired and were told to nobody."""
    kept = {one.alert_id for one in after}
    return sum(1 for one in before if one.state == RESOLVED and not one.told and one.alert_id not in kept)


def _channels(layout: Layout) -> tuple[dict[str, Channel], list[str]]:
    """The channels whose addresses this host has, and what is wrong with them."""
    try:
        return channels.load(layout.channels)
    except PgOpsError as error:
        return {}, [str(error)]


def _of_kinds(known: Mapping[str, Channel], *kinds: str) -> dict[str, Channel]:
    return {name: channel for name, channel in known.items() if channel.kind in kinds}


def _choices(layout: Layout) -> choices.Choices:
    return choices.remembered(layout.choices)


def _beat(telling: Telling, known: Mapping[str, Channel], well: bool) -> str:
    """Call the heartbeats after a good run, so that others notice where there is none."""
    found = _of_kinds(known, "heartbeat").values()
    if not found:
        return UNWATCHED
    if not well:
        return "withheld"
    answered = [telling.beat(channel) for channel in found]
    return "sent" if all(answered) else "failed"


def status(layout: Layout, clock: Clock) -> list[str]:
    """What is known, in lines: alerts that are open, and those that ended within a day; addresses that do not work;
    and whether anybody notices if this host is gone."""
    book = ledger.opened(layout)
    lines = book.load()
    shown = sorted(book.alerts, key=lambda one: (one.state == RESOLVED, -(one.fired_at or 0.0)))
    lines += [_shown(one) for one in shown] or ["No alert fires."]
    lines += [_address(name, one.failed, one.error) for name, one in sorted(book.addresses.items()) if one.failed]
    lines += [f"{book.lost} alerts have ended before anybody could be told."] if book.lost else []
    known, wrong = _channels(layout)
    if not _of_kinds(known, "apprise", "alertmanager"):
        lines.append("This host has no addresses of channels: nobody is told of these alerts (docs/watch.md).")
    if not _of_kinds(known, "heartbeat"):
        lines.append("unwatched: no heartbeat is configured, so nobody notices if this host is gone (docs/watch.md).")
    elif book.beat is None:
        lines.append("The heartbeat has never been sent.")
    else:
        lines.append(f"The heartbeat was last sent at {_moment(book.beat)}.")
    return [*lines, *wrong, _last(book, clock)]


def _last(book: Ledger, clock: Clock) -> str:
    if book.looked is None:
        return "The watch has never looked: the job watch has to run each minute."
    late = clock.day() - book.looked
    if late > LATE:
        return f"The watch last looked {late:.0f} s ago: see the log of the job watch."
    return f"The watch last looked at {_moment(book.looked)}."


def _moment(day: float | None) -> str:
    return choices.moment(day)


def _shown(alert: Alert) -> str:
    labels = ", ".join(f"{name} {value}" for name, value in sorted(alert.labels.items()))
    what = f"{alert.rule} ({labels})" if labels else alert.rule
    said = courses.RULES[alert.rule].says.format(text=texts.escaped(alert.text))
    when = "" if alert.fired_at is None else f"  {_moment(alert.fired_at)}"
    until = "" if alert.ended_at is None else f" to {_moment(alert.ended_at)}"
    told = ", ".join(sorted(alert.told)) or "nobody"
    return f"{alert.severity:<8}  {alert.state:<10}{when}{until}  {what}  {said}  [told: {told}]"


def _address(name: str, failed: int, error: str) -> str:
    more = "; other channels are told instead" if failed >= GIVEN_UP else ""
    return f"{name} failed {failed} times in a row{more}: {error}"
