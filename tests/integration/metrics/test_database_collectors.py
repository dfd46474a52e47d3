# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is measured inside databases, against hand-written queries and events that are provoked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from deploying import deploy, withdraw
from measuring import BY_NAME, Rows, counted, measure, row_of, session_of, values_of
from servers import Server
from waiting import PATIENCE, until

from pgops.errors import QueryFailed
from pgops.metrics.collectors import wrapped
from pgops.metrics.rounds import samples

INSIDE = [
    "table_size",
    "table_activity",
    "index_activity",
    "vacuum_progress",
    "index_health",
    "vacuum_need",
    "freeze_need",
    "table_bloat",
    "index_bloat",
    "sequences",
]
BY_INDEX = {
    "scans": "idx_scan",
    "tuples_read": "idx_tup_read",
    "tuples_fetched": "idx_tup_fetch",
    "blocks_hit": "idx_blks_hit",
    "blocks_read": "idx_blks_read",
    "size_mb": "mb",
}


REMAINDER = """
SELECT c.relpages + coalesce(t.relpages, 0) + coalesce((
    SELECT sum(x.relpages) FROM pg_index AS i INNER JOIN pg_class AS x ON i.indexrelid = x.oid
    WHERE i.indrelid IN (c.oid, c.reltoastrelid)
), 0) AS pages
FROM pg_class AS c LEFT JOIN pg_class AS t ON c.reltoastrelid = t.oid
WHERE c.relkind = 'r' AND NOT c.relisshared
    AND (c.relname = 't9' OR c.relnamespace::regnamespace::text <> '"we""ird S"')
"""


@pytest.fixture(name="deployed", scope="module")
def _deployed(server: Server) -> Iterator[Server]:
    deploy(server)
    yield server
    withdraw(server)


def test_sizes_are_exact_for_the_largest_and_estimated_for_others(deployed: Server, database: str) -> None:
    deployed.psql(
        """
        CREATE SCHEMA "we""ird S";
        CREATE TABLE "we""ird S"."Ta""b le, é" AS SELECT g, repeat('x', 99) AS t FROM generate_series(1, 2000) AS g;
        CREATE INDEX ON "we""ird S"."Ta""b le, é" (g);
        CREATE UNLOGGED TABLE "we""ird S".unlogged AS SELECT g FROM generate_series(1, 900) AS g;
        DO $$BEGIN FOR n IN 1..9 LOOP
            EXECUTE format('CREATE TABLE "we""ird S".t%s AS SELECT g FROM generate_series(1, 500) AS g', n);
        END LOOP; END$$;
        """,
        database,
    )
    deployed.value("VACUUM", database)
    rows = measure(deployed, "table_size", database)
    assert len(rows) == 11
    exact = """SELECT pg_total_relation_size('"we""ird S"."Ta""b le, é"') / 1048576.0"""
    row = row_of(rows, database=database, schema='we"ird S', table='Ta"b le, é', part=None)
    assert row["table_size_mb"] == pytest.approx(float(str(deployed.value(exact, database))))
    others = f"SELECT sum(pages) * 8192 / 1048576.0 FROM ({REMAINDER}) AS estimated"
    expected = float(str(deployed.value(others, database)))
    assert row_of(rows, part="remainder")["table_size_mb"] == pytest.approx(expected)


MANY_PARTITIONS = """
CREATE SCHEMA parts;
CREATE TABLE measurement (at integer, word text) PARTITION BY RANGE (at);
CREATE TABLE parts.early PARTITION OF measurement FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (at);
DO $$BEGIN FOR n IN 0..119 LOOP
    EXECUTE format('CREATE TABLE p%s PARTITION OF %s FOR VALUES FROM (%s) TO (%s) WITH (autovacuum_enabled = off)',
        n, CASE WHEN n BETWEEN 100 AND 199 THEN 'parts.early' ELSE 'measurement' END, n, n + 1);
END LOOP; END$$;
INSERT INTO measurement SELECT n % 120, repeat('x', 99) FROM generate_series(1, 36000) AS n;
CREATE TABLE plain AS SELECT n FROM generate_series(1, 3000) AS n;
CREATE TABLE other AS SELECT n FROM generate_series(1, 2000) AS n;
"""


@pytest.mark.every_major
def test_partitions_are_added_up(deployed: Server, database: str) -> None:
    deployed.psql(MANY_PARTITIONS, database)
    deployed.value("VACUUM", database)
    sizes = values_of(measure(deployed, "table_size", database), "table_size_mb", "table")
    assert sizes.keys() == {"measurement", "plain", "other", None}
    whole = "SELECT sum(pg_total_relation_size(relid)) / 1048576.0 FROM pg_partition_tree('measurement')"
    assert sizes["measurement"] == pytest.approx(float(str(deployed.value(whole, database))))


LARGE = """
CREATE TABLE all_index (a integer) WITH (autovacuum_enabled = off);
INSERT INTO all_index SELECT generate_series(1, 20000);
CREATE INDEX one ON all_index (a);
CREATE INDEX two ON all_index (a, (a + 1), (a + 2), (a + 3));
DO $$BEGIN FOR n IN 1..10 LOOP
    EXECUTE format('CREATE TABLE t%s AS SELECT g, repeat(''x'', 99) AS t FROM generate_series(1, 6300) AS g', n);
END LOOP; END$$;
CREATE TABLE toasted (a text PRIMARY KEY, b text);
ALTER TABLE toasted ALTER b SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT g, repeat('x', 9000) FROM generate_series(1, 300) AS g;
SELECT count(lo_from_bytea(0, convert_to(repeat('x', 9000), 'UTF8'))) FROM generate_series(1, 100);
"""


