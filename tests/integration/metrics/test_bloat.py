# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Estimates of bloat, against what is left when tables and indexes are written anew, and against pgstattuple."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from deploying import deploy, withdraw
from measuring import counted, measure, row_of, values_of
from servers import Server
from shapes import HALVES, INDEXES, statements

TABLES = {
    "narrow": "CREATE TABLE narrow AS SELECT g AS a, g AS b, g::bigint AS c FROM generate_series(1, 50000) AS g",
    "padded": "CREATE TABLE padded (a integer, b bigint, c boolean, d smallint, e timestamptz, f boolean); "
    "INSERT INTO padded SELECT g, g, TRUE, 1, now(), FALSE FROM generate_series(1, 30000) AS g",
    "nullable": "CREATE TABLE nullable (a integer, b text, c text, d integer, e numeric, "
    "f integer, g integer, h integer, i integer); "
    "INSERT INTO nullable SELECT g, CASE WHEN g % 3 = 0 THEN repeat('x', g % 50) END, CASE WHEN g % 2 = 0 THEN "
    "md5(g::text) END, CASE WHEN g % 5 > 0 THEN g END, g / 7.0, 1, 2, 3, NULL FROM generate_series(1, 30000) AS g",
    "wide": "CREATE TABLE wide (a integer, b text, c text); ALTER TABLE wide ALTER c SET STORAGE EXTERNAL; "
    "INSERT INTO wide SELECT g, repeat(md5(g::text), 1 + g % 30), repeat(md5(g::text), 200) "
    "FROM generate_series(1, 3000) AS g",
    "varying": "CREATE TABLE varying AS SELECT g AS a, repeat('x', 100 + g % 1500) AS b "
    "FROM generate_series(1, 8000) AS g",
    "loose": "CREATE TABLE loose (a integer, b text) WITH (fillfactor = 70); "
    "INSERT INTO loose SELECT g, 'value ' || g FROM generate_series(1, 40000) AS g",
    "deleted": "CREATE TABLE deleted AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 50000) AS g; "
    "DELETE FROM deleted WHERE a % 10 > 0",
    "updated": "CREATE TABLE updated AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) AS g; "
    "UPDATE updated SET a = a + 1; UPDATE updated SET a = a + 1",
    "dropped": "CREATE TABLE dropped (a integer, b text, c integer); INSERT INTO dropped SELECT 1, 'all', g "
    "FROM generate_series(1, 40000) AS g; ALTER TABLE dropped DROP b; UPDATE dropped SET c = c + 1",
    "secured": "CREATE TABLE secured AS SELECT g AS a FROM generate_series(1, 40000) AS g; "
    "ALTER TABLE secured ENABLE ROW LEVEL SECURITY; DELETE FROM secured WHERE a % 4 > 0",
}
"""By their names; each is 1 MB or more."""
BLOATED = {"deleted": 90, "updated": 67, "dropped": 55, "secured": 75}
"""Percent, about; all others were written once."""
VIRTUAL = (
    "CREATE TABLE virtual (a bigint, v bigint GENERATED ALWAYS AS (a + 1) VIRTUAL, b bigint); "
    "INSERT INTO virtual (a, b) SELECT g, g FROM generate_series(1, 40000) AS g"
)
KEYS = """
CREATE TABLE keys (a integer, b bigint, t text, n integer, few integer, u uuid, d numeric);
INSERT INTO keys SELECT g, g, repeat('x', 5 + g % 40) || g, CASE WHEN g % 4 = 0 THEN g END, g % 10,
    md5(g::text)::uuid, g / 3.0 FROM generate_series(1, 60000) AS g;
CREATE UNIQUE INDEX "unique" ON keys (a);
CREATE INDEX texts ON keys (t);
CREATE INDEX several ON keys (few, a, t);
CREATE INDEX expression ON keys (upper(t));
CREATE INDEX codes ON keys (md5(t));
CREATE INDEX numbers ON keys (d);
CREATE INDEX included ON keys (few) INCLUDE (u);
CREATE INDEX apart ON keys (few) WITH (deduplicate_items = off, fillfactor = 70);
CREATE INDEX partial ON keys (b) WHERE a > 5000;
CREATE TABLE emptied (a integer, b integer);
CREATE INDEX emptied_a ON emptied (a);
CREATE INDEX random ON emptied (b);
INSERT INTO emptied SELECT g, hashint4(g) FROM generate_series(1, 100000) AS g;
DELETE FROM emptied WHERE a % 10 > 0;
CREATE TABLE random_inserts (a integer);
CREATE INDEX grown ON random_inserts (a);
INSERT INTO random_inserts SELECT hashint4(g) FROM generate_series(1, 60000) AS g;
CREATE TABLE many AS SELECT g AS a, g % 10 AS few, g % 1000 AS thousand, CASE WHEN g % 4 = 0 THEN g END AS n
    FROM generate_series(1, 200000) AS g;
CREATE INDEX few ON many (few);
CREATE INDEX thousand ON many (thousand);
CREATE INDEX nulls ON many (n);
DELETE FROM many WHERE a % 3 > 0;
CREATE INDEX partial_nulls ON keys (n, a) WHERE a > 5000;
CREATE INDEX hashed ON keys USING hash (a);
"""


