# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job that stores the usage of statements since its last run, their texts, and slow executions."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..errors import PgOpsError
from ..host.files import File, write
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..instance.sink import Sink, node, opened
from ..metrics import delivery, latest
from ..metrics.collect import ORIGIN
from ..metrics.collectors import SELF
from ..metrics.rounds import Sample, packed, place, samples
from ..server.names import EXPLAINER
from ..server.session import Session, connect
from . import explain
from .options import options
from .readings import KEY, SUMS, Difference, Entry, Key, Snapshot, Usage, difference, execution, snapshot, top
from .redaction import redacted

QUERIES = SELF["queries"]

MISSING = "The database {} has no extension pg_stat_statements. Set pgops_statements to true and run site.yml."

STATISTICS = """
SELECT s.taken_at, s.reset_at, s.evicted, s.active_ms, s.statistics_since,
       (SELECT c.system_identifier::text FROM pg_control_system() AS c) AS origin
FROM pgops.statement_statistics() AS s
"""
COUNTERS = f"SELECT {', '.join((*KEY, *SUMS))}, max_exec_ms, stats_since FROM pgops.statement_counters()"

SESSIONS = "SELECT pgops.slow_sessions(%s::numeric, %s)::text"

STORE_SESSIONS = "SELECT pgops.store_slow_sessions(%s, %s::jsonb)"

STORE_EXECUTIONS = "SELECT pgops.store_slow_statements(%s, %s::timestamptz, %s::timestamptz, %s::jsonb)"

FORGET = "SELECT pgops.forget_slow_queries()"

FULL = "slow_query_log is full: its {} oldest executions were deleted. Raise pgops_slow_query_ms."

PLACE = ("queryid", "database_name", "user_name", "toplevel")
"""The columns that identify a statement."""

STORE = "SELECT pgops.store_query_usage(%s, %s::timestamptz, %s::timestamptz, %s::real, %s::jsonb, %s)"


def collect(configuration: Configuration, layout: Layout, _options: object = None) -> dict[str, Any]:
    """Store the difference to the reading of the previous run. Returns how many statements were used and how many
    were stored, the coverage in %, how many texts are new, how many executions were slow, and how many plans were
    made. The first run has no difference yet.

    The reading is saved only after delivery: usage that a run could not deliver is in the next one's difference.

    Raises PgOpsError if the source or the sink does not work; then nothing was stored.
    """
    path = os.path.join(layout.state, "queries.json")
    with connect(endpoints.agent(configuration, "queries")) as source:
        if not source.value("SELECT count(*) FROM pgops.statements_extension()"):
            return {"skipped": MISSING.format(source.database), "errors": []}
        now, before = read(source), load(path)
        found = difference(before, now) if before else None
        reading = File(path, json.dumps(now.document()).encode(), 0o640)
        if not found:  # then no failure can lose one
            write(reading)
        metrics = measured(now, found)
        wrong = remember(layout, now, metrics)
        whose = node(configuration, source)
        with opened(configuration, layout, source, whose) as sink:
            result = deliver(configuration, source, sink, (before, now), found, metrics)
        write(reading)
        result["errors"] += wrong
        if options(configuration).explain:
            result["plans"] = explain.explain(configuration, layout, source, whose)
        return result


def read(source: Session) -> Snapshot:
    """The content of pg_stat_statements now, without the texts.

    Raises QueryFailed.
    """
    about = source.row(STATISTICS)
    entries = {_key(row): _entry(row) for row in source.rows(COUNTERS)}
    values = {name: _plain(value) for name, value in (about or {}).items()}
    return Snapshot(**values, entries=entries)


def _key(row: dict[str, Any]) -> Key:
    return (row["dbid"], row["userid"], row["queryid"], row["toplevel"])


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(tuple(row[name] for name in SUMS), row["max_exec_ms"], _plain(row["stats_since"]))


def _plain(value: Any) -> Any:
    """A value for JSON: times as text."""
    return value.isoformat() if hasattr(value, "isoformat") else value


