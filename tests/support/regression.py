# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database of all that PostgreSQL has: the one that its own regression tests leave behind."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import binaries
from servers import Server

NAME = "regression"
FIRST = ("test_setup", "create_table", "create_index", "create_view", "create_type")
"""Whose objects others use."""
WITHOUT = re.compile(
    r"psql|vacuum_parallel|infinite_recurse|numa|sanity|oidjoins|stats$|subscription|async|tablespace|database"
    r"|event_trigger_login|reindex_catalog|maintain_every|collate\.windows|advisory_lock|lock$"
)
"""Which leave nothing behind, or change what is beside the database."""
ROWS = """
INSERT INTO onek SELECT
    (n * 7919) % 1000, n, n % 2, n % 4, n % 10, n % 20, n % 100, n % 10, n % 200, n % 500, n % 1000, n % 20,
    n % 20 + 1, 'u' || n, 's' || n, 'VVVVxx'
FROM generate_series(0, 999) AS n;
INSERT INTO tenk1 SELECT
    (n::bigint * 7919) % 10000, n, n % 2, n % 4, n % 10, n % 20, n % 100, n % 1000, n % 2000, n % 5000, n, n % 20,
    n % 20 + 1, 'u' || n, 's' || n, 'VVVVxx'
FROM generate_series(0, 9999) AS n;
INSERT INTO onek2 SELECT * FROM onek;
INSERT INTO tenk2 SELECT * FROM tenk1;
"""
"""In place of the files that the tests load, which come with PostgreSQL's source alone."""
LIMITS = "-c statement_timeout=20s -c lock_timeout=5s"


def make(server: Server) -> None:
    """Make the database: what a statement needs that is not here fails, and the others go on."""
    server.value(f"CREATE DATABASE {NAME} TEMPLATE template0 ENCODING 'UTF8'")
    place = binaries.regression()
    found = sorted(path.stem for path in place.glob("*.sql"))
    assert len(found) > 200, f"{place} has {len(found)} files"
    for name in [*FIRST, *(one for one in found if one not in FIRST and not WITHOUT.search(one))]:
        _try(server, place / f"{name}.sql")
        if name == FIRST[0]:
            run(server, ROWS)
    tables = server.value("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND oid > 16384", NAME)
    assert int(str(tables)) > 300, f"only {tables} tables were made"


def run(server: Server, statements: str) -> None:
    """Run statements one by one, each in its own transaction."""
    with server.connect(NAME) as session:
        for statement in statements.split(";\n"):
            session.execute(statement.encode()) if statement else None


def _try(server: Server, file: Path) -> None:
    """Run a file of statements, which may fail, but may not hang."""
    words = ("--no-psqlrc", "--quiet", "--dbname", server.dsn(NAME), "--file", file)
    environment = {"PGOPTIONS": LIMITS, "PGTZ": "America/Los_Angeles", "PG_ABS_SRCDIR": "/nowhere"}
    with contextlib.suppress(RuntimeError):
        server.run(server.client("psql"), *words, env=environment)


def dumped(server: Server) -> str:
    """The database as pg_dump writes it, apart from what each dump has of its own, and from unlogged tables, which a
    recovery empties."""
    words = ["--dbname", server.dsn(NAME), "--restrict-key", "regression", "--no-unlogged-table-data"]
    return str(server.run(server.client("pg_dump"), *words))


def check(server: Server) -> None:
    """Have pg_amcheck look at all tables and B-trees of the database.

    Raises RuntimeError with what it found.
    """
    server.run(server.client("pg_amcheck"), "--install-missing", "--heapallindexed", server.dsn(NAME))