@pytest.fixture(name="deployed", scope="module")
def _deployed(server: Server) -> Iterator[Server]:
    deploy(server)
    yield server
    withdraw(server)


@pytest.fixture(name="quiet")
def _quiet(deployed: Server, database: str) -> str:
    """A database in which nothing is vacuumed and analyzed but by the test."""
    deployed.psql(
        "CREATE EXTENSION pgstattuple; CREATE FUNCTION quiet() RETURNS event_trigger LANGUAGE plpgsql AS $$"
        "DECLARE made record; BEGIN FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() "
        "WHERE object_type = 'table' AND command_tag <> 'ALTER TABLE' LOOP "
        "EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', made.object_identity); END LOOP; END$$; "
        "CREATE EVENT TRIGGER quiet ON ddl_command_end EXECUTE FUNCTION quiet()",
        database,
    )
    return database


def _look(server: Server, database: str) -> None:
    """VACUUM and ANALYZE everything, once all sessions have handed in what they have counted."""
    server.value("VACUUM ANALYZE", database)
    counted(
        server,
        database,
        "bool_and(n_mod_since_analyze = 0 AND last_analyze IS NOT NULL) FROM pg_stat_user_tables",
    )


def _sizes(server: Server, database: str, relations: list[str]) -> dict[str, int]:
    """Bytes, by name."""
    return {name: int(str(server.value(f"SELECT pg_relation_size('\"{name}\"')", database))) for name in relations}


def test_the_bloat_of_tables_is_what_writing_them_anew_gives_back(deployed: Server, quiet: str) -> None:
    forms = {**TABLES, "virtual": VIRTUAL} if deployed.major >= 18 else TABLES
    for script in forms.values():
        deployed.psql(script, quiet)
    _look(deployed, quiet)
    rows = measure(deployed, "table_bloat", quiet)
    estimates = values_of(rows, "table_bloat_percent", "table")
    assert set(estimates) == set(forms)
    before = _sizes(deployed, quiet, list(forms))
    loose: Any = deployed.value(
        "SELECT jsonb_object_agg(relname, s.free_percent + s.dead_tuple_percent) "
        "FROM pg_class, pgstattuple(oid) AS s WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
        quiet,
    )
    deployed.value("VACUUM FULL", quiet)
    after = _sizes(deployed, quiet, list(forms))
    for name, estimate in estimates.items():
        assert estimate == pytest.approx(100 - 100 * after[name] / before[name], abs=2), name
        # Since PostgreSQL 16 a table that grows has empty pages at its end.
        assert estimate == pytest.approx(BLOATED[name], abs=3) if name in BLOATED else estimate < 8, name
        # Pages that are as full as they get have something left as well, and more by their fillfactor; pointers to
        # rows that are gone are not free in its eyes.
        assert -12 <= loose[name] - estimate <= (32 if name == "loose" else 9), name
    megabytes = values_of(rows, "table_bloat_mb", "table")
    assert megabytes == pytest.approx({name: estimates[name] / 100 * before[name] / 1048576 for name in forms})


