# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the schema of the ops database holds besides samples, and what the rows of its configuration are to be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import spelling
from ..errors import InvalidInput
from ..metrics.collectors import INSPECTION, LABELS, SELF, Collector, metrics
from ..metrics.thresholds import check as check_thresholds
from ..plan import Change, difference
from ..server import ownership
from ..server.session import Session, identifier, statement
from . import migrations
from .fingerprints import CATALOGUE

SCHEMA_RIGHTS = """
SELECT ARRAY(SELECT concat_ws(' ', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
                              a.privilege_type)
             FROM aclexplode(n.nspacl) AS a WHERE a.grantee <> n.nspowner ORDER BY 1) AS rights
FROM pg_namespace AS n WHERE n.nspname = 'pgops'
"""
WANTED_SCHEMA_RIGHTS = [f"{ownership.AGENT} USAGE", f"{ownership.READER} USAGE"]


WITHOUT_TEXTS = (
    "DELETE FROM pgops.query_text",
    "UPDATE pgops.slow_query SET query = NULL WHERE query IS NOT NULL",
)
"""Who wants no texts of statements stored wants those that are stored to go."""


@dataclass(frozen=True)
class Contents:
    """What is there now; all empty where there is no schema yet.

    ``installed`` are the fingerprints recorded at the last run, ``catalogue`` those now; ``recorded_by`` is the
    server's major version then, None where nothing is recorded.
    """

    exists: bool = False
    rights: tuple[str, ...] = ()
    ledger: tuple[migrations.Migration, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    installed: Mapping[str, str] = field(default_factory=dict)
    catalogue: Mapping[str, str] = field(default_factory=dict)
    recorded_by: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    retention: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    collectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Wanted:
    """What the rows of the configuration are to be: ``settings`` by their names; by metric, ``thresholds`` with
    warning and critical, and ``retention`` in days; ``database`` is the ops database's name."""

    database: str
    settings: Mapping[str, str]
    collectors: Sequence[Collector]
    thresholds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    retention: Mapping[str, int] = field(default_factory=dict)


def read(session: Session, node: str) -> Contents:
    """What is there, from a session in the ops database."""
    found = session.row(SCHEMA_RIGHTS)
    if found is None:
        return Contents()
    if session.value("SELECT to_regclass('pgops.migration')") is None:
        return Contents(exists=True, rights=tuple(found["rights"]))
    catalogue = _pairs(session, CATALOGUE)
    recorded = session.rows("SELECT object, sha256, server_major FROM pgops.fingerprint")
    recorded_by = next((row["server_major"] for row in recorded), None)
    # another major version writes definitions differently: then what is there now counts as what was installed
    comparable = recorded_by in (None, session.major)
    return Contents(
        exists=True,
        rights=tuple(found["rights"]),
        ledger=tuple(
            migrations.Migration(row["number"], row["name"], row["sha256"])
            for row in session.rows("SELECT number, name, sha256 FROM pgops.migration ORDER BY number")
        ),
        sources=_pairs(session, "SELECT object, sha256 FROM pgops.object_source"),
        installed={row["object"]: row["sha256"] for row in recorded} if comparable else catalogue,
        catalogue=catalogue,
        recorded_by=recorded_by,
        settings=_pairs(session, "SELECT name, value FROM pgops.setting"),
        metrics=_keyed(
            session,
            "SELECT metric_name, category, unit, kind, direction, warning, critical, help FROM pgops.metric",
        ),
        thresholds=_keyed(session, "SELECT metric_name, warning, critical FROM pgops.threshold"),
        retention=_keyed(session, "SELECT metric_name, days FROM pgops.retention"),
        collectors=_keyed(
            session, "SELECT collector, scope, role, rights, called, labels, metrics FROM pgops.collector"
        ),
        node=session.row("SELECT cluster, node FROM pgops.node WHERE node = %s", [node]),
    )


def _pairs(session: Session, query: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in (tuple(row.values()) for row in session.rows(query))}


def _keyed(session: Session, query: str) -> dict[str, dict[str, Any]]:
    keyed = {}
    for row in session.rows(query):
        key, *_others = row.values()
        keyed[str(key)] = row
    return keyed


def schema(contents: Contents) -> tuple[Change, ...]:
    """What makes the schema, and gives it its rights."""
    created: tuple[Change, ...] = ()
    if not contents.exists:
        step = [statement("CREATE SCHEMA pgops AUTHORIZATION {}", identifier(ownership.OWNER))]
        created = (Change("schema pgops", None, {"owner": ownership.OWNER}, step),)
    kept = [right for right in contents.rights if not right.startswith("PUBLIC ")]
    steps = [
        statement("REVOKE ALL ON SCHEMA pgops FROM PUBLIC"),
        statement("GRANT USAGE ON SCHEMA pgops TO {}, {}", identifier(ownership.AGENT), identifier(ownership.READER)),
        statement("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
    ]
    return created + difference(
        "rights on schema pgops",
        {"rights": sorted(contents.rights)},
        {"rights": sorted({*kept, *WANTED_SCHEMA_RIGHTS})},
        steps,
    )


def plan(contents: Contents, wanted: Wanted, major: int) -> tuple[Change, ...]:
    """What brings the rows of the configuration to what is wanted.

    ``major`` is the server's version. Metrics that no collector yields any more stay, for their samples do.

    Raises InvalidInput for thresholds or a retention of an unknown metric, or that cannot be meant.
    """
    made: tuple[Change, ...] = ()
    for name, value in wanted.settings.items():
        steps = [upsert("setting", ["name"], {"name": name, "value": value})]
        if (name, value) == ("query_texts", "false"):
            steps += map(statement, WITHOUT_TEXTS)
        made += difference(f"setting {name}", contents.settings.get(name), value, steps)
    measured = metrics(wanted.collectors)
    for metric in measured.values():
        row = metric.definition()
        step = upsert("metric", ["metric_name"], row)
        made += difference(f"metric {metric.name}", contents.metrics.get(metric.name), row, step)
    known = {**contents.metrics, **{name: metric.definition() for name, metric in measured.items()}}
    made += _thresholds(contents.thresholds, wanted.thresholds, known)
    made += _retention(contents.retention, wanted.retention, known)
    return made + _collectors(contents.collectors, wanted, major)


def _thresholds(
    current: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, float | None]],
    known: Mapping[str, Mapping[str, Any]],
) -> tuple[Change, ...]:
    check_thresholds(wanted, known)
    rows = {
        name: {"metric_name": name, "warning": values.get("warning"), "critical": values.get("critical")}
        for name, values in sorted(wanted.items())
    }
    return _rows("threshold", "metric_name", current, rows)


