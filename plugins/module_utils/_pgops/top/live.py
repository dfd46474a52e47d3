# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An instance as it is now: looks at its server, one after the other, by one session that is opened anew where it was
lost. What fails costs its section only; a server that does not answer costs the look, and never more than some
seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..alerting import shown
from ..errors import LoginRefused, PgOpsError, QueryFailed, Unreachable
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..server.session import Session, connect, place
from ..server.target import Target
from ..statements.options import options
from . import head, sessions
from .picture import ALERTS, BLOCKING, EVENTS, PROGRESS, SERVER, SESSIONS, Picture, Section

ANSWERS = 5
"""Seconds for a login, and for each query: a server whose processes are stopped never answers."""
STATEMENT = 2.0
"""Seconds after which the server itself ends a query."""
READS = 30.0
"""Seconds of a query of what is stored."""
SELDOM = 10.0
"""Seconds between two looks into the ops database, where nothing changes more often."""
ANYWHERE = "postgres"
"""The database to look from where the ops database takes no session; one that a server does not have has a stand-in
(session.connect)."""
RESERVED = "the ops database is not read by the superuser, as whom this is logged in"

CHANGES = """
SELECT e.occurred_at::timestamptz(0) AS at, e.node, e.kind, e.event_text AS text
FROM pgops.events AS e
WHERE e.occurred_at > now() - interval '1 day'
ORDER BY e.occurred_at DESC
LIMIT 50
"""
NOT_THERE = ("3F000", "42P01", "42883")
"""SQLSTATEs of a schema, a relation and a function that are not there."""


Read = TypeVar("Read")


@dataclass(frozen=True)
class Login:
    """How to log in; ``lacking`` says why the ops database cannot be read so, '' if it can."""

    target: Target
    lacking: str = ""


def agents(configuration: Configuration) -> Login:
    """As the agent, as all its jobs do."""
    return Login(_quick(endpoints.agent(configuration, "top")))


def reserved(configuration: Configuration) -> Login:
    """As the superuser, to whom some connections are reserved, and who gives up all rights but to look."""
    target = replace(endpoints.administrator(configuration), application_name="pgops top", lock_timeout=0.1)
    return Login(_quick(replace(target, role="pg_monitor")), RESERVED)


def _quick(target: Target) -> Target:
    return replace(target, connect_timeout=ANSWERS, statement_timeout=STATEMENT)


def of_store(configuration: Configuration) -> Login:
    """As the agent, for queries of what is stored, which may take longer."""
    return Login(replace(agents(configuration).target, statement_timeout=READS))


def opened(login: Login) -> tuple[Session, str]:
    """A session, and why the ops database cannot be read in it, '' if it can.

    Raises PgOpsError.
    """
    try:
        return connect(login.target), login.lacking
    except LoginRefused as error:
        if "timeout expired" in error.message:
            raise Unreachable(
                f"The server on {place(login.target)} takes connections, but does not answer within {ANSWERS} s.",
                "Its processes may be stopped, or wait for a disk: see `ps` and `pgops watch --status`.",
            ) from error
        if login.lacking or error.full or login.target.database == ANYWHERE:
            raise
        try:
            return connect(replace(login.target, database=ANYWHERE)), error.message.rpartition("FATAL: ")[2].strip()
        except LoginRefused:
            raise error from None


class Watcher:
    """Looks at a server again and again."""

    def __init__(self, configuration: Configuration, login: Login) -> None:
        self.configuration, self.login = configuration, login
        self._texts = options(configuration).query_texts
        self._session: Session | None = None
        self._lacking = ""
        self._before: Mapping[str, Any] | None = None
        self._seldom: tuple[float, dict[str, Section]] | None = None

    def look(self) -> Picture:
        """The server now; rates are of the time since the last look.

        Raises PgOpsError if no session can be opened, or it was lost.
        """
        if self._session is None or self._session.connection.closed:
            self.close()
            self._session, self._lacking = opened(self.login)
        try:
            return self._picture(self._session)
        except PgOpsError:
            self.close()
            raise

    def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        self._seldom = None
        if session is not None:
            session.close()

    def _picture(self, session: Session) -> Picture:
        now: dict[str, Any] = asked(session, lambda: head.read(session))
        before, self._before = self._before, now
        found = {
            BLOCKING: self._section(session, lambda: sessions.blocking(session, self._texts)),
            SESSIONS: self._section(session, lambda: sessions.sessions(session, self._texts)),
            PROGRESS: self._section(session, lambda: sessions.progress(session)),
        }
        own = self.configuration
        stored = self._stored(session)
        return Picture(
            own.instance,
            own.cluster,
            own.node,
            SERVER,
            now["at"],
            head.head(now, before),
            {ALERTS: stored[ALERTS], **found, EVENTS: stored[EVENTS]},
        )

    def _stored(self, session: Session) -> dict[str, Section]:
        """What the ops database knows, as of some seconds ago."""
        if self._seldom is None or time.monotonic() > self._seldom[0] + SELDOM:
            found = {ALERTS: self._known(session, firing), EVENTS: self._known(session, changes)}
            self._seldom = (time.monotonic(), found)
        return self._seldom[1]

    def _known(self, session: Session, read: Callable[[Session], Section]) -> Section:
        if self._lacking:
            return Section(missing=self._lacking)
        return self._section(session, lambda: read(session))

    def _section(self, session: Session, read: Callable[[], Section]) -> Section:
        try:
            return asked(session, read)
        except QueryFailed as error:
            if session.connection.closed:
                raise
            return Section(missing=why(error, self.configuration.database))


def asked(session: Session, read: Callable[[], Read], seconds: float = ANSWERS) -> Read:
    """What is read in a transaction of its own that can write nothing, and takes so many seconds at most.

    Raises QueryFailed.
    """
    with session.answering(seconds), session.transaction():
        session.execute("SET TRANSACTION READ ONLY")
        return read()


def why(error: QueryFailed, database: str) -> str:
    """Why a section cannot be shown. Pure."""
    if error.sqlstate in NOT_THERE and "pgops" in error.message:
        return f"the database {database} has not been deployed to, or by another version: run site.yml"
    return str(error)


def firing(session: Session) -> Section:
    """The alerts that fire, the worst first, in the whole cluster."""
    rows = session.rows(shown.OPEN, [False])
    return Section(rows, note=" ".join(shown.unevaluated(session)))


def changes(session: Session) -> Section:
    """What changed within a day, the newest first, in the whole cluster."""
    return Section(session.rows(CHANGES))