def test_the_bloat_of_indexes_is_what_building_them_anew_gives_back(deployed: Server, quiet: str) -> None:
    deployed.psql(KEYS, quiet)
    _look(deployed, quiet)
    rows = measure(deployed, "index_bloat", quiet)
    estimates = values_of(rows, "index_bloat_percent", "index")
    before = _sizes(deployed, quiet, list(estimates))
    filled: Any = deployed.value(
        "SELECT jsonb_object_agg(relname, s.leaf_pages * s.avg_leaf_density / relpages) "
        "FROM pg_class, pgstatindex(oid::regclass) AS s "
        "WHERE relnamespace = 'public'::regnamespace AND relkind = 'i' AND relname <> 'hashed'",
        quiet,
    )
    assert set(estimates) == set(filled) - {"thousand", "nulls", "partial_nulls"}
    deployed.value(f"REINDEX DATABASE {quiet}", quiet)
    after = _sizes(deployed, quiet, list(estimates))
    for name, estimate in estimates.items():
        assert estimate == pytest.approx(100 - 100 * after[name] / before[name], abs=6), name
        full = 70 if name == "apart" else 90
        assert estimate == pytest.approx(100 - 100 * filled[name] / full, abs=8), name
    assert values_of(rows, "bloat_unknown_indexes", "reason") == {
        **dict.fromkeys(("wide_keys", "never_analyzed", "not_counted", "stale", "no_statistics", "beyond"), 0),
        "method": 1,
        "duplicates": 2,
        "partial": 1,
    }


ERRORS = {"table": 3, "index": 4}
"""Percent of the size that is left, as docs/monitoring.md says."""


@pytest.mark.every_major
@pytest.mark.parametrize("tables", HALVES, ids=["first", "second"])
def test_the_size_of_many_shapes_is_known_before_they_are_written_anew(
    deployed: Server, quiet: str, tables: list[str]
) -> None:
    deployed.psql("; ".join(statements(tables)), quiet)
    _look(deployed, quiet)
    free = {}
    for kind in ERRORS:
        free[kind] = values_of(measure(deployed, f"{kind}_bloat", quiet), f"{kind}_bloat_percent", kind)
    assert set(free["table"]) == set(tables)
    assert set(free["index"]) == {name for name, on in INDEXES.items() if on.partition(" ")[0] in tables}
    before = _sizes(deployed, quiet, [*free["table"], *free["index"]])
    deployed.value("VACUUM FULL", quiet)  # which builds all indexes anew
    after = _sizes(deployed, quiet, list(before))
    wrong = {}
    for kind, found in free.items():
        for name, percent in found.items():
            error = 100 * (before[name] * (1 - percent / 100) / after[name] - 1)
            wrong.update({name: round(error, 2)} if abs(error) > ERRORS[kind] else {})
    assert wrong == {}


UNKNOWN = """
CREATE TABLE unseen AS SELECT generate_series(1, 60000) AS a;
CREATE TABLE vacuumed AS SELECT generate_series(1, 60000) AS a;
CREATE TABLE changed AS SELECT generate_series(1, 60000) AS a;
CREATE TABLE blind AS SELECT g AS a, g AS b FROM generate_series(1, 60000) AS g;
ALTER TABLE blind ALTER b SET STATISTICS 0;
CREATE TABLE few AS SELECT generate_series(1, 100) AS a;
CREATE TABLE stretched (a text);
ALTER TABLE stretched ALTER a SET STORAGE EXTERNAL;
INSERT INTO stretched SELECT repeat('x', 9000) FROM generate_series(1, 200);
CREATE INDEX ON changed (a);
CREATE INDEX ON blind (b);
CREATE INDEX ON vacuumed (a);
CREATE TABLE keyed AS SELECT repeat(md5(g::text), 10) AS a FROM generate_series(1, 20000) AS g;
CREATE INDEX ON keyed (a);
"""


