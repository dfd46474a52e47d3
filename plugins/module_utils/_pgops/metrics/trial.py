# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The user's collectors, tested on the server before they are installed: one SELECT, read only, columns as declared.

No row is fetched: a query is planned and started, so that the server checks every name, right and type in it. Nothing
is executed except what the planner computes (immutable and stable functions of constants).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import InvalidInput, QueryFailed, Unreachable
from ..server import databases, encoding, ownership
from ..server.names import AGENT
from ..server.session import Session, connect, identifier, statement
from ..server.target import Target
from .collectors import COUNTED_SINCE, IDENTITY, NAME, Collector

MONITOR = "pg_monitor"
"""Stands for the agent's role until that is created, which will be a member of this one only."""

NUMBERS = ("int2", "int4", "int8", "float4", "float8", "numeric")
RESERVED = ("cluster", "collected", "metric", "node", "other")
"""Names that a row, a stored series or its view uses."""

LABEL_CATEGORIES = "SEBI"
"""Of pg_type.typcategory: strings, enumerations, booleans and network addresses."""
LABEL_TYPES = ("char", "uuid", "regclass", "regnamespace", "regproc", "regprocedure", "regrole", "regtype")
"""More types whose values are names: as JSON, those of objects are written with their schema."""

NO_LABELS = {COUNTED_SINCE: ("timestamptz",), IDENTITY: ("oid", "int4", "int8", "text", "uuid")}
"""The types of columns that are neither metrics nor labels."""

TYPES = "SELECT oid, typname AS name, typcategory::text AS category FROM pg_type WHERE oid = ANY (%s)"
USABLE_ROLE = "SELECT rolname FROM pg_roles WHERE rolname = %s AND pg_has_role(oid, %s)"

LACKING = (
    f"It runs as the role {AGENT}, a member of {MONITOR} only. Grant what it needs to {AGENT}. "
    "(In a first run, deploy without this collector, grant, then add it.)"
)
NO_SELECT = "A collector must be exactly one SELECT (WITH is allowed) that only reads."
HINTS = {
    "0A000": NO_SELECT,
    "25006": NO_SELECT,
    "42601": NO_SELECT,
    "42501": LACKING,
    "42P01": "It runs with search_path = pg_catalog, pg_temp: name everything else with its schema.",
    "42883": "It runs with search_path = pg_catalog, pg_temp: name everything else with its schema.",
    "55P03": "Another session holds an exclusive lock on an object that it reads. Retry.",
    "57014": "Planning alone takes longer than its timeout: simplify it, or raise '-- timeout:'.",
}


@dataclass(frozen=True)
class Column:
    """A column of a collector's rows: the type's name and pg_type.typcategory."""

    name: str
    type: str
    category: str


def validate(session: Session, ops_database: str, own: Sequence[Collector], agent: Target) -> tuple[str, ...]:
    """Test collectors where they will run: in the ops database, or before that is created in the session's; those
    that are not for it, in the first of their databases by name. ``agent`` is how the agent logs in.

    Returns warnings for those that are not tested, or not completely.

    Raises InvalidInput, which lists all errors of all of them.
    """
    tried = [one for one in own if one.applies(session.major, session.in_recovery)]
    wrong: list[str] = []
    warnings: list[str] = []
    home = _home(session, ops_database) if tried else ""
    for name, some in _places(session, ops_database, home, tried).items():
        numbered = _numbered(own, some)
        if name is None:
            warnings.append(f"No database matches these collectors of yours: {numbered}.")
            continue
        with contextlib.ExitStack() as stack:
            inside, fully = _entered(stack, session, name, home, agent)
            found = [(own.index(one) + 1, one.name, why) for one in some for why in errors(inside, one, fully)]
        if found:
            listed = "; ".join(f"number {number}, {what}: {why.rstrip('.')}" for number, what, why in found)
            wrong.append(f"tested in database {encoding.readable(name)}: {listed}")
        elif not fully:
            warnings.append(
                f"The agent cannot log in to database {encoding.readable(name)}. Whether it may read what these "
                f"collectors read is unknown: {numbered}."
            )
    if wrong:
        raise InvalidInput(
            f"Your own collectors cannot be installed, {'; '.join(wrong)}.",
            "docs/monitoring.md lists the checks.",
        )
    left = _numbered(own, [one for one in own if one not in tried])
    if left:
        server = f"PostgreSQL {session.major} as {'standby' if session.in_recovery else 'primary'}"
        warnings.append(f"Only the headers were checked of these collectors, which do not run on {server}: {left}.")
    return tuple(warnings)