def _retention(
    current: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, int], known: Collection[str]
) -> tuple[Change, ...]:
    unknown = spelling.unknown(wanted, known)
    if unknown:
        hint = "docs/metrics.md lists the metrics; your own have to be in pgops_collectors."
        raise InvalidInput(f"A retention is given for metrics that do not exist: {unknown}.", hint)
    rows = {name: {"metric_name": name, "days": days} for name, days in sorted(wanted.items())}
    return _rows("retention", "metric_name", current, rows, [statement("SELECT pgops.renew_shapes()")])


def _collectors(current: Mapping[str, Mapping[str, Any]], wanted: Wanted, major: int) -> tuple[Change, ...]:
    """Those for this version, called or not: they tell whose a metric is."""
    jobs = (*SELF.values(), replace(INSPECTION, rights="all_data"))
    rows = {
        found.name: {
            "collector": found.name,
            "scope": found.scope,
            "role": found.role,
            "rights": found.rights,
            "called": found not in jobs and found.called_in(wanted.database, major),
            "labels": list(LABELS),
            "metrics": [metric.name for metric in found.metrics],
        }
        for found in (*wanted.collectors, *jobs)
        if found.for_version(major)
    }
    return _rows("collector", "collector", current, rows)


def _rows(
    table: str,
    key: str,
    current: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, Any]],
    then: Sequence[Any] = (),
) -> tuple[Change, ...]:
    """What makes a table hold the wanted rows and no others; ``then`` are the statements that follow a change."""
    made: tuple[Change, ...] = ()
    for name, row in wanted.items():
        made += difference(f"{table} {name}", current.get(name), row, [upsert(table, [key], row), *then])
    for name in sorted(set(current) - set(wanted)):
        step = statement("DELETE FROM pgops.{} WHERE {} = {}", identifier(table), identifier(key), name)
        made += difference(f"{table} {name}", current[name], None, [step, *then])
    return made


def upsert(table: str, key: Sequence[str], row: Mapping[str, Any]) -> Any:
    """The statement that makes a row of a table of ours what it is to be."""
    columns = ", ".join(["{}"] * len(row))
    assigned = ", ".join(["{} = excluded.{}"] * (len(row) - len(key)))
    names = [identifier(column) for column in row]
    pairs = [identifier(column) for column in row if column not in key for _side in (1, 2)]
    return statement(
        f"INSERT INTO pgops.{{}} ({columns}) VALUES ({columns}) "
        f"ON CONFLICT ({', '.join(['{}'] * len(key))}) DO UPDATE SET {assigned}",
        identifier(table),
        *names,
        *row.values(),
        *[identifier(column) for column in key],
        *pairs,
    )