def test_what_cannot_be_estimated_is_counted_by_why(deployed: Server, quiet: str) -> None:
    deployed.psql(UNKNOWN, quiet)
    for statement in ("ANALYZE changed", "ANALYZE blind", "ANALYZE keyed", "VACUUM vacuumed", "VACUUM stretched"):
        deployed.value(statement, quiet)
    deployed.psql("CREATE INDEX ON keyed (md5(a), md5(a || 'x'))", quiet)
    deployed.psql("UPDATE changed SET a = a + 1 WHERE a % 4 = 0", quiet)
    counted(deployed, quiet, "n_mod_since_analyze = 15000 FROM pg_stat_user_tables WHERE relname = 'changed'")
    counted(deployed, quiet, "n_mod_since_analyze = 0 FROM pg_stat_user_tables WHERE relname = 'keyed'")
    tables = measure(deployed, "table_bloat", quiet)
    reasons = {"never_analyzed": 2, "stale": 1, "no_statistics": 1, "toast": 1, "not_counted": 0, "beyond": 0}
    assert values_of(tables, "bloat_unknown_tables", "reason") == reasons
    assert set(values_of(tables, "table_bloat_mb", "table")) == {"keyed"}
    indexes = values_of(measure(deployed, "index_bloat", quiet), "bloat_unknown_indexes", "reason")
    assert {reason: count for reason, count in indexes.items() if count} == {
        "stale": 1,
        "never_analyzed": 1,
        "no_statistics": 2,
        "wide_keys": 1,
    }
    # As after a crash: nobody knows what has changed since.
    deployed.value("SELECT pg_stat_reset()", quiet)
    counted(deployed, quiet, "bool_and(last_analyze IS NULL) FROM pg_stat_user_tables")
    tables = measure(deployed, "table_bloat", quiet)
    assert values_of(tables, "bloat_unknown_tables", "reason")["not_counted"] == 3
    assert values_of(tables, "table_bloat_mb", "table") == {}


def test_the_worst_are_named_and_all_others_are_one_series(deployed: Server, quiet: str) -> None:
    deployed.psql(
        """
        DO $$BEGIN FOR n IN 1..22 LOOP
            EXECUTE format('CREATE TABLE t%s AS SELECT generate_series(1, 60000) AS a', n);
            EXECUTE format('CREATE INDEX i%s ON t%s (a)', n, n);
            EXECUTE format('DELETE FROM t%s WHERE a %% 10 > %s', n, CASE WHEN n IN (3, 8) THEN 8 ELSE 4 END);
        END LOOP; END$$;
        """,
        quiet,
    )
    _look(deployed, quiet)
    for kind in ("table", "index"):
        rows = measure(deployed, f"{kind}_bloat", quiet)
        named = values_of(rows, f"{kind}_bloat_percent", kind)
        rest = named.pop(None)
        assert set(named) == {f"{kind[0]}{n}" for n in range(1, 23) if n not in (3, 8)}
        assert named == pytest.approx(dict.fromkeys(named, 50), abs=2)
        assert rest == pytest.approx(10, abs=3)
        remainder = row_of(rows, part="remainder")
        size = sum(_sizes(deployed, quiet, [f"{kind[0]}{n}" for n in (3, 8)]).values())
        assert remainder[f"{kind}_bloat_mb"] == pytest.approx(rest / 100 * size / 1048576)
