# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job that stores the usage of statements since its last run, their texts, and slow executions."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..errors import PgOpsError, QueryFailed
from ..host.files import File, write
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..instance.sink import Sink, node, opened
from ..metrics import delivery, latest
from ..metrics.collect import ORIGIN
from ..metrics.collectors import SELF
from ..metrics.rounds import Sample, packed, place, samples
from ..server import databases, encoding
from ..server.names import EXPLAINER
from ..server.session import Session, connect
from . import explain, texts
from .options import options
from .readings import KEY, SUMS, Difference, Entry, Key, Snapshot, Usage, difference, execution, joined, snapshot, top

QUERIES = SELF["queries"]

MISSING = "The database {} has no extension pg_stat_statements. Set pgops_statements to true and run site.yml."

STATISTICS = """
SELECT s.taken_at, s.reset_at, s.evicted,
       (SELECT c.system_identifier::text FROM pg_control_system() AS c) AS origin
FROM pgops.statement_statistics() AS s
"""
ACTIVE = "SELECT datid::bigint, active_time, stats_reset FROM pg_stat_database WHERE datid <> 0"
COUNTERS = f"SELECT {', '.join((*KEY, *SUMS))}, max_exec_ms, stats_since FROM pgops.statement_counters()"

TRACKING = """
SELECT c.name || ' is ' || c.setting AS reason
FROM (VALUES ('compute_query_id', 'off'), ('pg_stat_statements.track', 'none')) AS w (name, nothing)
JOIN pg_settings AS c ON c.name = w.name AND c.setting = w.nothing
"""
UNTRACKED = (
    "The server counted no statement, though its sessions were active for {:.1f} s: {}.",
    "Change that setting (docs/settings.md).",
)

SESSIONS = "SELECT pgops.slow_sessions(%s::numeric, %s)::text"

STORE_SESSIONS = "SELECT pgops.store_slow_sessions(%s, %s::jsonb)"

STORE_EXECUTIONS = "SELECT pgops.store_slow_statements(%s, %s::timestamptz, %s::timestamptz, %s::jsonb)"

FORGET = "SELECT pgops.forget_slow_queries()"

FULL = "slow_query_log is full: its {} oldest executions were deleted. Raise pgops_slow_query_ms."

PLACE = ("queryid", "database_name", "user_name", "toplevel")
"""The columns that identify a statement."""

STORE_TEXTS = "SELECT pgops.store_query_texts(%s, %s::jsonb, true)"

ROLES = f"SELECT oid, {encoding.BYTES.format('rolname')} AS name FROM pg_roles"

STORE = "SELECT pgops.store_query_usage(%s, %s::timestamptz, %s::timestamptz, %s::real, %s::jsonb, %s)"


