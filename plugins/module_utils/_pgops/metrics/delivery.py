# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Delivering rounds to the sink."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..errors import QueryFailed
from ..instance.sink import Sink
from ..server.session import Session
from .collectors import Metric
from .rounds import Round, Sample, packed, place

STORE = "SELECT pgops.store_round(%s, %s, %s, %s, %s::double precision[])"

UNFIT = ("22", "23", "54")
"""Classes of SQLSTATE that can be about the round: data exception, integrity violation, program limit exceeded (a
label too long for an index). They can as well be about the sink: a server that is out of transaction ids has class
54, and what somebody has put onto the tables 23."""

WRONG_TIME = "22008"
"""SQLSTATE for a round that cannot be stored at all: it is too old, or in the future."""


def store(session: Session, node_id: int, found: Round, metrics: Mapping[str, Metric]) -> None:
    """Store one round, and define its shape if the sink does not know it; ``metrics`` are all that may be in it, by
    name.

    Raises QueryFailed.
    """
    fingerprint = bytes.fromhex(found.fingerprint)
    arguments = [node_id, fingerprint, found.origin, found.collected_at, list(found.values)]
    if session.value(STORE, arguments):
        return
    names = sorted({json.loads(series)["metric"] for series in found.series})
    definitions = json.dumps([metrics[name].definition() for name in names if name in metrics])
    series = "[" + ",".join(found.series) + "]"
    session.value(
        "SELECT pgops.define_shape(%s, %s, %s::jsonb, %s::jsonb)", [node_id, fingerprint, definitions, series]
    )
    session.value(STORE, arguments)


def deliver(sink: Sink, metrics: Mapping[str, Metric], found: Sequence[Round]) -> list[tuple[Round, str]]:
    """Store rounds, all in one transaction; returns those that can never be stored, each with its error.

    Raises QueryFailed if the sink does not work, for whatever it is given.
    """
    try:
        _store_all(sink, metrics, found)
    except QueryFailed as error:
        if _retryable(error):
            raise
        _try(sink, metrics, found[0])
        return _store_each(sink, metrics, found)
    return []


def _try(sink: Sink, metrics: Mapping[str, Metric], like: Round) -> None:
    """Store a round in which nothing can be wrong, and take it back.

    Raises QueryFailed: then the sink refuses everything.
    """
    sample = Sample(json.dumps({"metric": min(metrics)}), 0.0)
    with sink.session.transaction(rollback=True):
        now = sink.session.value("SELECT now()::text")
        for one in packed(place(60), [sample], now, like.origin, {}):
            _store_all(sink, metrics, [one])


def _retryable(error: QueryFailed) -> bool:
    """Whether a retry may store what was refused."""
    return (error.sqlstate or "")[:2] not in UNFIT


def _store_all(sink: Sink, metrics: Mapping[str, Metric], found: Sequence[Round]) -> None:
    with sink.transaction() as node_id:
        for one in found:
            store(sink.session, node_id, one, metrics)


def _store_each(sink: Sink, metrics: Mapping[str, Metric], found: Sequence[Round]) -> list[tuple[Round, str]]:
    """One by one, and if a round cannot be stored its halves: an error in one series must not cost the others."""
    wrong = []
    for one in found:
        try:
            _store_all(sink, metrics, [one])
        except QueryFailed as error:
            if _retryable(error):
                raise
            if len(one.series) > 1 and error.sqlstate != WRONG_TIME:
                wrong += _store_each(sink, metrics, one.halves())
            else:
                wrong.append((one, str(error)))
    return wrong
