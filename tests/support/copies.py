# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ops databases for tests that need one as it was deployed: a copy takes an eighth of the time of a deployment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from deploying import deploy, withdraw
from servers import Server

KEPT = "template_pgops"
RIGHTS = (  # which are not of the database, and are not copied
    "REVOKE ALL ON DATABASE pgops FROM PUBLIC",
    "GRANT CONNECT ON DATABASE pgops TO pgops, pgops_operator, pgops_reader",
)
NAMES = "SELECT 'DATABASE', datname FROM pg_database UNION ALL SELECT 'ROLE', rolname FROM pg_roles"
QUOTE = '"'
ROLES = """
SELECT jsonb_build_array(
    (SELECT jsonb_agg(r ORDER BY rolname) FROM pg_authid AS r WHERE oid >= 16384 OR oid = 10),
    (SELECT jsonb_agg(m ORDER BY m::text) FROM pg_auth_members AS m WHERE member >= 16384 OR roleid >= 16384),
    (SELECT jsonb_agg(s ORDER BY s::text) FROM pg_db_role_setting AS s)
)
"""


@dataclass
class Copies:
    """Copies of what was deployed to a server once, one after the other.

    What is deployed outside of the database, roles and access rules, stays in between: where a test has changed it,
    all of it is deployed anew. Other databases and roles go with the copy in whose time they were made.
    """

    server: Server
    prepared: str = ""  # statements that run in the ops database once, after its deployment
    _outside: object = None

    @contextlib.contextmanager
    def one(self) -> Iterator[Server]:
        """The server with an ops database for the length of a `with`."""
        if self._outside is None:
            self._deploy()
        before = self._names()
        with self.server.connect() as session:
            for statement in (f"CREATE DATABASE pgops TEMPLATE {KEPT} OWNER pgops_owner", *RIGHTS):
                session.execute(statement.encode())
        try:
            yield self.server
        finally:
            for kind, name in sorted(self._names() - before):  # databases first
                force = "WITH (FORCE)" if kind == "DATABASE" else ""
                self.server.value(f'DROP {kind} "{name.replace(QUOTE, QUOTE * 2)}" {force}')
            if self._seen_outside() != self._outside:
                self.end()

    def end(self) -> None:
        """Leave nothing behind."""
        self._outside = None
        self.server.value(f"DROP DATABASE IF EXISTS {KEPT} WITH (FORCE)")
        withdraw(self.server)

    def _deploy(self) -> None:
        deploy(self.server)
        if self.prepared:
            self.server.value(self.prepared, "pgops")
        with self.server.connect() as session:
            session.execute(f"ALTER DATABASE pgops RENAME TO {KEPT}".encode())
            session.execute(f"ALTER DATABASE {KEPT} OWNER TO {self.server.superuser}".encode())
            session.execute(f"ALTER DATABASE {KEPT} ALLOW_CONNECTIONS false".encode())
        self._outside = self._seen_outside()

    def _names(self) -> set[tuple[str, str]]:
        """All databases and roles."""
        with self.server.connect() as session:
            return set(session.execute(NAMES.encode()))

    def _seen_outside(self) -> object:
        files = [(self.server.data_dir / name).read_text() for name in ("pg_hba.conf", "pg_ident.conf")]
        return [self.server.value(ROLES), *files]
