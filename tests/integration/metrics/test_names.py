# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names in other encodings than the ops database's: each has one label, and no two have the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deploying import SHIPPED, collect, deploy, inspect, target
from servers import Server

from pgops.metrics import collectors
from pgops.server.session import connect

LETTERS, BYTE = "\\xe4", b"\xe4"
"""The names of two databases."""
NAMES = """
SELECT replace(datname::text, '\\', '\\\\')::bytea FROM pg_database
WHERE datname NOT IN ('postgres', 'template0', 'template1', 'pgops', 'loose')
"""


@pytest.fixture(name="loose")
def _loose(deployed: Server) -> Iterator[Server]:
    """A server with the database `loose`, in which any byte is a character; all others are dropped in the end."""
    deployed.value("CREATE DATABASE loose TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    there = names(deployed)
    yield deployed
    for name in names(deployed) - there:
        run(deployed, "loose", b'DROP DATABASE "' + name + b'" WITH (FORCE)')
    deployed.value("DROP DATABASE loose WITH (FORCE)")


def names(server: Server) -> set[bytes]:
    with server.connect("loose") as session:
        return {bytes(name) for (name,) in session.execute(NAMES.encode()).fetchall()}


def run(server: Server, inside: str, statement: bytes) -> None:
    """A statement in the encoding of the database in which it is run: that is libpq's default."""
    with server.connect(inside) as session:
        session.autocommit = True
        session.execute(statement)


def create(server: Server, name: bytes, encoding: str = "UTF8", inside: str = "loose") -> None:
    options = f" TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'".encode()
    run(server, inside, b'CREATE DATABASE "' + name + b'"' + options)


def databases(server: Server, metric: str) -> set[str]:
    """The databases of which a metric is known."""
    select = "SELECT array_agg(DISTINCT database_name) FROM pgops.system_metrics WHERE metric_name = '{}'"
    with server.connect("pgops") as session:
        (found,) = session.execute(select.format(metric).encode()).fetchone() or ([],)
    return {name for name in found if name and "template" not in name} - {"postgres", "pgops", "loose"}


def tables(server: Server, database: str) -> list[str]:
    """The tables of a database of which the size is known."""
    select = (
        "SELECT array_agg(DISTINCT table_name) FROM pgops.system_metrics "
        "WHERE metric_name = 'table_size_mb' AND database_name = %s AND table_name IS NOT NULL"
    )
    with server.connect("pgops") as session:
        (found,) = session.execute(select, [database]).fetchone() or ([],)
    return list(found)


@pytest.mark.every_major
def test_a_byte_and_the_letters_for_it_are_two_databases(loose: Server, tmp_path: Path) -> None:
    for name in (BYTE, LETTERS.encode()):
        create(loose, name)
    for database, own in (("\udce4", "in_byte"), (LETTERS, "in_letters")):
        with connect(target(loose, database=database)) as session:
            session.execute(f"CREATE TABLE public.{own} (i smallint GENERATED ALWAYS AS IDENTITY)")
    assert collect(loose, tmp_path)["errors"] == []
    assert inspect(loose, tmp_path)["errors"] == []
    for metric in ("database_size_mb", "deadlocks", "connections", "table_size_mb", "sequences_unread"):
        assert databases(loose, metric) >= {"\\xe4", "\\\\xe4"}, metric
    assert (tables(loose, "\\xe4"), tables(loose, "\\\\xe4")) == (["in_byte"], ["in_letters"])


@pytest.mark.every_major
def test_the_function_in_the_database_gives_the_same_names(loose: Server, tmp_path: Path) -> None:
    for name in (BYTE, LETTERS.encode(), "dév€".encode(), b"a\xe4\xbd\\b"):
        create(loose, name)
    with loose.connect("pgops") as session:
        said: list[str] = []
        session.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        session.execute("SELECT pgops.collect_database_metrics()")
    assert said == []
    before = databases(loose, "deadlocks")
    assert before >= {"\\xe4", "\\\\xe4", "dév€", "a\\xe4\\xbd\\\\b"}
    assert collect(loose, tmp_path)["errors"] == []
    assert databases(loose, "deadlocks") == before


@pytest.mark.every_major
def test_a_database_in_another_encoding_has_one_label(loose: Server, tmp_path: Path) -> None:
    for encoding, name, own in (("LATIN1", "dév", "größe"), ("EUC_JP", "jév", "日本")):
        create(loose, name.encode(), encoding, inside="postgres")
        with loose.connect(name, client_encoding="UTF8") as session:
            session.execute(f'CREATE TABLE public."{own}" (i smallint GENERATED ALWAYS AS IDENTITY)'.encode())
    create(loose, b"c\xe9", "LATIN1", inside="dév")
    assert collect(loose, tmp_path)["errors"] == []
    assert inspect(loose, tmp_path)["errors"] == []
    for metric in ("database_size_mb", "deadlocks", "table_size_mb", "sequences_unread"):
        assert databases(loose, metric) == {"dév", "jév", "c\\xe9"}, metric
    assert (tables(loose, "dév"), tables(loose, "jév")) == (["größe"], ["日本"])


TWICE = """-- collector: twice
-- metric: twice_things
-- metric: twice_done kind=counter
SELECT kind, 1 AS twice_things, 1 AS twice_done FROM (VALUES ('a'), ('b'), ('a')) AS v (kind)
"""


def test_rows_that_nothing_tells_apart_lose_themselves_only(deployed: Server, tmp_path: Path) -> None:
    deploy(deployed, collectors=[TWICE])
    stored = "FROM pgops.system_metrics WHERE metric_name = 'twice_done'"
    kinds = f"SELECT string_agg(additional_info ->> 'kind', '') {stored}"
    outcome = collect(deployed, tmp_path, found=[*SHIPPED, collectors.parse(TWICE, "twice.sql")])
    (error,) = outcome["errors"]
    assert "twice: 2 series were left out, as several rows have them" in error
    assert deployed.value(kinds, "pgops") == "b"
    with deployed.connect("pgops") as session:
        said: list[str] = []
        session.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        session.execute("SELECT pgops.collect_database_metrics()")
    assert said == ["collector twice: 4 samples were left out, as several rows have the same labels"]
    assert deployed.value(kinds, "pgops") == "bb"
    # Of the collection, and of the function.
    failed = "SELECT sum(metric_value) FROM pgops.system_metrics WHERE metric_name = 'collector_errors'"
    assert deployed.value(f"{failed} AND additional_info ->> 'collector' = 'twice'", "pgops") == 2
