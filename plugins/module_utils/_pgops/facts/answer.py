# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One query's answer as a section of the facts, or the error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from ..errors import PgOpsError, QueryFailed
from ..server import encoding
from ..server.session import Session

# As bytes: names of databases and roles are in the encoding in which they were created, whichever this database has,
# and the server would refuse to convert those that are not valid in it.
ANSWER = f"""
SELECT {encoding.BYTES.format("to_json(answer)")}
FROM (
{{query}}
) AS answer
"""
LONGEST_MESSAGE = 500
Params = Optional[Union[Sequence[Any], Mapping[str, Any]]]
CODES = {"42501": "permission_missing", "57014": "timeout", "55P03": "busy"}
"""insufficient_privilege, query_canceled, lock_not_available."""


def ask(session: Session, query: str, params: Params = None) -> dict[str, Any]:
    """The single row of a query as JSON, so that times are ISO 8601 and numbers are numbers.

    Bytes that are not UTF-8, which names may have, are readable (see encoding). Raises QueryFailed.
    """
    answer = session.value(ANSWER.replace("{query}", query), params)
    section: dict[str, Any] = encoding.all_readable(json.loads(encoding.text(bytes(answer))))
    return section


def section(session: Session, query: str, params: Params = None) -> dict[str, Any]:
    """The same as a section, with its keys ``error`` and ``hidden``; an error is in it instead of raised."""
    try:
        return {**ask(session, query, params), "error": None, "hidden": {}}
    except QueryFailed as error:
        return failed(error)


def failed(error: PgOpsError) -> dict[str, Any]:
    """A section that could not be read."""
    code = CODES.get(getattr(error, "sqlstate", None) or "", error.code)
    return {"error": {"code": code, "message": str(error)[:LONGEST_MESSAGE]}}


def hide(found: dict[str, Any], keys: Sequence[str], reason: str) -> dict[str, Any]:
    """Record why keys of a section are null; nothing if the section failed."""
    if found["error"] is None:
        found["hidden"].update(dict.fromkeys(keys, reason))
    return found
