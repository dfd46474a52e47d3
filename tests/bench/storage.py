# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a sample costs to keep, beside a table for each collector with a row of JSONB for each of its rows."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
from deploying import SHIPPED, deploy, target
from figures import Figures
from servers import Server

from pgops.metrics import collectors, delivery, rounds
from pgops.metrics.collectors import Collector, wrapped
from pgops.metrics.rounds import Shapes
from pgops.server.session import Session, connect

MINUTES = 360
TABLES = 30
DATABASES = 2
LEAST_SERIES = 300
MOST_BYTES = {"disk": 14.0, "WAL": 20.0}
"""A sample of ours, with that many series at the least."""
SHOP = "CREATE TABLE public.t{} (a integer PRIMARY KEY, b text)"
SIZE = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (n.nspname = 'peer' OR c.relname LIKE 'round%' OR c.relname IN ('shape_series', 'shape'))
"""
Rows = dict[str, list[dict[str, Any]]]


def measure() -> Figures:
    """Bytes of disk and of WAL a sample, of the same samples every minute for some hours."""
    figures = Figures("storage", f"bytes a sample, {MINUTES} minutes of all collectors that run each minute")
    with Server.create(18, settings={"full_page_writes": "on", "autovacuum": "off"}) as server:
        deploy(server)
        for name in range(TABLES):
            server.value(SHOP.format(name))
        for name in range(DATABASES):
            server.value(f"CREATE DATABASE shop{name}")
        with connect(target(server, user="pgops")) as session:
            chosen = [one for one in SHIPPED if _each_minute(one, server.major)]
            rows = {one.name: session.documents(wrapped(one.query)) for one in chosen}
        for contestant in (_ours, _peers):
            size, wal, count = contestant(server, chosen, rows)
            who = "ours" if contestant is _ours else "peer"
            figures.add("disk", who, size / count)
            figures.add("WAL", who, wal / count)
            figures.add("samples a minute", who, count / MINUTES)
        _judge(figures)
        with connect(target(server, database="pgops")) as session:
            for hour in session.rows("SELECT * FROM pgops.hours_to_roll_up()"):
                session.value("SELECT pgops.roll_up(%s, %s)", [hour["node_id"], hour["started_at"]])
            rolled = session.value("SELECT sum(size_bytes) FROM pgops.partitions WHERE kind = 'rollup'")
        figures.add(
            "disk of hourly rollups", "ours", float(rolled) / figures.values["samples a minute"]["ours"][0] / MINUTES
        )
    return figures


def _judge(figures: Figures) -> None:
    """What a sample may take."""
    (series,) = figures.values["samples a minute"]["ours"]
    if series < LEAST_SERIES:
        figures.missed.append(f"There are {series:.0f} series only, not {LEAST_SERIES}.")
    for what, most in MOST_BYTES.items():
        (found,) = figures.values[what]["ours"]
        if found > most:
            figures.missed.append(f"A sample takes {found:.1f} bytes of {what}, not {most:.0f}.")


def _each_minute(found: Collector, major: int) -> bool:
    return found.interval == 60 and found.rights == "monitor" and found.applies(major, in_recovery=False)


def _moved(rows: Rows, names: dict[str, set[str]]) -> None:
    """Other values, as of a server that works."""
    for collector, some in rows.items():
        for row in some:
            for name in names[collector] & row.keys():
                if row[name] is not None and random.random() < 0.5:
                    row[name] = float(row[name]) + random.randint(1, 999)


def _moments(rows: Rows, chosen: list[Collector]) -> Any:
    names = {one.name: {metric.name for metric in one.metrics} for one in chosen}
    start = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    for minute in range(MINUTES):
        _moved(rows, names)
        yield start + timedelta(minutes=minute)


def _written(session: Session, before: object) -> float:
    return float(session.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", [before]))


def _ours(server: Server, chosen: list[Collector], rows: Rows) -> tuple[float, float, int]:
    shapes: Shapes = {}
    count = 0
    with connect(target(server, database="pgops")) as session:
        size = float(session.value(SIZE) or 0)
        node = session.value("SELECT pgops.register_node('c', 'n', '1', true, '')")
        session.execute("CHECKPOINT")
        before = session.value("SELECT pg_current_wal_insert_lsn()::text")
        for moment in _moments(rows, chosen):
            found = [sample for one in chosen for sample in rounds.samples(one, rows[one.name])]
            count += len(found)
            with session.transaction():
                session.execute("SET LOCAL synchronous_commit = off")
                for one in rounds.packed(rounds.place(60), found, moment.isoformat(), "m m", shapes):
                    delivery.store(session, node, one, collectors.metrics(chosen))
        return float(session.value(SIZE)) - size, _written(session, before), count


def _peers(server: Server, chosen: list[Collector], rows: Rows) -> tuple[float, float, int]:
    server.value("CREATE DATABASE peer")
    count = 0
    with connect(target(server, database="peer")) as session:
        connection: psycopg.Connection = session.connection
        session.execute("CREATE SCHEMA peer")
        for one in chosen:
            table = f"peer.{one.name}"
            session.script(f"CREATE TABLE {table} (time timestamptz, dbname text, data jsonb, tag_data jsonb)")
            session.script(f"CREATE INDEX ON {table} (dbname, time)")
        session.execute("CHECKPOINT")
        before = session.value("SELECT pg_current_wal_insert_lsn()::text")
        for moment in _moments(rows, chosen):
            with session.transaction():
                session.execute("SET LOCAL synchronous_commit = off")
                for one in chosen:
                    count += _copied(connection, one, rows[one.name], moment)
        return float(session.value(SIZE)), _written(session, before), count


def _copied(connection: psycopg.Connection, found: Collector, rows: list[dict[str, Any]], moment: datetime) -> int:
    """Write the rows of a collector into its table; how many values are in them."""
    names = {metric.name for metric in found.metrics}
    count = 0
    with connection.cursor() as cursor, cursor.copy(f"COPY peer.{found.name} FROM STDIN".encode()) as copy:
        for row in rows:
            known = {key: value for key, value in row.items() if value is not None}
            data = {key: value for key, value in known.items() if key in names}
            tags = {key: value for key, value in known.items() if key not in names}
            copy.write_row([moment, "db1", json.dumps(data), json.dumps(tags)])
            count += len(data)
    return count