def _numbered(own: Sequence[Collector], some: Sequence[Collector]) -> str:
    return "; ".join(f"{number}, {one.name}" for number, one in enumerate(own, 1) if one in some)


def _home(session: Session, ops_database: str) -> str:
    """The ops database, or until it is created the session's."""
    exists = ops_database == session.database or ownership.is_ours(ownership.ops_database(session, ops_database))
    return ops_database if exists else session.database


def _places(
    session: Session, ops_database: str, home: str, tried: Sequence[Collector]
) -> dict[str | None, list[Collector]]:
    """The databases to test collectors in; None for those without an existing database."""
    if not tried:
        return {}
    others = sorted(databases.looked_into(session), key=lambda database: database.shown)
    places: dict[str | None, list[Collector]] = {}
    for one in tried:
        first = next((other.name for other in others if one.looks_into(other.shown)), None)
        places.setdefault(home if one.looks_into(ops_database) else first, []).append(one)
    return places


def _entered(
    stack: contextlib.ExitStack, session: Session, name: str, home: str, agent: Target
) -> tuple[Session, bool]:
    """A session in a database, and whether queries may be planned in it.

    The planner runs functions, and one in another user's database could switch back from the agent's role to the
    superuser of the session: there, the agent itself must log in.
    """
    if name == session.database and (name == home or session.user == AGENT):
        return session, True
    if name != home and session.user != AGENT and session.value("SELECT to_regrole(%s)", [AGENT]):
        with contextlib.suppress(Unreachable):
            return stack.enter_context(connect(replace(agent, database=name))), True
    safe = name == home or session.user == AGENT
    return stack.enter_context(connect(replace(session.target, database=name))), safe


def errors(session: Session, collector: Collector, fully: bool = True) -> list[str]:
    """The errors of a collector on a server; its query is planned, with the rights and limits of its runs, or unless
    ``fully`` only parsed."""
    look = session.described if fully else session.parsed
    try:
        with session.transaction(rollback=True):
            _as_agent(session)
            session.execute("SET TRANSACTION READ ONLY")
            session.execute(statement("SET LOCAL statement_timeout = {}", max(1, round(collector.timeout * 1000))))
            session.execute("SET LOCAL lock_timeout = 100")
            described = look(f"SELECT * FROM (\n{collector.query}\n) AS collected LIMIT 0")
            # Alone, too: its parentheses must match without those around it.
            look(f"EXPLAIN (COSTS off)\n{collector.query}")
            types = {row["oid"]: row for row in session.rows(TYPES, [[oid for _name, oid in described]])}
    except QueryFailed as error:
        return [f"{error.message}. {HINTS.get(error.sqlstate or '', error.hint)}".strip()]
    return problems(collector, [Column(name, types[oid]["name"], types[oid]["category"]) for name, oid in described])


def agent_at(target: Target, os_user: str) -> Target:
    """How the agent logs in over the local socket, as its operating system user."""
    return replace(target, user=AGENT, os_user=os_user, password=None, role="")


def _as_agent(session: Session) -> None:
    role = session.value(USABLE_ROLE, [AGENT, "SET" if session.major >= 16 else "MEMBER"]) or MONITOR
    session.execute(statement("SET LOCAL ROLE {}", identifier(role)))


def problems(collector: Collector, columns: Sequence[Column]) -> list[str]:
    """The errors in the columns of a collector. Pure."""
    metrics = {metric.name for metric in collector.metrics}
    names = [column.name for column in columns]
    found = [f"it declares metric {name}, but has no such column" for name in sorted(metrics - set(names))]
    found += [f"column {name} appears twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for column in columns:
        wrong = _metric(column) if column.name in metrics else _label(column)
        found += [wrong] if wrong else []
    return found


def _metric(column: Column) -> str:
    if column.type in NUMBERS:
        return ""
    return f"metric {column.name} has the type {column.type}, which is not a number: cast it, for instance to float8"


def _label(column: Column) -> str:
    if column.name in NO_LABELS:
        types = NO_LABELS[column.name]
        right = column.type in types
        return "" if right else f"{column.name} has the type {column.type}, but must be {' or '.join(types)}"
    if column.name in RESERVED:
        return f"'{column.name}' is reserved and cannot be a label: rename the column"
    if not NAME.match(column.name):
        return f"column {column.name!r} needs a name of lower-case letters, digits and underscores (AS ...)"
    if column.type in NUMBERS:
        return (
            f"column {column.name} is a number, but not a metric in the header: add '-- metric: {column.name}', "
            "or if it is a label, cast it to text"
        )
    if column.category in LABEL_CATEGORIES or column.type in LABEL_TYPES:
        return ""
    return f"label {column.name} has the type {column.type}, whose values would create endless new series: remove it"
