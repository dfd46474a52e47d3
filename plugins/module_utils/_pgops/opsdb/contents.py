# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The contents of the ops database's schema except samples: objects, and the rows of its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import spelling
from ..errors import Conflict, InvalidInput
from ..metrics.collectors import INSPECTION, LABELS, SELF, Collector, metrics
from ..metrics.thresholds import check as check_thresholds
from ..plan import difference
from ..server import rows
from ..server.changes import Statements
from ..server.names import OWNER
from ..server.session import Session, identifier, listed, statement
from . import migrations
from .database import ADMITTED
from .fingerprints import present

SCHEMA_RIGHTS = """
SELECT ARRAY(SELECT concat_ws(' ', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
                              a.privilege_type)
             FROM aclexplode(n.nspacl) AS a WHERE a.grantee <> n.nspowner ORDER BY 1) AS rights
FROM pg_namespace AS n WHERE n.nspname = 'pgops'
"""
WANTED_SCHEMA_RIGHTS = [f"{role} USAGE" for role in ADMITTED]


USERS = """
SELECT o.object,
       array_agg(DISTINCT coalesce('view ' || c.oid::regclass, pg_describe_object(d.classid, d.objid, 0))) AS users
FROM (
    SELECT 'pg_proc'::regclass, p.oid, 'function ' || p.oid::regprocedure, p.pronamespace FROM pg_proc AS p
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 'view ' || c.oid::regclass, c.relnamespace
    FROM pg_class AS c WHERE c.relkind = 'v'
) AS o (classid, oid, object, namespace)
JOIN pg_depend AS d ON d.refclassid = o.classid AND d.refobjid = o.oid AND d.deptype = 'n'
LEFT JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
LEFT JOIN pg_trigger AS t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
LEFT JOIN pg_class AS c ON c.oid = coalesce(w.ev_class, t.tgrelid)
LEFT JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
WHERE o.namespace = to_regnamespace('pgops')
  AND coalesce(c.relnamespace, p.pronamespace, 0) <> to_regnamespace('pgops')
GROUP BY o.object
"""
"""What uses our functions and views, and is not in our schema."""

BASICS = """
SELECT to_regnamespace('public') IS NOT NULL AS public,
       EXISTS (SELECT FROM pg_proc AS p, aclexplode(p.proacl) AS a
               WHERE p.oid = to_regprocedure('pg_catalog.pg_create_restore_point(text)')
                 AND a.grantee = current_user::regrole AND a.privilege_type = 'EXECUTE') AS points,
       EXISTS (SELECT FROM pg_language AS l WHERE l.lanname = 'plpgsql') AS plpgsql
"""

WITHOUT_TEXTS = (
    "DELETE FROM pgops.query_text",
    "UPDATE pgops.slow_query SET query = NULL WHERE query IS NOT NULL",
    """
UPDATE pgops.scene AS c SET parts = (
    SELECT jsonb_object_agg(p.part, CASE
        WHEN jsonb_typeof(p.seen -> 'rows') IS DISTINCT FROM 'array' THEN p.seen
        ELSE p.seen || jsonb_build_object(
            'rows', (SELECT coalesce(jsonb_agg(r.seen - 'query' ORDER BY r.place), '[]')
                     FROM jsonb_array_elements(p.seen -> 'rows') WITH ORDINALITY AS r (seen, place)))
    END)
    FROM jsonb_each(c.parts) AS p (part, seen)
)
WHERE c.parts <> jsonb_build_object()
""",
)
"""With query_texts = false, texts that are already stored are deleted."""
SINCE = ("drill_interval_hours",)
"""The settings of which it counts since when they have had their value: such a row is made anew, with its time."""


@dataclass(frozen=True)
class Contents:
    """What exists now; all empty if there is no schema yet.

    ``installed`` are the fingerprints recorded at the last run, ``catalogue`` those now; ``recorded_by`` is the
    server's major version then, None where nothing is recorded. ``users`` are objects of others that use one of ours;
    ``public`` is whether the database has that schema, ``points`` whether our owner may write restore points.
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
    users: Mapping[str, Sequence[str]] = field(default_factory=dict)
    public: bool = True
    points: bool = False


@dataclass(frozen=True)
class Wanted:
    """The rows that the configuration needs: ``settings`` by their names; by metric, ``thresholds`` with
    warning and critical, and ``retention`` in days; ``database`` is the ops database's name."""

    database: str
    settings: Mapping[str, str]
    collectors: Sequence[Collector]
    thresholds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    retention: Mapping[str, int] = field(default_factory=dict)


READ = (
    *("migration", "fingerprint", "object_source", "setting", "node", "metric", "threshold", "retention"),
    "collector",
)
"""The tables that read() uses."""


def installed(session: Session) -> bool:
    """Whether there is a schema with tables."""
    return bool(session.value("SELECT to_regclass('pgops.migration') IS NOT NULL"))


def read(session: Session, node: str, with_tables: bool) -> Contents:
    """The contents, from a session in the ops database; ``with_tables``: those of READ exist, and are looked into.

    Raises Conflict if the database lacks what each has that is made from template0.
    """
    basics = session.rows(BASICS)[0]
    if not basics["plpgsql"]:
        raise Conflict(
            f"Database {session.database} has no language plpgsql, which functions of the ops database need.",
            f"Run in {session.database}: CREATE EXTENSION plpgsql;",
        )
    found_basics = {name: basics[name] for name in ("public", "points")}
    found = session.row(SCHEMA_RIGHTS)
    if found is None:
        return Contents(**found_basics)
    if not with_tables:
        return Contents(exists=True, rights=tuple(found["rights"]), **found_basics)
    catalogue = _pairs(session, present("pgops.fingerprint"))
    recorded = session.rows("SELECT object, sha256, server_major FROM pgops.fingerprint")
    recorded_by = next((row["server_major"] for row in recorded), None)
    # another major version writes definitions differently: then the present ones count as the installed ones
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
            session,
            # A schema of before an upgrade has no such column.
            "SELECT collector, scope, role, rights, called, labels, metrics, "
            "(to_jsonb(c) ->> 'interval_seconds')::integer AS interval_seconds FROM pgops.collector AS c",
        ),
        node=session.row("SELECT cluster, node FROM pgops.node WHERE node = %s", [node]),
        users={one["object"]: one["users"] for one in session.rows(USERS)},
        **found_basics,
    )