def test_sizes_add_up_to_those_of_all_tables_with_indexes_toast_and_large_objects(
    deployed: Server, database: str
) -> None:
    deployed.psql(LARGE, database)
    deployed.value("VACUUM", database)
    whole = """SELECT sum(pg_total_relation_size(oid)) / 1048576.0 FROM pg_class
        WHERE relkind IN ('r', 'm') AND NOT relisshared"""
    rows = measure(deployed, "table_size", database)
    sizes = values_of(rows, "table_size_mb", "table")
    assert len(rows) == 12
    for name in ("all_index", "toasted", "pg_largeobject"):
        exact = f"SELECT pg_total_relation_size('{name}') / 1048576.0"
        assert sizes[name] == pytest.approx(float(str(deployed.value(exact, database))))
    # Maps of free space and visibility are not in the estimate of what remains.
    assert sum(sizes.values()) == pytest.approx(float(str(deployed.value(whole, database))), rel=0.15)
    assert sum(sizes.values()) < float(str(deployed.value(whole, database)))
    with deployed.connect(database) as holder, holder.transaction(force_rollback=True):
        holder.execute("LOCK TABLE all_index, toasted IN ACCESS EXCLUSIVE MODE")
        locked = values_of(measure(deployed, "table_size", database), "table_size_mb", "table")
    assert locked == pytest.approx(sizes, abs=0.13)


@pytest.mark.every_major
def test_what_happens_to_tables_and_indexes_is_counted(deployed: Server, database: str) -> None:
    began = time.time()
    deployed.psql(
        """
        CREATE TABLE "Ta""b le" (a integer PRIMARY KEY, b integer) WITH (autovacuum_enabled = off);
        CREATE INDEX "In""dex" ON "Ta""b le" (b);
        """,
        database,
    )
    for statement in (
        'INSERT INTO "Ta""b le" SELECT g, g FROM generate_series(1, 100) AS g',
        'UPDATE "Ta""b le" SET b = -b WHERE a <= 10',
        'DELETE FROM "Ta""b le" WHERE a > 95',
        'SET enable_seqscan = off; SELECT count(*) FROM "Ta""b le" WHERE a = 7',
        'SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM "Ta""b le"',
    ):
        deployed.psql(statement, database)
    counted(deployed, database, "n_tup_del = 5 AND seq_scan > 0 AND idx_scan > 0 FROM pg_stat_user_tables")
    row = row_of(measure(deployed, "table_activity", database), schema="public", table='Ta"b le', part=None)
    expected = {"inserted": 100, "updated": 10, "deleted": 5}
    assert {key: row[f"table_tuples_{key}"] for key in expected} == expected
    assert (row["table_live_tuples"], row["table_dead_tuples"]) == (95, 15)
    assert (row["table_last_vacuum"], row["table_last_analyze"]) == (None, None)
    joined = "pg_stat_user_tables AS s JOIN pg_statio_user_tables AS i USING (relid)"
    seen = f"SELECT to_jsonb(s) || to_jsonb(i) FROM {joined}"
    theirs: Any = deployed.value(seen, database)
    assert row["table_tuples_hot_updated"] == theirs["n_tup_hot_upd"]
    assert row["table_tuples_since_analyze"] == theirs["n_mod_since_analyze"] == 115
    assert (row["table_vacuums"], row["table_analyzes"]) == (0, 0)
    for key in ("hit", "read"):
        blocks = sum(theirs[f"{part}_blks_{key}"] or 0 for part in ("heap", "idx", "toast", "tidx"))
        assert row[f"table_blocks_{key}"] == blocks
    assert row["table_seq_scans"] == theirs["seq_scan"]
    assert row["table_seq_tuples_read"] == theirs["seq_tup_read"]
    assert row["table_index_scans"] == theirs["idx_scan"]
    assert row["table_index_tuples_fetched"] == theirs["idx_tup_fetch"]
    deployed.value('VACUUM "Ta""b le"', database)
    deployed.value('ANALYZE "Ta""b le"', database)
    counted(deployed, database, "last_vacuum IS NOT NULL AND last_analyze IS NOT NULL FROM pg_stat_user_tables")
    row = row_of(measure(deployed, "table_activity", database), table='Ta"b le')
    for key in ("table_last_vacuum", "table_last_analyze"):
        assert began - 1 < row[key] <= time.time() + 1
    assert (row["table_dead_tuples"], row["table_tuples_since_analyze"]) == (0, 0)
    assert (row["table_vacuums"], row["table_analyzes"]) == (1, 1)
    _check_indexes(deployed, database)


def _check_indexes(server: Server, database: str) -> None:
    rows = measure(server, "index_activity", database)
    assert {row["index"]: row["uniqueness"] for row in rows} == {'Ta"b le_pkey': "unique", 'In"dex': None}
    for row in rows:
        theirs: Any = server.value(
            "SELECT to_jsonb(s) || jsonb_build_object('mb', pg_relation_size(s.indexrelid) / 1048576.0) "
            "|| to_jsonb(i) FROM pg_stat_user_indexes AS s JOIN pg_statio_user_indexes AS i USING (indexrelid) "
            f"WHERE s.indexrelname = '{row['index']}'",
            database,
        )
        ours = [row[f"index_{key}"] for key in BY_INDEX]
        assert ours == [theirs[key] for key in BY_INDEX.values()]
        assert (row["database"], row["schema"], row["table"]) == (database, "public", 'Ta"b le')
    assert row_of(rows, index='Ta"b le_pkey')["index_scans"] > 0


