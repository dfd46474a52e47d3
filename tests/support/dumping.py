# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases of tests that are dumped, and what becomes of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import artifact
from archives import Host
from backed import Backed, own
from deploying import deploy
from psycopg import sql
from servers import Server

from pgops.repository import dumps
from pgops.repository.dumps import Dumped

DEBIAN = "/usr/lib/postgresql/15/bin"
ODD = "a/b \"c\" 'd' %s ü = \\ ."
SHOP = """
CREATE TABLE item AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 1000) AS n;
ALTER TABLE item ADD PRIMARY KEY (id);
CREATE TABLE price (item integer REFERENCES item, amount money, note xml);
INSERT INTO price VALUES (1, 12.34, '<a/>'), (2, NULL, NULL);
CREATE UNLOGGED TABLE scratch AS SELECT 1 AS n;
CREATE INDEX ON item (lower(name));
CREATE VIEW dear AS SELECT * FROM price WHERE amount > 10::money;
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS items FROM item;
CREATE EXTENSION hstore;
CREATE TABLE bag (contents hstore);
INSERT INTO bag VALUES ('a=>1');
CREATE PUBLICATION everything FOR ALL TABLES;
SELECT lo_from_bytea(0, 'large'), lo_from_bytea(0, 'larger');
CREATE TABLE "odd
name" (n integer);
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
ALTER TABLE item FORCE ROW LEVEL SECURITY;
"""


def archiving(host: Host, **declared: Any) -> Backed:
    """A server with a repository and the ops database; of no program but those of dumps anything is asked."""
    host.apply()
    deploy(host.server, backup=True)
    backed = Backed(host, declared)
    Path(backed.layout.keeping).mkdir(parents=True)
    own(Path(backed.layout.keeping), host.server)
    return backed


def held(backed: Backed, database: str | bytes) -> Dumped:
    """The dumps of a database."""
    (generation,) = (path for path in backed.host.repository.iterdir() if path.is_dir())
    key = dumps.key(database if isinstance(database, bytes) else database.encode())
    return dumps.listed(str(generation / "dump" / key))


def create(server: Server, name: str, options: str = "") -> None:
    with server.connect() as session:
        session.autocommit = True
        session.execute(sql.SQL("CREATE DATABASE {} " + options).format(sql.Identifier(name)))


def content(server: Server, name: str) -> str:
    """A database as pg_dump has it, without what is never the same twice."""
    words = ("-h", str(server.socket_dir), "-p", str(server.port), "-U", server.superuser)
    told = server.run(server.client("pg_dump"), *words, "--dbname", server.dsn(name))
    return "\n".join(line for line in told.splitlines() if not line.startswith(("\\restrict", "\\unrestrict", "--")))


def commands(heading: str) -> list[list[str]]:
    """The words of each command below a heading of the runbook, in its first block."""
    part = (artifact.ROOT / "docs" / "recovery.md").read_text().partition(f"## {heading}\n")[2]
    return [shlex.split(line) for line in part.partition("\n## ")[0].split("```")[1].strip().splitlines()]


def forked(work_: Callable[[], object]) -> int:
    """A process that does something; its number."""
    child = os.fork()
    if child:
        return child
    try:
        work_()
    finally:
        os._exit(0)