def _pairs(session: Session, query: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in (tuple(row.values()) for row in session.rows(query))}


def _keyed(session: Session, query: str) -> dict[str, dict[str, Any]]:
    keyed = {}
    for row in session.rows(query):
        key, *_others = row.values()
        keyed[str(key)] = row
    return keyed


def schema(contents: Contents) -> tuple[Statements, ...]:
    """What creates the schema and grants its rights."""
    created: tuple[Statements, ...] = ()
    if not contents.exists:
        create = statement("CREATE SCHEMA pgops AUTHORIZATION {}", identifier(OWNER))
        created = (Statements("schema pgops", None, {"owner": OWNER}, (create,)),)
    kept = [right for right in contents.rights if not right.startswith("PUBLIC ")]
    rights = Statements(
        "rights on schema pgops",
        {"rights": sorted(contents.rights)},
        {"rights": sorted({*kept, *WANTED_SCHEMA_RIGHTS})},
        (
            statement("REVOKE ALL ON SCHEMA pgops FROM PUBLIC"),
            statement("GRANT USAGE ON SCHEMA pgops TO {}", listed([*map(identifier, ADMITTED)])),
            *([statement("REVOKE ALL ON SCHEMA public FROM PUBLIC")] if contents.public else []),
        ),
    )
    return created + difference(rights)


def rights(contents: Contents, backup: bool) -> tuple[Statements, ...]:
    """What a superuser grants our owner, or takes from it: with ``backup`` it may write restore points, which is what
    create_recovery_point() does."""
    verb, direction = ("GRANT", "TO") if backup else ("REVOKE", "FROM")
    change = statement(
        f"{verb} EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) {direction} {{}}", identifier(OWNER)
    )
    subject = f"right of role {OWNER} to write restore points"
    return difference(Statements(subject, contents.points or None, backup or None, (change,)))


def plan(contents: Contents, wanted: Wanted, major: int) -> tuple[Statements, ...]:
    """What brings the rows of the configuration to what is wanted.

    ``major`` is the server's version. Metrics that no collector yields any more stay, since their samples stay.

    Raises InvalidInput for thresholds or a retention that are invalid, or of an unknown metric.
    """
    changes: tuple[Statements, ...] = ()
    for name, value in wanted.settings.items():
        kept = [rows.upsert("setting", ["name"], {"name": name, "value": value})]
        if (name, value) == ("query_texts", "false"):
            kept += map(statement, WITHOUT_TEXTS)
        if name in SINCE:
            kept.insert(0, statement("DELETE FROM pgops.setting WHERE name = {}", name))
        changes += difference(Statements(f"setting {name}", contents.settings.get(name), value, tuple(kept)))
    measured = metrics(wanted.collectors)
    for metric in measured.values():
        row, before = metric.definition(), contents.metrics.get(metric.name)
        if row != before:
            defined = (rows.upsert("metric", ["metric_name"], row),)
            changes += difference(Statements(f"metric {metric.name}", before, row, defined))
    known = {**contents.metrics, **{name: metric.definition() for name, metric in measured.items()}}
    changes += _thresholds(contents.thresholds, wanted.thresholds, known)
    changes += _retention(contents.retention, wanted.retention, known)
    return changes + _collectors(contents.collectors, wanted, major)


def _thresholds(
    current: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, float | None]],
    known: Mapping[str, Mapping[str, Any]],
) -> tuple[Statements, ...]:
    check_thresholds(wanted, known)
    wanted_rows = {
        name: {"metric_name": name, "warning": values.get("warning"), "critical": values.get("critical")}
        for name, values in sorted(wanted.items())
    }
    return rows.plan("threshold", "metric_name", current, wanted_rows)


def _retention(
    current: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, int], known: Collection[str]
) -> tuple[Statements, ...]:
    unknown = spelling.unknown(wanted, known)
    if unknown:
        hint = "docs/metrics.md lists the metrics; your own must be in pgops_collectors."
        raise InvalidInput(f"pgops_metric_retention: unknown metrics {unknown}.", hint)
    wanted_rows = {name: {"metric_name": name, "days": days} for name, days in sorted(wanted.items())}
    renewed = (statement("SELECT pgops.renew_shapes()"),)
    return rows.plan("retention", "metric_name", current, wanted_rows, renewed)


def _collectors(current: Mapping[str, Mapping[str, Any]], wanted: Wanted, major: int) -> tuple[Statements, ...]:
    """Those for this version, called or not: they tell which collector yields a metric."""
    jobs = (*SELF.values(), replace(INSPECTION, rights="all_data"))
    wanted_rows = {
        found.name: {
            "collector": found.name,
            "scope": found.scope,
            "role": found.role,
            "rights": found.rights,
            "called": found not in jobs and found.called_in(wanted.database, major),
            "labels": list(LABELS),
            "metrics": [metric.name for metric in found.metrics],
            "interval_seconds": found.interval,
        }
        for found in (*wanted.collectors, *jobs)
        if found.for_version(major)
    }
    return rows.plan("collector", "collector", current, wanted_rows)