def test_counters_count_since_a_reset_and_the_remainder_has_none(deployed: Server, database: str) -> None:
    deployed.psql(
        """
        DO $$BEGIN FOR n IN 1..53 LOOP EXECUTE format('CREATE TABLE t%s (a integer PRIMARY KEY)', n); END LOOP; END$$;
        INSERT INTO t53 VALUES (1), (2);
        DELETE FROM t53 WHERE a = 1;
        """,
        database,
    )
    counted(deployed, database, "n_tup_del = 1 FROM pg_stat_user_tables WHERE relname = 't53'")
    began = _clock(deployed)
    deployed.value("SELECT pg_stat_reset()", database)
    deployed.psql("INSERT INTO t52 SELECT generate_series(1, 4)", database)
    counted(deployed, database, "n_tup_ins = 4 FROM pg_stat_user_tables WHERE relname = 't52'")
    rows = measure(deployed, "table_activity", database)
    remainder = rows.pop()
    assert len(rows) == 50
    gauges = {key: value for key, value in remainder.items() if value is not None}
    expected = {"database": database, "part": "remainder", "table_live_tuples": 4, "table_dead_tuples": 0}
    assert gauges == expected
    reset: Any = deployed.value(
        f"SELECT extract(EPOCH FROM stats_reset) FROM pg_stat_database WHERE datname = '{database}'"
    )
    assert began <= reset
    assert {row["counted_since"] for row in rows} == {rows[0]["counted_since"]}
    same = f"SELECT stats_reset = '{rows[0]['counted_since']}' FROM pg_stat_database WHERE datname = '{database}'"
    assert deployed.value(same) is True
    rows = measure(deployed, "index_activity", database)
    assert (len(rows), rows[-1]["part"], rows[-1]["index_scans"]) == (51, "remainder", None)
    assert rows[-1]["index_size_mb"] is not None


def test_an_invalid_index_is_told_from_one_being_built(deployed: Server, database: str) -> None:
    deployed.psql('CREATE TABLE "Twice" AS SELECT 1 AS a FROM generate_series(1, 2)', database)
    assert row_of(measure(deployed, "index_health", database), index=None)["invalid_indexes"] == 0
    with deployed.connect(database) as builder, pytest.raises(psycopg.errors.UniqueViolation):
        builder.execute('CREATE UNIQUE INDEX CONCURRENTLY "Fail""ed" ON "Twice" (a)')
    with ThreadPoolExecutor() as threads, deployed.connect(database) as holder:
        holder.execute('BEGIN; LOCK TABLE "Twice" IN ROW EXCLUSIVE MODE')
        building = threads.submit(deployed.value, 'CREATE INDEX CONCURRENTLY built ON "Twice" (a)', database)
        present = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('built') AND NOT indisvalid"
        until(lambda: deployed.value(present, database), "being built", 1)
        rows = measure(deployed, "index_health", database)
        holder.execute("ROLLBACK")
        building.result(PATIENCE)
    assert row_of(rows, index=None)["invalid_indexes"] == 1
    named = row_of(rows, invalid_index=1)
    assert (named["database"], named["schema"], named["table"], named["index"]) == (
        database,
        "public",
        "Twice",
        'Fail"ed',
    )
    deployed.value('DROP INDEX "Fail""ed"', database)
    assert row_of(measure(deployed, "index_health", database), index=None)["invalid_indexes"] == 0


DUPLICATES = """
CREATE TABLE "Orders" (a integer PRIMARY KEY, b text COLLATE "C", c text);
CREATE INDEX same_as_key ON "Orders" (a);
CREATE INDEX first ON "Orders" (b, a) WHERE a > 0;
CREATE INDEX "Se""cond" ON "Orders" (b, a) WHERE a > 0;
CREATE INDEX other_predicate ON "Orders" (b, a) WHERE a > 1;
CREATE INDEX other_columns ON "Orders" (a, b) WHERE a > 0;
CREATE INDEX other_collation ON "Orders" (b COLLATE "POSIX", a) WHERE a > 0;
CREATE INDEX other_class ON "Orders" (b text_pattern_ops, a) WHERE a > 0;
CREATE INDEX other_order ON "Orders" (b DESC, a) WHERE a > 0;
CREATE INDEX other_method ON "Orders" USING hash (a);
CREATE INDEX included ON "Orders" (b) INCLUDE (a) WHERE a > 0;
CREATE INDEX other_options ON "Orders" (b, a) WITH (fillfactor = 50) WHERE a > 0;
CREATE INDEX upper ON "Orders" (upper(c));
CREATE INDEX upper_again ON "Orders" (upper(c));
CREATE INDEX lower ON "Orders" (lower(c));
"""


@pytest.mark.every_major
def test_duplicate_indexes_are_all_but_one_of_each_set(deployed: Server, database: str) -> None:
    deployed.psql(DUPLICATES, database)
    rows = measure(deployed, "index_health", database)
    size = "SELECT pg_relation_size('{}')"
    expected = {
        name: deployed.value(size.format(f'"{name}"'.replace('Se"', 'Se""')), database)
        for name in ("same_as_key", 'Se"cond', "upper_again")
    }
    assert values_of(rows, "duplicate_index_bytes", "index") == expected
    whole = row_of(rows, index=None)
    assert (whole["duplicate_indexes"], whole["duplicate_indexes_bytes"]) == (
        3,
        sum(map(int, map(str, expected.values()))),
    )
    assert (whole["unused_indexes"], whole["unused_indexes_bytes"]) == (None, None)


def _impatient(server: Server, database: str, patience: str = "0 days") -> Rows:
    """The rows of index_health with a shorter wait than a week: nothing can set back the clock of the statistics."""
    collector = BY_NAME["index_health"]
    assert collector.query.count("'7 days'") == 1
    with session_of(server, collector, database) as session:
        rows: Rows = session.documents(wrapped(collector.query.replace("'7 days'", f"'{patience}'")))
    return rows


