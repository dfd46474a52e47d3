# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sessions of a server, who waits for whom, and maintenance that is running, asked of the server alone: no ops
database is needed, and names and texts may have any bytes.

The keys of rows are those of the scenes of alerts (docs/incidents.md).
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Any

from ..server import encoding
from ..server.session import Session
from ..statements.redaction import redacted
from . import views
from .picture import Section

TEXT_BYTES = 2000
"""Of a statement's text, which is cut before it leaves the server."""
MOST = 200
"""Sessions; those that are left out are counted."""
TREE = 100
RUNNING = 20


def _bytes(column: str) -> str:
    return encoding.BYTES.format(column)


def _text(column: str) -> str:
    return f"substring({_bytes(column)} FROM 1 FOR {TEXT_BYTES})"


SESSIONS = f"""
WITH open AS (
    SELECT
        a.pid, NULL::bytea AS prepared, {_bytes("a.usename")} AS "user", {_bytes("a.datname")} AS database,
        {_bytes("nullif(a.application_name, '')")} AS application, host(a.client_addr) AS client,
        nullif(a.backend_type, 'client backend') AS type, a.state,
        nullif(concat_ws(':', a.wait_event_type, a.wait_event), '') AS wait,
        extract(EPOCH FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds,
        CASE WHEN a.state = 'active' THEN extract(EPOCH FROM clock_timestamp() - a.query_start)::float8 END
        AS statement_seconds,
        extract(EPOCH FROM clock_timestamp() - a.state_change)::float8 AS state_seconds,
        {_text("a.query")} AS query
    FROM pg_stat_activity AS a
    WHERE
        a.pid <> pg_backend_pid()
        AND a.state IS DISTINCT FROM 'idle'
        AND (
            a.backend_type = 'client backend'
            OR (a.state = 'active' AND a.backend_type NOT IN ('walsender', 'parallel worker'))
        )
    UNION ALL
    SELECT
        NULL, {_bytes("x.gid")}, {_bytes("x.owner")}, {_bytes("x.database")}, NULL, NULL, 'prepared transaction',
        NULL, NULL, extract(EPOCH FROM clock_timestamp() - x.prepared)::float8, NULL, NULL, NULL
    FROM pg_prepared_xacts AS x
)

SELECT o.*, count(*) OVER () AS entire
FROM open AS o
ORDER BY greatest(o.transaction_seconds, o.statement_seconds) DESC NULLS LAST, o.pid ASC
LIMIT {MOST}
"""

# `blocked_by` and `holds` come as they are: numbers, and words of the server's own.
BLOCKING = """
SELECT
    b.depth, b.pid, b.blocks, b.blocked_by[1:10] AS blocked_by, {user} AS "user", {database} AS database,
    {application} AS application, b.state, nullif(concat_ws(':', b.wait_event_type, b.wait_event), '') AS wait,
    b.waits_seconds, b.lock_type, b.lock_mode, {relation} AS relation, b.holds_modes AS holds,
    CASE WHEN b.prepared IS NOT NULL THEN ARRAY(SELECT {gid} FROM unnest(b.prepared[1:10]) AS g (gid)) END
    AS prepared,
    extract(EPOCH FROM clock_timestamp() - b.xact_start)::float8 AS transaction_seconds,
    {query} AS query, count(*) OVER () AS entire
FROM (SELECT t.*, row_number() OVER () AS place FROM ({view}) AS t) AS b
ORDER BY b.place
LIMIT {most}
"""
PROGRESS = """
SELECT
    p.operation, p.pid, {database} AS database, {relation} AS relation, p.phase, p.percent::float8 AS percent,
    extract(EPOCH FROM clock_timestamp() - p.started_at)::float8 AS seconds, {user} AS "user",
    nullif(p.backend_type, 'client backend') AS type,
    nullif(concat_ws(':', p.wait_event_type, p.wait_event), '') AS wait, count(*) OVER () AS entire
FROM ({view}) AS p
ORDER BY p.started_at, p.pid
LIMIT {most}
"""


def sessions(session: Session, texts: bool) -> Section:
    """Sessions that work, wait or have a transaction open, and prepared transactions, the longest first."""
    return _section(session.rows(SESSIONS), texts)


def blocking(session: Session, texts: bool) -> Section:
    """Who waits for whom, in the order of the tree, those that block most first."""
    query = BLOCKING.format(
        user=_bytes("b.usename"),
        database=_bytes("b.datname"),
        application=_bytes("nullif(b.application_name, '')"),
        relation=_bytes("b.relation"),
        gid=_bytes("g.gid"),
        query=_text("b.query"),
        view=views.query("blocking_tree"),
        most=TREE,
    )
    return _section(session.rows(query), texts)


def progress(session: Session) -> Section:
    """Maintenance that is running, the oldest first."""
    query = PROGRESS.format(
        database=_bytes("p.datname"),
        relation=_bytes("p.relation"),
        user=_bytes("p.usename"),
        view=views.query("maintenance_progress"),
        most=RUNNING,
    )
    return _section(session.rows(query), texts=False)


def _section(rows: list[dict[str, Any]], texts: bool) -> Section:
    entire = rows[0]["entire"] if rows else 0
    return Section([row_of(row, texts) for row in rows], left_out=entire - len(rows))


def row_of(row: Mapping[str, Any], texts: bool) -> dict[str, Any]:
    """A row as it is shown: names readable, the text of the statement redacted, or None without ``texts``. Pure."""
    shown = {name: _readable(value) for name, value in row.items() if name not in ("entire", "query")}
    if "query" in row:
        shown["query"] = statement(row["query"]) if texts and row["query"] is not None else None
    return shown


def _readable(value: Any) -> Any:
    if isinstance(value, list):
        return [_readable(one) for one in value]
    return encoding.readable(encoding.text(bytes(value))) if isinstance(value, (bytes, memoryview)) else value


def statement(raw: bytes) -> str:
    r"""The text of a statement without secrets; half a character at its end is left out. Pure.

    >>> statement(b"SELECT '\xe2\x82"), statement(b"ALTER ROLE ann PASSWORD 'x'")
    ("SELECT '", "ALTER ROLE ann PASSWORD '***'")
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    return redacted(decoder.decode(bytes(raw)))
