# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The jobs `alerts`, which evaluates the rules, keeps what was seen then and shows people what fires, and `notify`,
which tells them."""

from __future__ import annotations

import argparse
import os
import time
from datetime import datetime
from typing import Any

from ..errors import PgOpsError
from ..host.files import exclusive
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..server.session import Session, connect
from . import keeping, shown
from . import notify as sending
from .outbox import QUEUE

BUDGET = 40.0
"""Seconds after which a run begins no other minute; the next run goes on from there."""

DUE = "SELECT d.due_at, extract(EPOCH FROM d.left_out)::float8 AS left_out FROM pgops.alert_moments_due() AS d"
DERIVE = "SELECT pgops.derive_metrics(%s)"
EVALUATE = "SELECT pgops.evaluate_alerts_at(%s)"


def alerts(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the rules, or show or acknowledge alerts, as the options say."""
    if options.prometheus:
        return shown.for_prometheus(settings, layout)
    if not options.evaluate:
        return shown.show(settings, options)
    with (
        exclusive(os.path.join(layout.state, "alerts.lock"), seconds=0),
        connect(endpoints.agent(settings, "alerts")) as session,
    ):
        done = evaluate(session)
        # By the same session: a server whose connections are all taken would refuse another one.
        kept = keeping.keep(session, settings, layout)
    return {**done, **kept, "errors": [*done["errors"], *kept["errors"]]}


def evaluate(session: Session, budget: float = BUDGET) -> dict[str, Any]:
    """Evaluate all minutes since the last evaluation, each in a transaction of its own, for at most ``budget``
    seconds; on a standby there is nothing to do, nor while standbys' samples are waited for. Returns how many
    ``minutes`` were evaluated, how many alerts ``fired``, how many minutes are ``left`` for the next run, and the
    errors.

    Raises PgOpsError if rules cannot be evaluated.
    """
    until = time.monotonic() + budget
    if session.in_recovery:
        return {"skipped": "standby: rules are evaluated on the primary", "errors": []}
    due = session.rows(DUE)
    if not due:
        return {"skipped": "the server has just started: what its standbys have measured is waited for", "errors": []}
    errors = _left_out(due[0]["left_out"])
    done = fired = 0
    for one in due:
        if done and time.monotonic() > until:
            break
        fired += _evaluated(session, one["due_at"], errors)
        done += 1
    _queue(session, errors)
    return {"minutes": done, "fired": fired, "left": len(due) - done, "errors": errors}


def _queue(session: Session, errors: list[str]) -> None:
    """Write what is to be told into the outbox, also where nobody comes to send it: then its age tells that."""
    try:
        session.value(QUEUE)
    except PgOpsError as error:
        errors.append(f"messages cannot be written: {error}")


def _left_out(seconds: float) -> list[str]:
    if not seconds:
        return []
    return [f"rules were not evaluated for more than a day; {seconds / 3600:.1f} hours of it stay so"]


def _evaluated(session: Session, moment: datetime, errors: list[str]) -> int:
    """How many alerts began to fire at a moment. Rules on what cannot be derived go without; others do not."""
    with session.transaction():
        try:
            with session.transaction():
                session.value(DERIVE, [moment])
        except PgOpsError as error:
            message = f"metrics cannot be derived: {error}"
            errors += [] if message in errors else [message]
        return int(session.value(EVALUATE, [moment]))


def notify(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Send what is due to the channels, or a test message to one."""
    if options.test is not None:
        return sending.test(settings, layout, options.test)
    with exclusive(os.path.join(layout.state, "notify.lock"), seconds=0):
        return sending.deliver(settings, layout)