def test_statistics_of_a_new_database_are_not_as_old_as_its_server(deployed: Server) -> None:
    # What all databases share is not of the new one.
    deployed.psql(
        "ANALYZE pg_shdescription; SET enable_seqscan = off; "
        "SELECT FROM pg_shdescription WHERE (objoid, classoid) = (1, 1)"
    )
    read = _clock(deployed)
    until(lambda: _clock(deployed) - read, "of another time", lambda passed: passed > 2)
    made = _clock(deployed)
    with deployed.database() as new:
        deployed.psql("CREATE TABLE t (a integer); CREATE INDEX ON t (a); ANALYZE t", new)
        counted(deployed, new, "last_analyze IS NOT NULL FROM pg_stat_user_tables")

        def unused() -> tuple[bool, Any]:
            """Whether the new database was younger all the time than what was waited for, and its unused indexes."""
            patience = _clock(deployed) - (read + made) / 2
            found = row_of(_impatient(deployed, new, f"{patience} s"), index=None)["unused_indexes"]
            return _clock(deployed) - made < patience, found

        _young, found = until(unused, "asked in time", lambda seen: seen[0])
        assert found is None
        until(lambda: row_of(_impatient(deployed, new, "1 s"), index=None)["unused_indexes"], "known", 1)


def _clock(server: Server) -> float:
    """The server's time."""
    return float(str(server.value("SELECT extract(epoch FROM clock_timestamp())")))


PARTITIONED = """
CREATE TABLE "Part ed" (a integer, b integer, c integer, d integer) PARTITION BY RANGE (a);
CREATE TABLE one PARTITION OF "Part ed" FOR VALUES FROM (0) TO (1000);
CREATE TABLE two PARTITION OF "Part ed" FOR VALUES FROM (1000) TO (3000) PARTITION BY RANGE (a);
CREATE TABLE three PARTITION OF two FOR VALUES FROM (1000) TO (2000);
INSERT INTO "Part ed" SELECT g, g, g, g FROM generate_series(1, 1999) AS g;
CREATE UNIQUE INDEX by_key ON "Part ed" (a);
CREATE INDEX used ON "Part ed" (b);
CREATE INDEX "Un""used" ON "Part ed" (c);
CREATE INDEX again ON "Part ed" (b);
CREATE INDEX alone ON three (d);
CREATE INDEX like_its_part ON one (b);
CREATE TABLE none (a integer) PARTITION BY RANGE (a);
CREATE INDEX of_none ON none (a);
ANALYZE "Part ed";
"""


def test_an_index_of_a_partitioned_table_is_unused_where_all_its_partitions_are(
    deployed: Server, database: str
) -> None:
    deployed.psql(PARTITIONED, database)
    deployed.psql("SET enable_seqscan = off; SELECT count(*) FROM three WHERE b = 1007", database)
    counted(deployed, database, "sum(idx_scan) = 1 FROM pg_stat_user_indexes WHERE relname = 'three'")
    size = """SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('"{}"') WHERE isleaf"""
    sizes = {name: int(str(deployed.value(size.format(name), database))) for name in ('Un""used', "used", "again")}
    rows = _impatient(deployed, database)
    # One of both that are alike was used.
    unused = values_of(rows, "unused_index_bytes", "index")
    assert unused.pop("used", None) or unused.pop("again")
    assert set(unused) == {'Un"used', "alone", "like_its_part"}
    assert unused['Un"used'] == sizes['Un""used']
    assert row_of(rows, unused_index_bytes=unused['Un"used'], index='Un"used')["table"] == "Part ed"
    assert row_of(rows, index=None)["unused_indexes"] == 4
    duplicate = values_of(rows, "duplicate_index_bytes", "index")
    assert duplicate == {"again": sizes["again"], "like_its_part": duplicate["like_its_part"]}


def test_unused_indexes_are_known_only_from_statistics_of_a_week(deployed: Server, database: str) -> None:
    deployed.psql(
        """
        CREATE TABLE t (a integer PRIMARY KEY, b integer UNIQUE, c integer, d integer);
        INSERT INTO t SELECT g, g, g, g FROM generate_series(1, 2000) AS g;
        CREATE INDEX used ON t (c);
        CREATE INDEX "Un""used" ON t (d);
        ANALYZE t;
        """,
        database,
    )
    counted(deployed, database, "last_analyze IS NOT NULL FROM pg_stat_user_tables")
    assert row_of(_impatient(deployed, database), index=None)["unused_indexes"] == 2
    deployed.value("SELECT pg_stat_reset()", database)
    deployed.psql("SET enable_seqscan = off; SELECT count(*) FROM t WHERE c = 7", database)
    counted(deployed, database, "idx_scan = 1 FROM pg_stat_user_indexes WHERE indexrelname = 'used'")
    whole = row_of(measure(deployed, "index_health", database), index=None)
    assert (whole["unused_indexes"], whole["unused_indexes_bytes"]) == (None, None)
    rows = _impatient(deployed, database)
    size = deployed.value("""SELECT pg_relation_size('"Un""used"')""", database)
    assert values_of(rows, "unused_index_bytes", "index") == {'Un"used': size}
    whole = row_of(rows, index=None)
    assert (whole["unused_indexes"], whole["unused_indexes_bytes"]) == (1, size)


def said_by_the_server(server: Server, database: str, score: str) -> Any:
    """How urgent the server itself calls its tables, by one of its scores, which it tells since PostgreSQL 19."""
    table = f"pg_stat_autovacuum_scores WHERE schemaname = 'public' AND {score} > 0"
    return server.value(f"SELECT jsonb_object_agg(relname, {score}) FROM {table}", database)


