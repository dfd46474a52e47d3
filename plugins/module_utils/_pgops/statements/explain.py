# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plans of slow statements, made afterwards from their stored texts, if pgops_explain is set.

The texts come from others, and planning may run functions that they wrote. So it happens in a session of its own, as
a role without rights, from which no other session of ours can be reached, and which leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

from ..errors import PgOpsError, QueryFailed
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..instance.sink import Node, opened
from ..server import encoding
from ..server.session import Session, connect
from .redaction import REDACTED, block_end, redacted
from .texts import LONGEST

TIME_LIMIT = 2.0
"""Most seconds that the server may take for a plan."""

PATIENCE = 5.0
"""Seconds after which a session is ended that ignored that limit."""

BUDGET = 30.0
"""Seconds after which a run starts no further statement; the next run continues."""

LARGEST_PLAN = 256 * 1024
"""Bytes of JSON."""

ROOM = 1024 * 1024
"""Bytes of plans after which a run starts no further statement; the next run continues."""

MEMORY = 512 * 1024 * 1024
"""Bytes of memory that a plan may take here: it may contain the result of a function, up to a gigabyte."""

GENERIC_PLAN = 16
"""The first major version that plans a statement without the values of its parameters."""

PLANNABLE = ("select", "with", "values", "table", "insert", "update", "delete", "merge")
WORD = re.compile(r"[a-z]+(?![\w$])", re.IGNORECASE | re.ASCII)

REASONS = {
    "42P02": f"PostgreSQL before {GENERIC_PLAN} cannot plan a statement without the values of its parameters.",
    "57014": f"Planning took longer than {TIME_LIMIT:g} s.",
}
"""Clearer messages than the server's, by SQLSTATE."""

TOO_LARGE = "The plan is too large to be stored."
ENDED = "Planning did not stop at its time limit and the session was terminated, or the server was stopped."

ASKED = "SELECT database_name, queryid, user_name, query FROM pgops.statements_to_explain(%s)"
STORE = "SELECT pgops.store_query_plan(%s, %s, %s, %s::jsonb, %s)"

BEFORE = """
SELECT set_config('lock_timeout', '100ms', true),
       set_config('idle_in_transaction_session_timeout', '10s', true),
       set_config('search_path', replace(coalesce(
           (SELECT substr(one, length('search_path=') + 1)
            FROM pg_db_role_setting AS s JOIN pg_roles AS r ON r.oid = s.setrole, unnest(s.setconfig) AS one
            WHERE r.rolname = %(user)s AND starts_with(one, 'search_path=')
              AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
            ORDER BY s.setdatabase DESC LIMIT 1),
           (SELECT reset_val FROM pg_settings WHERE name = 'search_path')
       ), '"$user"', quote_ident(%(user)s)), true)
"""
"""Names are resolved as for the statement's user, except for settings of their session. This comes last, since after
it no other name must be looked up."""


def explain(configuration: Configuration, layout: Layout, source: Session, node: Node) -> int:
    """Plan the slow statements of this node that have no plan in the sink yet, and store the plans, or their errors;
    returns how many plans were made.

    Raises PgOpsError if the sink does not work.
    """
    made, size, until = 0, 0, time.monotonic() + BUDGET
    with opened(configuration, layout, source, node) as sink:
        with sink.transaction() as node_id:
            asked = sink.session.rows(ASKED, [node_id])
        for one in asked:
            if time.monotonic() > until or size > ROOM:
                break
            plan, wrong = planned(configuration, one)
            made += plan is not None
            size += len(plan or "")
            with sink.transaction() as node_id:
                sink.session.execute(STORE, [node_id, one["database_name"], one["queryid"], plan, wrong])
    return made


def planned(configuration: Configuration, one: dict[str, Any]) -> tuple[str | None, str | None]:
    """The plan of a statement (database_name, user_name, query) as JSON, or why there is none."""
    wrong = unfit(one["query"])
    if wrong:
        return None, wrong
    try:
        database = encoding.meant(one["database_name"])
        with _bounded(), connect(endpoints.planner(configuration, database, TIME_LIMIT)) as session:
            plan = _explained(session, one["query"], one["user_name"])
            if len(json.dumps(plan)) > LARGEST_PLAN:
                return None, TOO_LARGE
            return json.dumps(_clean(plan)), None
    except QueryFailed as error:
        return None, _reason(error)
    except MemoryError:
        return None, TOO_LARGE
    except (PgOpsError, ValueError, RecursionError) as error:
        return None, redacted(str(error)[:LONGEST])


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Allow no more additional memory than MEMORY."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        most = int(file.read().split()[0]) * resource.getpagesize() + MEMORY
    if before[0] == resource.RLIM_INFINITY or before[0] > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _explained(session: Session, text: str, user: str) -> Any:
    options = "FORMAT JSON, GENERIC_PLAN" if session.major >= GENERIC_PLAN else "FORMAT JSON"
    with _ended(session), session.transaction(rollback=True):
        session.execute("SET TRANSACTION READ ONLY")
        session.execute(BEFORE, {"user": user})
        return session.single(f"EXPLAIN ({options}) {text}")


@contextlib.contextmanager
def _ended(session: Session) -> Iterator[None]:
    """End the session after a while, even if its statement catches the cancellation."""
    timer = threading.Timer(PATIENCE, session.abandon)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _reason(error: QueryFailed) -> str:
    if error.sqlstate in (None, "57P01"):
        return ENDED
    words = error.message.rpartition(" [SQLSTATE ")[0][:LONGEST]  # a function may raise an error of any length
    return f"{REASONS.get(error.sqlstate) or redacted(words)} [SQLSTATE {error.sqlstate}]"


def unfit(text: str) -> str | None:
    """Why a text is not planned at all, None if it may be."""
    # Cut at the end of a character of up to four bytes.
    if len(text.encode()) > LONGEST - 4:
        return "The statement's text is too long to be stored completely."
    if REDACTED in text:
        return "The statement's text was redacted, so it is no longer the same statement."
    if first_word(text) not in PLANNABLE:
        return "This kind of statement has no plan."
    return None


def first_word(text: str) -> str:
    """The first word after comments and parentheses, in lower case; empty if there is none."""
    at = 0
    while at < len(text):
        if text.startswith("/*", at):
            at = block_end(text, at)
        elif text.startswith("--", at):
            at += re.match(r"[^\r\n]*", text[at:]).end()  # type: ignore[union-attr]  # matches anything
        elif text[at].isspace() or text[at] == "(":
            at += 1
        else:
            break
    found = WORD.match(text, at)
    return found.group().lower() if found else ""


def _clean(plan: Any) -> Any:
    """A plan with redacted conditions, as texts are: it also contains those of views and policies."""
    if isinstance(plan, dict):
        return {key: _clean(value) for key, value in plan.items()}
    if isinstance(plan, list):
        return [_clean(value) for value in plan]
    return redacted(plan) if isinstance(plan, str) else plan