def collect(configuration: Configuration, layout: Layout, _options: object = None) -> dict[str, Any]:
    """Store the difference to the reading of the previous run. Returns how many statements were used and how many
    were stored, the coverage in %, how many texts are new, and how many are left for later, how many executions were
    slow, and how many plans were made. The first run has no difference yet.

    The reading is saved, and the metrics are exported, only after delivery: usage that a run could not deliver is in
    the next one's difference. What is stored besides the numbers comes after that, each part by itself; its errors
    are in the result.

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
        whose = node(configuration, source)
        with opened(configuration, layout, source, whose) as sink:
            run = Run(configuration, layout, source, sink, now, before.taken_at if before else "", found)
            result = run.numbers(metrics)
            write(reading)
            errors = remember(layout, now, metrics)
            more, wrong = run.others()
        result.update(more, errors=[*errors, *wrong])
        if options(configuration).explain:
            result["plans"] = explain.explain(configuration, layout, source, whose)
        return result


def read(source: Session) -> Snapshot:
    """The content of pg_stat_statements now, without the texts.

    Raises QueryFailed.
    """
    about = source.row(STATISTICS)
    active = {row["datid"]: (row["active_time"], _plain(row["stats_reset"])) for row in source.rows(ACTIVE)}
    entries = {_key(row): _entry(row) for row in source.rows(COUNTERS)}
    values = {name: _plain(value) for name, value in (about or {}).items()}
    return Snapshot(**values, active=active, entries=entries)


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


@dataclass
class Run:
    """What one run stores: the reading ``now``, and what was ``found`` since an earlier one, that of ``since``.

    ``usage`` and ``documents`` are the statements that were stored, and ``unknown`` those of which the sink has no
    text."""

    configuration: Configuration
    layout: Layout
    source: Session
    sink: Sink
    now: Snapshot
    since: str
    found: Difference | None
    usage: list[Usage] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)

    def numbers(self, metrics: list[Sample]) -> dict[str, Any]:
        """Store the job's metrics and the difference, in one transaction; returns the counts.

        Raises PgOpsError.
        """
        where = "local" if self.sink.session is self.source else "primary"
        origin = self.source.value(ORIGIN)
        with self.sink.transaction() as node_id:
            store_metrics(self.sink.session, node_id, origin, self.now.taken_at, metrics)
            if not self.found:
                return {"first": True, "statements": len(self.now.entries), "sink": where}
            self.usage = top(self.found.usage)
            self.documents = named(self.source, self.usage)
            known = [*self._interval(node_id), self.found.coverage, json.dumps(joined(self.documents, PLACE))]
            self.unknown = self.sink.session.value(STORE, [*known, self.found.evictions]) or []
        counted = {"statements": len(self.found.usage), "stored": len(self.usage), "coverage": self.found.coverage}
        return {**counted, "texts": 0, "sink": where}

    def others(self) -> tuple[dict[str, Any], list[str]]:
        """Store slow executions and the texts that the sink does not have yet, each in a transaction of its own;
        returns the counts, and errors: what cannot be read or stored costs nothing else."""
        counts: Counter[str] = Counter(slow=0)
        errors: list[str] = []
        for part in (self._tracking, self._sessions, self._executions, self._texts, self._lost):
            try:
                self.source.revive()
                self.sink.session.revive()
                counts.update(part())
            except (PgOpsError, OSError) as error:
                errors.append(str(error))
        lost = counts.pop("lost", 0)
        return dict(counts), [*errors, *([FULL.format(lost)] if lost else [])]

    def _tracking(self) -> dict[str, int]:
        """Raises QueryFailed for a server that counts nothing."""
        if self.found and self.found.active_ms and not self.found.usage:
            reasons = " and ".join(str(row["reason"]) for row in self.source.rows(TRACKING))
            if reasons:
                what, hint = UNTRACKED
                raise QueryFailed(what.format(self.found.active_ms / 1000, reasons), hint)
        return {}

    def _interval(self, node_id: int) -> tuple[int, str, str]:
        return node_id, self.since, self.now.taken_at

    def _sessions(self) -> dict[str, int]:
        wanted = options(self.configuration)
        if wanted.slow_query_ms < 0:
            return {}
        sessions = self.source.value(SESSIONS, [wanted.slow_query_ms, wanted.query_texts])
        with self.sink.transaction() as node_id:
            return {"slow": self.sink.session.value(STORE_SESSIONS, [node_id, sessions])}

    def _executions(self) -> dict[str, int]:
        if self.found is None:
            return {}
        threshold = options(self.configuration).slow_query_ms
        slow = slowest(self.usage, self.documents, threshold, self.configuration.role)
        with self.sink.transaction() as node_id:
            stored = self.sink.session.value(STORE_EXECUTIONS, [*self._interval(node_id), json.dumps(slow)])
        return {"slow": stored}

    def _texts(self) -> dict[str, int]:
        if not self.unknown or not options(self.configuration).query_texts:
            return {}
        path, now = os.path.join(self.layout.state, "texts.json"), time.time()
        last = texts.load(path)
        if not last.due(now):
            return {"texts_left": len(self.unknown)}
        texts.save(path, replace(last, at=now))  # it counts as well if it fails
        size, found = texts.read(self.source, self.unknown)
        texts.save(path, texts.Reading(now, size))
        stored = texts.storable(found, texts.owners_of(self.documents))
        with self.sink.transaction() as node_id:
            documents = [{"queryid": queryid, "query": text} for queryid, text in stored.items()]
            new = int(self.sink.session.value(STORE_TEXTS, [node_id, json.dumps(documents)]))
        return {"texts": new, "texts_left": len(found) - len(stored)}

    def _lost(self) -> dict[str, int]:
        with self.sink.transaction():
            return {"lost": self.sink.session.value(FORGET)}


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
    there = {one.oid: one.shown for one in databases.present(source)}
    users = {row["oid"]: encoding.readable(encoding.text(bytes(row["name"]))) for row in source.rows(ROLES)}
    return [
        one.document(
            (there.get(one.key[0], str(one.key[0])), users.get(one.key[1], str(one.key[1]))) if one.key else ("", "")
        )
        for one in usage
    ]