@pytest.mark.every_major
def test_dead_rows_are_rated_by_what_autovacuum_goes_by(deployed: Server, database: str) -> None:
    options = {"plain": "", "own": ", autovacuum_vacuum_threshold = 10, autovacuum_vacuum_scale_factor = 0"}
    expected = {"plain": 600 / (50 + 0.2 * 1000), "own": 600 / 10}
    if deployed.major >= 18:
        options["limited"] = ", autovacuum_vacuum_max_threshold = 100"
        expected["limited"] = 600 / 100
    for name, own in options.items():
        deployed.psql(
            f"CREATE TABLE {name} WITH (autovacuum_enabled = off{own}) AS SELECT generate_series(1, 1000) AS a; "
            f"ANALYZE {name}; DELETE FROM {name} WHERE a <= 600",
            database,
        )
    counted(deployed, database, f"count(*) = {len(options)} FROM pg_stat_user_tables WHERE n_dead_tup = 600")
    rows = measure(deployed, "vacuum_need", database)
    ours = {row["table"]: row["table_vacuum_due_ratio"] for row in rows if row["schema"] == "public"}
    assert ours == pytest.approx(expected)
    if deployed.major >= 19:
        assert said_by_the_server(deployed, database, "vacuum_score") == pytest.approx(expected)
    # A catalogue of the server's may be due as well, now and then.
    due = row_of(rows, table=None, part=None)["tables_vacuum_due"]
    assert len(expected) <= due <= len([row for row in rows if row["table"]])
    deployed.psql("VACUUM", database)
    counted(deployed, database, "sum(n_dead_tup) = 0 FROM pg_stat_user_tables")
    rows = measure(deployed, "vacuum_need", database)
    assert [row for row in rows if row["schema"] == "public" and row["table_vacuum_due_ratio"] > 0] == []


@pytest.mark.every_major
def test_inserts_and_changes_are_rated_by_what_autovacuum_goes_by(deployed: Server, database: str) -> None:
    options = {
        "plain": "",
        "own": ", autovacuum_vacuum_insert_threshold = 100, autovacuum_vacuum_insert_scale_factor = 0.5, "
        "autovacuum_analyze_threshold = 10, autovacuum_analyze_scale_factor = 0.01",
        "never": ", autovacuum_vacuum_insert_threshold = -1",
    }
    for name, own in options.items():
        deployed.psql(
            f"CREATE TABLE {name} WITH (autovacuum_enabled = off{own}) AS SELECT generate_series(1, 1000) AS a",
            database,
        )
        # A VACUUM forgets the inserts that are counted by then.
        counted(deployed, database, f"n_tup_ins = 1000 FROM pg_stat_user_tables WHERE relname = '{name}'")
        deployed.value(f"VACUUM (FREEZE, ANALYZE) {name}", database)
        deployed.psql(f"INSERT INTO {name} SELECT generate_series(1, 3000)", database)
    counted(deployed, database, "count(*) = 3 FROM pg_stat_user_tables WHERE n_ins_since_vacuum = 3000")
    rows = measure(deployed, "vacuum_need", database)
    # PostgreSQL 18 counts the share of the table that is not frozen: nothing of these.
    part = 0 if deployed.major >= 18 else 1
    inserts = {
        "plain": pytest.approx(3000 / (1000 + 0.2 * 1000 * part)),
        "own": pytest.approx(3000 / (100 + 0.5 * 1000 * part)),
    }
    changes = {
        "plain": pytest.approx(3000 / (50 + 0.1 * 1000)),
        "own": pytest.approx(3000 / (10 + 0.01 * 1000)),
        "never": pytest.approx(3000 / (50 + 0.1 * 1000)),
    }
    ours = {row["table"]: row for row in rows if row["schema"] == "public"}
    assert {name: one["table_insert_vacuum_due_ratio"] for name, one in ours.items()} == {**inserts, "never": None}
    assert {name: one["table_analyze_due_ratio"] for name, one in ours.items()} == changes
    if deployed.major >= 19:
        assert said_by_the_server(deployed, database, "vacuum_insert_score") == inserts
        assert said_by_the_server(deployed, database, "analyze_score") == changes
    whole = row_of(rows, table=None, part=None)
    due = [
        row for row in rows if row["table"] and row["table_analyze_due_ratio"] and row["table_analyze_due_ratio"] > 2
    ]
    assert whole["tables_analyze_due"] == len(due) >= 3
    assert whole["tables_insert_vacuum_due"] >= 2
    deployed.value("SELECT pg_stat_reset()", database)
    counted(deployed, database, "sum(n_mod_since_analyze) = 0 FROM pg_stat_user_tables")
    rows = measure(deployed, "vacuum_need", database)
    assert [row for row in rows if row["schema"] == "public"] == []


TOASTED = """
CREATE TABLE {0} (a integer, b text) WITH (autovacuum_enabled = off{1});
ALTER TABLE {0} ALTER b SET STORAGE EXTERNAL;
INSERT INTO {0} SELECT g, repeat('x', 9000) FROM generate_series(1, 100) AS g;
"""


TOAST_INSERTED = """n_tup_ins >= 500 FROM pg_stat_all_tables
WHERE relid = (SELECT reltoastrelid FROM pg_class WHERE oid = '{}'::regclass)"""