def load(path: str) -> Snapshot | None:
    """The reading of the previous run; None if there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return snapshot(json.load(file))
    except (OSError, ValueError):
        return None


def measured(now: Snapshot, found: Difference | None) -> list[Sample]:
    """The metrics of this job, without unknown values."""
    coverage = found.coverage if found else None
    row = {"statements_evicted": now.evicted, "query_coverage_percent": coverage, "counted_since": now.reset_at}
    return samples(QUERIES, [row])


def remember(layout: Layout, now: Snapshot, metrics: list[Sample]) -> list[str]:
    """Store the metrics for the export; returns errors. A full disk only prevents that."""
    taken_at = datetime.fromisoformat(now.taken_at).timestamp()
    values = [(one.series, one.value) for one in metrics]
    try:
        run = latest.Run(QUERIES.name, "", QUERIES.interval, taken_at, values)
        latest.remember(layout.latest_queries, [run], taken_at)
    except (PgOpsError, OSError) as error:
        return [f"the newest values cannot be stored for the export: {error}"]
    return []


def deliver(
    configuration: Configuration,
    source: Session,
    sink: Sink,
    between: tuple[Snapshot | None, Snapshot],
    found: Difference | None,
    metrics: list[Sample],
) -> dict[str, Any]:
    """Store the job's metrics, the difference if there is one, the texts that the sink does not have yet, and slow
    executions, all in one transaction.

    Raises PgOpsError.
    """
    before, now = between
    wanted = options(configuration)
    threshold = wanted.slow_query_ms
    sessions = None if threshold < 0 else source.value(SESSIONS, [threshold, wanted.query_texts])
    counted: dict[str, Any] = {"first": True, "statements": len(now.entries)}
    session = sink.session
    with sink.transaction() as node_id:
        store_metrics(session, node_id, source.value(ORIGIN), now.taken_at, metrics)
        slow = session.value(STORE_SESSIONS, [node_id, sessions]) if sessions else 0
        if before and found:
            interval = (node_id, before.taken_at, now.taken_at)
            counted, executions = store(configuration, source, session, interval, found)
            slow += executions
        lost = session.value(FORGET)
    where = "local" if session is source else "primary"
    return {**counted, "slow": slow, "sink": where, "errors": [FULL.format(lost)] if lost else []}


def store(
    configuration: Configuration, source: Session, sink: Session, interval: tuple[int, str, str], found: Difference
) -> tuple[dict[str, Any], int]:
    """Store the difference of an interval (node, begin, end); returns the counts, and how many executions were
    slow.

    Raises QueryFailed.
    """
    stored = top(found.usage)
    documents = named(source, stored)
    wanted = options(configuration)
    slow = slowest(stored, documents, wanted.slow_query_ms, configuration.role)
    unknown = sink.value(STORE, [*interval, found.coverage, json.dumps(documents), found.evictions])
    texts = store_texts(source, sink, interval[0], unknown) if wanted.query_texts and unknown else 0
    executions = sink.value(STORE_EXECUTIONS, [*interval, json.dumps(slow)])
    counted = {"statements": len(found.usage), "stored": len(stored), "coverage": found.coverage, "texts": texts}
    return counted, executions


def store_metrics(sink: Session, node_id: int, origin: str, taken_at: str, metrics: list[Sample]) -> None:
    """Store the metrics of this job, each as its own round: one without a value does not change the shape of another.

    Raises QueryFailed.
    """
    known = {metric.name: metric for metric in QUERIES.metrics}
    for one in metrics:
        for made in packed(place(QUERIES.interval), [one], taken_at, origin, {}):
            delivery.store(sink, node_id, made, known)


def slowest(
    usage: Sequence[Usage], documents: Sequence[Mapping[str, Any]], threshold_ms: float, role: str
) -> list[dict[str, Any]]:
    """The slow executions, none if the threshold is negative. ``documents`` describe the same statements. Statements
    of the agent's role, ``role``, and of the role that makes plans are left out."""
    if threshold_ms < 0:
        return []
    found = [(execution(one, threshold_ms), document) for one, document in zip(usage, documents)]
    return [
        {**{name: document[name] for name in PLACE}, **known}
        for known, document in found
        if known and document["user_name"] not in (role, EXPLAINER)
    ]


def named(source: Session, usage: list[Usage]) -> list[dict[str, Any]]:
    """The documents to store, with the names of databases and users; dropped ones have their OIDs."""
    databases = {row["oid"]: row["name"] for row in source.rows("SELECT oid, datname AS name FROM pg_database")}
    users = {row["oid"]: row["name"] for row in source.rows("SELECT oid, rolname AS name FROM pg_roles")}
    return [
        one.document(
            (databases.get(one.key[0], str(one.key[0])), users.get(one.key[1], str(one.key[1])))
            if one.key
            else ("", "")
        )
        for one in usage
    ]


def store_texts(source: Session, sink: Session, node_id: int, unknown: list[int]) -> int:
    """Store the redacted texts of some statements; returns how many.

    Raises QueryFailed.
    """
    rows = source.rows("SELECT t.queryid, t.query FROM pgops.statement_texts(%s::bigint[]) AS t", [unknown])
    texts = [{"queryid": row["queryid"], "query": redacted(row["query"])} for row in rows]
    return int(sink.value("SELECT pgops.store_query_texts(%s, %s::jsonb, true)", [node_id, json.dumps(texts)]))
