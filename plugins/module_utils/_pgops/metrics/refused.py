# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server that refuses the agent a session: that is measured, and what its words say of its connections.

It waits in the spool, with its own time, until the server lets the agent in, and the export shows it meanwhile.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from ..errors import LoginRefused, PgOpsError
from ..instance.layout import Layout
from . import latest
from .collectors import LOGIN
from .rounds import Round, Sample, iso, packed, place
from .spool import Spool

REFUSED = "login_refused"
USED = "connections_used_percent"
LEAST = 100.0
"""In %: of the connections that are not reserved as many are taken, or more."""
ACTIVITY = "activity"
"""The collector of USED."""
UNKNOWN = "- -"
"""Since when the server counts, of which it says nothing; what is measured here are no counters."""


@contextlib.contextmanager
def noted(layout: Layout, waiting: Spool, at: float) -> Iterator[None]:
    """Measure the refusal of a session that is asked for inside, at ``at`` (Unix time). Nobody else may use the spool
    meanwhile.

    Raises LoginRefused all the same.
    """
    try:
        yield
    except LoginRefused as error:
        known = values(error)
        _spool(waiting, rounds(known, at))
        runs = [
            latest.Run(name, "", LOGIN.interval, at, [(_series(metric), known[metric])])
            for name, metric in ((LOGIN.name, REFUSED), (ACTIVITY, USED))
            if metric in known
        ]
        with contextlib.suppress(PgOpsError, OSError):  # a full disk only prevents the export
            latest.remember(layout.latest_repeated, runs, at)
        raise


def values(error: LoginRefused) -> dict[str, float]:
    """What is known of the server, by metric.

    >>> values(LoginRefused("sorry", full=True))
    {'login_refused': 1.0, 'connections_used_percent': 100.0}
    """
    return {REFUSED: 1.0, **({USED: LEAST} if error.full else {})}


def rounds(known: dict[str, float], at: float) -> list[Round]:
    """The rounds of values, each its own: one without a value does not change the shape of another."""
    found = [Sample(_series(name), value) for name, value in known.items()]
    return [made for one in found for made in packed(place(LOGIN.interval), [one], iso(at), UNKNOWN, {})]


def _series(metric: str) -> str:
    return json.dumps({"metric": metric})


def _spool(waiting: Spool, found: list[Round]) -> None:
    waiting.prepare()
    try:
        waiting.append(found)
    except OSError:
        waiting.count_dropped(sum(one.samples for one in found))