@pytest.mark.every_major
def test_toast_is_rated_as_its_table(deployed: Server, database: str) -> None:
    limits = ", {}autovacuum_vacuum_threshold = {}, {}autovacuum_vacuum_scale_factor = 0"
    options = {
        "plain": "",
        "own": ", toast.autovacuum_enabled = off" + limits.format("toast.", 20, "toast."),
        "passed_on": limits.format("", 10, ""),
    }
    options["two"] = options["passed_on"] + options["own"].replace("= 20", "= 40")
    for name, own in options.items():
        deployed.psql(TOASTED.format(name, own), database)
        # A VACUUM forgets the inserts that are counted by then.
        counted(deployed, database, TOAST_INSERTED.format(name))
        deployed.value(f"VACUUM {name}", database)
        deployed.psql(f"UPDATE {name} SET b = repeat('y', 9000) WHERE a <= 50", database)
    counted(
        deployed, database, "count(*) = 4 FROM pg_stat_all_tables WHERE n_dead_tup >= 250 AND schemaname = 'pg_toast'"
    )
    pieces = 5 * 50  # of 1996 bytes each
    rows = measure(deployed, "vacuum_need", database)
    ours = values_of(rows, "table_vacuum_due_ratio", "table")
    assert {name: ours[name] for name in options} == pytest.approx(
        {"plain": pieces / (50 + 0.2 * 500), "own": pieces / 20, "passed_on": pieces / 10, "two": pieces / 40}
    )
    inserts = values_of(rows, "table_insert_vacuum_due_ratio", "table")
    part = 0 if deployed.major >= 18 else 1
    # PostgreSQL 18 counts the share of the table that is not frozen, and has frozen these few pages as it vacuumed.
    assert inserts["plain"] == pytest.approx(pieces / (1000 + 0.2 * 500 * part), rel=0.1)
    # Nothing is analyzed but the table.
    assert values_of(rows, "table_analyze_due_ratio", "table")["plain"] == pytest.approx(150 / (50 + 0.1 * 100))
    assert row_of(rows, table=None, part=None)["tables_vacuum_due"] >= 3


def test_the_worst_of_all_other_tables_is_the_remainder(deployed: Server, database: str) -> None:
    deployed.psql(
        """
        DO $$BEGIN FOR n IN 1..21 LOOP
            EXECUTE format(
                'CREATE TABLE t%s WITH (autovacuum_enabled = off, autovacuum_vacuum_threshold = 1,'
                ' autovacuum_vacuum_scale_factor = 0) AS SELECT generate_series(1, 5000) AS a', n
            );
            EXECUTE format('DELETE FROM t%s', n);
        END LOOP; END$$;
        """,
        database,
    )
    counted(deployed, database, "count(*) = 21 FROM pg_stat_user_tables WHERE n_dead_tup = 5000")
    rows = measure(deployed, "vacuum_need", database)
    assert {row["table_vacuum_due_ratio"] for row in rows if row["schema"] == "public"} == {5000}
    assert len(rows) == 22
    assert row_of(rows, part="remainder")["table_vacuum_due_ratio"] == 5000
    assert row_of(rows, table=None, part=None)["tables_vacuum_due"] >= 21  # catalogues may be due as well


FREEZING = """
CREATE TABLE early (a integer, b text) WITH (autovacuum_freeze_max_age = 100000,
    autovacuum_multixact_freeze_max_age = 10000);
CREATE TABLE late (a text) WITH (autovacuum_freeze_max_age = 2000000000);
CREATE TABLE toasted (a text) WITH (toast.autovacuum_freeze_max_age = 150000);
CREATE TABLE passed_on (a text) WITH (autovacuum_freeze_max_age = 150000);
INSERT INTO early SELECT g, repeat('x', 1000) FROM generate_series(1, 2000) AS g;
INSERT INTO late SELECT repeat('x', 1000) FROM generate_series(1, 2000);
INSERT INTO toasted SELECT repeat('x', 1000) FROM generate_series(1, 2000);
INSERT INTO passed_on SELECT repeat('x', 1000) FROM generate_series(1, 2000);
"""
BURNING = """
DO $$BEGIN
    FOR n IN 1..101000 LOOP
        BEGIN
            INSERT INTO burnt VALUES (n);
        EXCEPTION WHEN division_by_zero THEN END;
    END LOOP;
END$$;
"""
AGEING = """
DO $$BEGIN
    FOR n IN 1..300 LOOP
        PERFORM FROM early WHERE a = n FOR KEY SHARE;
        BEGIN
            -- A row that is locked by one transaction and updated by another takes a multixact.
            UPDATE early SET b = '' WHERE a = n;
        EXCEPTION WHEN division_by_zero THEN END;
    END LOOP;
END$$;
"""


def measured_at_rest(server: Server, database: str, query: str) -> tuple[list[dict[str, Any]], Any]:
    """What freeze_need says while a query gives the same, which anybody's transaction ages; and what it gives."""
    for _attempt in range(20):
        before = server.value(query, database)
        rows = measure(server, "freeze_need", database)
        if server.value(query, database) == before:
            return rows, before
    raise AssertionError("transactions come all the time")


def test_ages_of_tables_are_rated_by_when_autovacuum_freezes_them(deployed: Server, database: str) -> None:
    deployed.psql(FREEZING + "CREATE TABLE burnt (a integer)", database)
    deployed.value("VACUUM late", database)
    before = row_of(measure(deployed, "freeze_need", database), table=None, part=None)
    assert before["tables_freeze_due"] == 0
    with deployed.connect(database) as holder:
        # Autovacuum, which comes for that table even where it is off, has to wait.
        holder.execute("BEGIN; LOCK TABLE early IN SHARE UPDATE EXCLUSIVE MODE")
        deployed.psql(AGEING + BURNING, database)
        deployed.value("VACUUM (FREEZE, PROCESS_TOAST FALSE) passed_on", database)
        rows, ages = measured_at_rest(
            deployed,
            database,
            """
            SELECT jsonb_object_agg(c.relname, jsonb_build_array(
                age(c.relfrozenxid), mxid_age(c.relminmxid), age(t.relfrozenxid)
            )) FROM pg_class AS c INNER JOIN pg_class AS t ON c.reltoastrelid = t.oid
            """,
        )
        holder.execute("ROLLBACK")
    xid = values_of(rows, "table_xid_freeze_lag_percent", "table")
    ours = {name: xid[name] for name in ("early", "late", "toasted", "passed_on")}
    assert ours == pytest.approx(
        {
            "early": 100 * ages["early"][0] / 100_000,
            "late": 100 * ages["late"][0] / 200_000_000,
            "toasted": 100 * ages["toasted"][2] / 150_000,
            "passed_on": 100 * ages["passed_on"][2] / 150_000,
        }
    )
    assert 101 < ours["early"] < 103
    assert 67 < ours["toasted"] < 69
    assert ages["passed_on"][0] < 1000
    assert 67 < ours["passed_on"] < 69
    multixact = values_of(rows, "table_multixact_freeze_lag_percent", "table")["early"]
    assert multixact == pytest.approx(100 * ages["early"][1] / 10_000)
    assert 3 <= multixact < 4
    assert row_of(rows, table=None, part=None)["tables_freeze_due"] == 1
    assert len(rows) == 22
    assert row_of(rows, part="remainder")["table_xid_freeze_lag_percent"] < 1


