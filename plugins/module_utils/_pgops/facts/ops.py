# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sections that the ops database answers: each capability has its own in its package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..alerting import facts as alerting
from ..errors import PgOpsError, QueryFailed
from ..metrics import facts as metrics
from ..opsdb import facts as opsdb
from ..repository import facts as repository
from ..server import foreign
from ..server.names import READER
from ..server.session import Session
from .answer import ask, failed

MISSING = ("42P01", "3F000", "42883")
"""undefined_table, invalid_schema_name, undefined_function: the schema is not installed here, or an older one is."""

NAMES = """
SELECT coalesce(array_agg(o.name), '{}') FROM (
    SELECT c.relname::text FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('pgops')
    UNION ALL SELECT p.proname::text FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('pgops')
) AS o (name)
"""
"""What there is in our schema."""

NEEDED = re.compile(r"\bpgops\.(\w+)")
"""What a section's query reads of it."""

OTHER_MAJOR = "the fingerprints are from another major version of PostgreSQL; run pg_ops_schema to update them"

GROUPS = ((opsdb.SECTION,), (metrics.SECTION, alerting.SECTION), (repository.SECTION, repository.BACKUPS))
"""Those of all capabilities; of one group share an error, so that it never takes more queries than docs/facts.md
promises."""
SECTIONS = tuple(section for group in GROUPS for section in group)
QUERIES = {section.name: section.query for section in SECTIONS}


def read(session: Session, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sections of these names: read in one query, or if that fails in groups, each with its error.

    A superuser's session becomes who may read the views, and stays so; it does not where code of others would run.
    """
    if session.superuser:
        try:
            foreign.refuse(session, become=READER)
        except PgOpsError as error:
            return {name: failed(error) for name in names}
    try:
        return _together(session, names)
    except QueryFailed as error:
        if error.sqlstate in MISSING:
            return _present(session, names)
    found: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        found.update(_or_failed(session, [one.name for one in group if one.name in names]))
    return {name: found[name] for name in names}


def _together(session: Session, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Some sections, in one query. Raises QueryFailed."""
    columns = [f"(SELECT to_json(s) FROM ({QUERIES[name]}) AS s) AS {name}" for name in names]
    found = ask(session, f"SELECT {', '.join(columns)}")
    return {name: _finished(name, found[name]) for name in names}


def _or_failed(session: Session, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The same; an error is in each."""
    try:
        return _together(session, names) if names else {}
    except QueryFailed as error:
        return {name: failed(error) for name in names}


def _present(session: Session, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Those sections for which there is all that they read; the others are absent."""
    try:
        known = set(session.value(NAMES))
    except QueryFailed as error:
        return {name: failed(error) for name in names}
    there = [name for name in names if known.issuperset(NEEDED.findall(QUERIES[name]))]
    found = {**absent(session.database), **_or_failed(session, there)}
    return {name: found[name] for name in names}


def _finished(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    found = {**answer, "error": None, "hidden": {}}
    if name == "schema" and found["drifted"] is None:
        found["hidden"]["drifted"] = OTHER_MAJOR
    return found


def absent(database: str) -> dict[str, dict[str, Any]]:
    """The sections if there is no ops database, or no schema in it."""
    whole: dict[str, Any] = {"error": None, "hidden": {}}
    found = {section.name: {**section.absent(), **whole} for section in SECTIONS}
    found["schema"]["database"] = database
    return found
