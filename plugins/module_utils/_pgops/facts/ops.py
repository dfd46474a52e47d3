# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sections that the ops database answers: each capability has its own in its package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import PgOpsError, QueryFailed
from ..metrics import facts as metrics
from ..opsdb import facts as opsdb
from ..repository import facts as repository
from ..server import foreign
from ..server.names import READER
from ..server.session import Session
from .answer import ask, failed

MISSING = ("42P01", "3F000")
"""undefined_table, invalid_schema_name: the schema is not installed here."""

OTHER_MAJOR = "the fingerprints are from another major version of PostgreSQL; run pg_ops_schema to update them"

SECTIONS = (opsdb.SECTION, metrics.SECTION, repository.SECTION)
"""Those of all capabilities."""
QUERIES = {section.name: section.query for section in SECTIONS}


def read(session: Session, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sections of these names: read in one query, or if that fails one by one, each with its error.

    A superuser's session becomes who may read the views, and stays so; it does not where code of others would run.
    """
    if session.superuser:
        try:
            foreign.refuse(session, become=READER)
        except PgOpsError as error:
            return {name: failed(error) for name in names}
    queries = {name: QUERIES[name] for name in names}
    columns = [f"(SELECT to_json(s) FROM ({query}) AS s) AS {name}" for name, query in queries.items()]
    try:
        found = ask(session, f"SELECT {', '.join(columns)}")
    except QueryFailed:
        return {name: _section(session, name) for name in names}
    return {name: _finished(name, found[name]) for name in names}


def _section(session: Session, name: str) -> dict[str, Any]:
    try:
        return _finished(name, ask(session, QUERIES[name]))
    except QueryFailed as error:
        return absent(session.database)[name] if error.sqlstate in MISSING else failed(error)


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