def test_a_temporary_table_that_grows_old_is_seen(deployed: Server, database: str) -> None:
    rows = measure(deployed, "freeze_need", database)
    assert [row for row in rows if row["part"] == "temporary"] == []
    with deployed.connect(database) as pooled:
        pooled.execute("CREATE TEMPORARY TABLE kept (a text) WITH (autovacuum_freeze_max_age = 100000)")
        deployed.psql("CREATE TABLE burnt (a integer)", database)
        deployed.psql(BURNING, database)
        age = "SELECT age(relfrozenxid) FROM pg_class WHERE relname = 'kept'"
        rows, kept = measured_at_rest(deployed, database, age)
    expected = pytest.approx(100 * kept / 100_000)
    assert row_of(rows, part="temporary")["table_xid_freeze_lag_percent"] == expected
    assert row_of(rows, part="temporary")["table_multixact_freeze_lag_percent"] is not None
    assert "kept" not in values_of(rows, "table_xid_freeze_lag_percent", "table")
    assert row_of(rows, part="remainder")["table_xid_freeze_lag_percent"] < 1
    assert row_of(rows, table=None, part=None)["tables_freeze_due"] == 1


SEQUENCES = """
CREATE TABLE "Small" ("I d" smallserial);
SELECT setval(pg_get_serial_sequence('"Small"', 'I d'), 31128);
CREATE TABLE identity (a integer GENERATED ALWAYS AS IDENTITY);
SELECT setval('identity_a_seq', 1073741824);
CREATE SEQUENCE down INCREMENT -1 MINVALUE -200 MAXVALUE -1;
SELECT nextval('down') FROM generate_series(1, 50);
CREATE SEQUENCE big;
CREATE TABLE narrow (a integer DEFAULT nextval('big'));
SELECT setval('big', 2040109466);
CREATE DOMAIN number AS smallint;
CREATE DOMAIN positive AS number CHECK (VALUE > 0);
CREATE SEQUENCE deep;
CREATE TABLE deep_below (a positive DEFAULT nextval('deep'));
SELECT setval('deep', 31128);
CREATE SEQUENCE last START 9223372036854775807;
CREATE SEQUENCE first INCREMENT -1 MINVALUE -9223372036854775808 MAXVALUE 9223372036854775807
    START -9223372036854775808;
CREATE SEQUENCE whole INCREMENT -1 MINVALUE -9223372036854775808 MAXVALUE 9223372036854775807
    START 9223372036854775807;
CREATE SEQUENCE round MAXVALUE 10 CYCLE;
SELECT nextval('round') FROM generate_series(1, 10);
CREATE SEQUENCE unused MAXVALUE 10;
CREATE SEQUENCE "Of""fi ce" MAXVALUE 10;
SELECT setval('"Of""fi ce"', 10);
"""


@pytest.mark.every_major
def test_sequences_are_measured_up_to_their_own_limit_or_that_of_their_column(
    deployed: Server, database: str
) -> None:
    deployed.psql(SEQUENCES, database)
    rows = measure(deployed, "sequences", database)
    assert values_of(rows, "sequence_used_percent", "sequence") == pytest.approx(
        {
            "Small_I d_seq": 95,
            "identity_a_seq": 50,
            "down": 25,
            "big": 95,
            "deep": 95,
            "last": 100,
            "first": 100,
            "whole": 0,
            "unused": 0,
            'Of"fi ce': 100,
        },
        abs=0.01,
    )
    whole = row_of(rows, sequence=None)
    assert (whole["sequences_used_percent_max"], whole["sequences_unread"]) == (pytest.approx(100), 0)
    with deployed.connect(database) as holder:
        holder.execute("BEGIN; ALTER SEQUENCE unused MAXVALUE 11")
        rows = measure(deployed, "sequences", database)
        holder.execute("ROLLBACK")
    assert "unused" not in values_of(rows, "sequence_used_percent", "sequence")
    assert row_of(rows, sequence=None)["sequences_unread"] == 1


MANY = """
DO $$BEGIN FOR n IN 1..1000 LOOP EXECUTE format('CREATE SEQUENCE s%s AS integer', n); END LOOP; END$$;
CREATE TABLE filled (a serial);
INSERT INTO filled SELECT FROM generate_series(1, 3000);
ANALYZE filled;
CREATE SEQUENCE drawn AS integer;
SELECT count(nextval('drawn')) FROM generate_series(1, 3000);
CREATE SEQUENCE late AS smallint;
SELECT setval('late', 32000);
"""


def _read(server: Server, database: str, step: int) -> tuple[set[str], Rows]:
    """The sequences that a run at another time reads, by the locks it holds, and its rows."""
    collector = BY_NAME["sequences"]
    assert collector.query.count("now()") == 1
    query = collector.query.replace("now()", f"to_timestamp({step * collector.interval})")
    with session_of(server, collector, database) as session, session.transaction():
        rows = session.documents(wrapped(query))
        locked = session.rows(
            "SELECT c.relname FROM pg_locks AS l INNER JOIN pg_class AS c ON l.relation = c.oid "
            "WHERE l.pid = pg_backend_pid() AND c.relkind = 'S'"
        )
    return {row["relname"] for row in locked}, rows


