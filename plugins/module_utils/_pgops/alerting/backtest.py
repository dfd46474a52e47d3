# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a rule would have done with the samples that are stored, in bounded time."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import PgOpsError
from ..server import foreign
from ..server.names import READER
from ..server.session import Session, connect
from ..server.target import Target
from .rules import Rule

SECONDS = 30.0
"""For all rules of a run together."""

SHOWN = 5
"""How many series are named."""

QUERY = """
SELECT b.series, b.fired, b.firing_seconds
FROM pgops.backtest_summary(%s::jsonb, now() - make_interval(secs => %s), now()) AS b
ORDER BY b.firing_seconds DESC, b.series
"""


@dataclass(frozen=True)
class Backtest:
    """``rule`` would have fired ``fired`` times in the last ``days``, ``seconds`` in all, for these ``series``, those
    with most first; ``error`` is why that is not known."""

    rule: str
    days: float
    fired: int = 0
    seconds: float = 0
    series: Sequence[str] = ()
    error: str = ""

    def data(self) -> dict[str, Any]:
        """As a module returns it."""
        return {**asdict(self), "series": list(self.series)}

    @property
    def line(self) -> str:
        """For people."""
        if self.error:
            return f"alert rule {self.rule}: not tried: {self.error}"
        if not self.fired:
            return f"alert rule {self.rule}: would not have fired in the last {self.days:g} days"
        times = "once" if self.fired == 1 else f"{self.fired} times"
        more = f" and {len(self.series) - SHOWN} more" if len(self.series) > SHOWN else ""
        return (
            f"alert rule {self.rule}: would have fired {times} in the last {self.days:g} days, "
            f"{self.seconds / 60:.0f} minutes in all: {'; '.join(self.series[:SHOWN])}{more}"
        )


def backtests(inside: Target, rules: Sequence[Rule], days: float) -> list[Backtest]:
    """Try rules on the samples of the last ``days``, each in its share of the time that is left; a disabled one as if
    it were enabled. What cannot be tried says why."""
    until = time.monotonic() + SECONDS
    found: list[Backtest] = []
    try:
        with connect(inside) as session:
            if session.superuser:
                # For good: functions of the schema are run, and never by a superuser.
                foreign.refuse(session, become=READER)
            for place, rule in enumerate(rules):
                share = max(0.0, until - time.monotonic()) / (len(rules) - place)
                found.append(_tried(session, rule, days, share))
    except PgOpsError as error:
        found += [Backtest(_named(rule), days, error=str(error)) for rule in rules[len(found) :]]
    return found


def _tried(session: Session, rule: Rule, days: float, share: float) -> Backtest:
    row = json.dumps({**rule.row(), "labels": dict(rule.labels), "notification_channels": []})
    try:
        with session.transaction():
            session.execute("SELECT set_config('statement_timeout', %s, true)", [str(max(1, round(share * 1000)))])
            rows = session.rows(QUERY, [row, days * 86400])
    except PgOpsError as error:
        return Backtest(_named(rule), days, error=str(error))
    return Backtest(
        _named(rule),
        days,
        sum(one["fired"] for one in rows),
        sum(one["firing_seconds"] for one in rows),
        tuple(one["series"] for one in rows),
    )


def _named(rule: Rule) -> str:
    return f"{rule.name} ({rule.severity})"