def test_of_many_sequences_the_fullest_are_read_each_time_and_all_others_in_turn(
    deployed: Server, database: str
) -> None:
    deployed.psql(MANY, database)
    counted(deployed, database, "blks_hit > 2000 FROM pg_statio_all_sequences WHERE relname = 'drawn'")
    for stride in (1, 6):  # an interval of ten minutes, and one of an hour
        runs = [_read(deployed, database, 2_900_000 + stride * number) for number in range(8)]
        read = [names for names, _ in runs]
        assert {len(names) for names in read} == {500}
        assert {"filled_a_seq", "drawn"} <= set.intersection(*read)
        assert len(set.union(*read)) == 1003
        for names, rows in runs:
            whole = row_of(rows, sequence=None)
            assert (whole["sequences_unread"], whole["sequences_deferred"]) == (0, 503)
            assert (whole["sequences_used_percent_max"] > 97) == ("late" in names)


def test_a_table_is_dropped_at_once_while_sequences_are_read(deployed: Server, database: str) -> None:
    deployed.psql(
        "DO $$BEGIN FOR n IN 1..200 LOOP EXECUTE format('CREATE TABLE t%s (a serial)', n); END LOOP; END$$", database
    )
    collector = BY_NAME["sequences"]
    ended = threading.Event()

    def _collect_on() -> int:
        runs = 0
        while not ended.is_set():
            # A session of its own each time, as a collection has it: the first look at a sequence takes the longest.
            with session_of(deployed, collector, database) as session, contextlib.suppress(QueryFailed):
                runs += 1  # also where what it looks at is dropped under its hands
                session.documents(wrapped(collector.query))
        return runs

    with ThreadPoolExecutor() as threads, deployed.connect(database) as dropper:
        reading = threads.submit(_collect_on)
        dropper.execute("SET lock_timeout = '1s'")  # where it takes no time; a collection may take 20 s
        try:
            for number in range(1, 201):
                dropper.execute(f"TRUNCATE t{number} RESTART IDENTITY".encode())
                dropper.execute(f"DROP TABLE t{number}".encode())
        finally:
            ended.set()
        assert reading.result(PATIENCE) > 1
    with session_of(deployed, collector, database) as session:
        (whole,) = session.documents(wrapped(collector.query))
    assert whole["sequences_unread"] == 0


@pytest.mark.every_major
def test_nobody_is_waited_for_and_nobody_waits(deployed: Server, database: str) -> None:
    deployed.psql(
        "CREATE TABLE held (a serial PRIMARY KEY, b text); CREATE TABLE read (a serial PRIMARY KEY, b text); "
        "CREATE TABLE built (a serial PRIMARY KEY)",
        database,
    )
    found = [BY_NAME[name] for name in INSIDE]
    with (
        ThreadPoolExecutor() as threads,
        deployed.connect(database) as holder,
        deployed.connect(database) as reader,
        session_of(deployed, BY_NAME["table_size"], database) as ours,
        session_of(deployed, BY_NAME["sequences"], database) as owners,
    ):
        holder.execute("BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE; REINDEX INDEX built_pkey")
        reader.execute("BEGIN; SELECT FROM read")
        altering = threads.submit(deployed.value, "ALTER TABLE read ADD COLUMN c integer", database)
        until(lambda: deployed.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), "queueing", 1)
        with ours.transaction(), owners.transaction():
            # Who waited for a lock would be ended by the time limit, which is an error.
            for collector in found:
                session = owners if collector.rights == "all_data" else ours
                assert samples(collector, session.documents(wrapped(collector.query)))
            reader.execute("ROLLBACK")
            # Our transactions are open still, with whatever locks they have taken.
            altering.result(PATIENCE)


SLOW = """
CREATE FUNCTION slow(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN PERFORM pg_catalog.pg_sleep(0.001); RETURN $1; END$$;
CREATE TABLE many AS SELECT g AS a FROM generate_series(1, 20000) AS g;
"""


@pytest.mark.parametrize(
    ("operation", "statement"),
    [("VACUUM", "VACUUM many"), ("CREATE INDEX", "CREATE INDEX ON many (slow(a))")],
)
def test_maintenance_is_seen_while_it_runs(deployed: Server, database: str, operation: str, statement: str) -> None:
    deployed.psql(SLOW, database)
    seen: list[tuple[Any, ...]] = []

    def running_now() -> int:
        row = row_of(measure(deployed, "vacuum_progress", "postgres"), operation=operation)
        seen.append((row["maintenance_running"], row["maintenance_percent"], row["maintenance_seconds"]))
        return int(seen[-1][0])

    until(running_now, "idle", 0)  # autovacuum may be at work
    assert seen[-1] == (0, None, None)
    # An index build on the table's first block says that all blocks are done.
    partly = "heap_blks_total > 0" if operation == "VACUUM" else "blocks_done < blocks_total"
    view = f"pg_stat_progress_{operation.lower().replace(' ', '_')}"
    with ThreadPoolExecutor() as threads, deployed.connect(database) as worker:
        worker.execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")
        began = time.time()
        running = threads.submit(worker.execute, statement.encode())
        mine = f"SELECT {partly} FROM {view} WHERE pid = {worker.info.backend_pid}"
        until(lambda: deployed.value(mine), "running")
        until(running_now, "alone", 1)
        took = time.time() - began
        deployed.value(f"SELECT pg_cancel_backend({worker.info.backend_pid})")
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result(PATIENCE)
    _number, percent, seconds = seen[-1]
    assert 0 <= percent < 100
    assert 0 < seconds <= took
