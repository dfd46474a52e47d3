# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database on every major version: deployed, kept, mended, and written to."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deploying import SOURCES, deploy, target, withdraw
from servers import Server
from waiting import PATIENCE, until

from pgops import sources
from pgops.errors import Conflict, InvalidInput, PgOpsError
from pgops.facts import gathering
from pgops.opsdb import install
from pgops.opsdb.fingerprints import CATALOGUE
from pgops.server import rows
from pgops.server.session import Session

STATE = """
SELECT md5(string_agg(line, E'\n' ORDER BY line)) FROM (
    SELECT format('role %s %s %s', rolname, rolcanlogin, rolconfig) FROM pg_roles
    UNION ALL SELECT format('database %s %s %s', datname, datdba, datacl) FROM pg_database
) AS found (line)
"""
FACTS = {
    "gather_subset": ["all"],
    "database": "pgops",
    "database_sizes": False,
    "prefix": "/",
    "max_bytes": 0,
}
OWN_COLLECTOR = """-- collector: mine
-- metric: my_metric unit=count
--   A metric of mine.
SELECT 42 AS my_metric
"""


@pytest.fixture(name="bare")
def _bare(undeployed: Server) -> Server:
    return undeployed


@pytest.mark.every_major
def test_prediction_run_and_second_run(bare: Server) -> None:
    before = bare.value(STATE)
    predicted = deploy(bare, check=True)
    assert bare.value(STATE) == before
    done = deploy(bare)
    assert done["changed"]
    assert done == predicted
    again = deploy(bare)
    assert (again["changed"], again["changes"]) == (False, [])


@pytest.mark.every_major
def test_removal_with_and_without_purge(bare: Server) -> None:
    before = bare.value(STATE)
    deploy(bare)
    predicted = deploy(bare, check=True, state="absent")
    assert deploy(bare, state="absent") == predicted
    assert bare.value("SELECT count(*) FROM pgops.metric", "pgops")
    assert bare.value("SELECT count(*) FROM pg_roles WHERE rolname = 'pgops'") == 0
    assert not deploy(bare, state="absent")["changed"]
    deploy(bare)
    assert not deploy(bare)["changed"]
    deploy(bare, state="absent", purge=True)
    assert bare.value(STATE) == before


def test_removal_names_the_ops_database_where_another_is_given(bare: Server) -> None:
    deploy(bare)
    for check in (True, False):
        with pytest.raises(Conflict, match="pgops_owner in database pgops"):
            deploy(bare, check=check, state="absent", database="other")
    assert not deploy(bare)["changed"]


def test_removal_takes_what_somebody_granted_in_other_databases(bare: Server, database: str) -> None:
    deploy(bare)
    bare.value("CREATE TABLE public.theirs (); GRANT SELECT ON public.theirs TO pgops", database)
    assert deploy(bare, check=True, state="absent") == deploy(bare, state="absent")
    assert bare.value("SELECT relacl::text FROM pg_class WHERE relname = 'theirs'", database)
    deploy(bare)
    bare.value("CREATE TABLE public.its (); ALTER TABLE public.its OWNER TO pgops", database)
    with pytest.raises(Conflict, match=f"pgops in database {database}"):
        deploy(bare, state="absent")
    assert not deploy(bare)["changed"]


@pytest.mark.parametrize(
    "edit",
    [
        "CREATE OR REPLACE FUNCTION pgops.server_epoch() RETURNS text LANGUAGE sql AS 'SELECT NULL::text'",
        "GRANT EXECUTE ON FUNCTION pgops.create_partition(text, date) TO PUBLIC",
        "DROP VIEW pgops.system_metrics CASCADE",
        "REVOKE USAGE ON SCHEMA pgops FROM pgops",
        "GRANT ALL ON SCHEMA pgops TO PUBLIC",
        "GRANT CONNECT ON DATABASE pgops TO PUBLIC",
        "REVOKE CONNECT ON DATABASE pgops FROM pgops",
        "ALTER ROLE pgops SUPERUSER",
        "GRANT pg_read_all_data TO pgops",
        "ALTER ROLE pgops RESET ALL",
        "UPDATE pgops.metric SET unit = 'furlong' WHERE metric_name = 'database_size_mb'",
        "DELETE FROM pgops.collector",
        "DROP FUNCTION pgops.collector_locks()",
        "ALTER FUNCTION pgops.create_partition(text, date) OWNER TO CURRENT_USER",
        "ALTER VIEW pgops.system_metrics OWNER TO CURRENT_USER",
        (
            "GRANT SELECT ON pgops.system_metrics TO pgops WITH GRANT OPTION; SET ROLE pgops; "
            "GRANT SELECT ON pgops.system_metrics TO pg_monitor"
        ),
    ],
)
def test_what_somebody_changed_by_hand_is_put_back(deployed: Server, edit: str) -> None:
    deployed.value(edit, "pgops")
    predicted = deploy(deployed, check=True)
    assert predicted["changed"], edit
    assert deploy(deployed) == predicted
    assert not deploy(deployed)["changed"]


def test_a_rehearsal_executes_all_and_keeps_nothing(deployed: Server) -> None:
    deployed.value("DROP FUNCTION pgops.collector_locks()", "pgops")
    assert deploy(deployed, check=True, rehearse=True)["changes"] == ["create function pgops.collector_locks()"]
    assert deployed.value("SELECT to_regproc('pgops.collector_locks')", "pgops") is None


def test_a_table_changed_by_hand_is_told_and_left(deployed: Server) -> None:
    deployed.value("ALTER TABLE pgops.round ADD COLUMN mine integer", "pgops")
    assert deploy(deployed, retention_days=31)["changed"]
    (warning,) = [text for text in deploy(deployed, retention_days=31)["warnings"] if "by hand" in text]
    assert "pgops.round" in warning


def test_an_aggregate_of_somebodys_is_told_and_left(deployed: Server) -> None:
    deployed.value("CREATE AGGREGATE pgops.mine (integer) (SFUNC = int4pl, STYPE = integer)", "pgops")
    made = deploy(deployed)
    assert not made["changed"]
    assert "pgops.mine" in made["warnings"][0]


def older(number: int) -> dict[str, str]:
    """The files of the collection as of a migration: without later ones, and what needs their tables or columns."""
    files = SOURCES
    later = [path for path in files if "/migrations/" in path and int(os.path.basename(path)[:4]) > number]
    tables = [table for path in later for table in re.findall(r"CREATE (?:TABLE|TYPE) (pgops\.\w+)", files[path])]
    needs = {path for path, text in files.items() if any(re.search(rf"{table}\b", text) for table in tables)}
    for _depth in range(5):
        missing = "|".join(os.path.basename(path)[:-4] for path in needs if "/objects/" in path) or "none"
        needs |= {path for path, text in files.items() if re.search(rf"^-- requires:.*\b({missing})\b", text, re.M)}
    columns = [column for path in later for column in re.findall(r"ADD COLUMN (\w+)", files[path])]
    unknown = re.compile(rf",\s+\w+\.({'|'.join(columns) or 'none'})\b")
    left = {path: unknown.sub("", text) for path, text in files.items() if path not in {*later, *needs}}
    return {path: without_identity(text) for path, text in left.items()} if "identity" in columns else left


def without_identity(text: str) -> str:
    """An object as it was before migration 7: no series had an identity."""
    text = re.sub(r"    -- The history of a counter from before.*?;\n\n", "", text, flags=re.DOTALL)
    for gone in (
        *(r", identity(?=\)\s+SELECT DISTINCT)", r", coalesce\(s\.identity, ''\)"),
        *(r"\s+AND s\.identity = coalesce\([^)]*\)", r",\s+'identity', nullif\(s\.identity, ''\)"),
    ):
        text = re.sub(gone, "", text)
    return re.sub(r"\bs\.identity\b(?!\s+FROM)", "''::text", text)


def former_rows(number: int) -> Callable[..., Any]:
    """How rows were written at that number, without the columns that came later."""
    files = sources.below(SOURCES, "sql/migrations")
    later = [text for path, text in files.items() if int(os.path.basename(path)[:4]) > number]
    columns = {column for text in later for column in re.findall(r"ADD COLUMN (\w+)", text)}
    write = rows.upsert

    def upsert(table: str, key: Sequence[str], row: Mapping[str, Any]) -> Any:
        return write(table, key, {name: value for name, value in row.items() if name not in columns})

    return upsert


def record(inside: Session, tables: bool) -> None:
    """What was recorded of an installation before migration 4."""
    assert tables
    inside.execute(
        "INSERT INTO pgops.fingerprint (object, sha256, server_major) "
        f"SELECT found.object, found.sha256, %s FROM ({CATALOGUE}) AS found",
        [inside.major],
    )


@pytest.mark.parametrize("number", range(1, len(sources.below(SOURCES, "sql/migrations"))))
def test_every_older_schema_becomes_what_a_new_one_is(
    bare: Server, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints = "SELECT string_agg(object || sha256, ' ' ORDER BY object) FROM pgops.fingerprint"
    with monkeypatch.context() as then:
        then.setattr(install, "_record", record)
        then.setattr(rows, "upsert", former_rows(number))
        deploy(bare, sources=older(number))
    assert bare.value("SELECT max(number) FROM pgops.migration", "pgops") == number
    bare.value("SELECT pgops.collect_database_metrics()", "pgops")
    samples = bare.value("SELECT count(*) FROM pgops.system_metrics", "pgops")
    assert deploy(bare, check=True) == deploy(bare)
    upgraded = bare.value(fingerprints, "pgops")
    assert bare.value("SELECT count(*) FROM pgops.system_metrics", "pgops") == samples > 0
    withdraw(bare)
    deploy(bare)
    assert upgraded == bare.value(fingerprints, "pgops")


@pytest.mark.every_major
def test_after_an_upgrade_of_the_server_its_objects_are_recorded_anew(deployed: Server) -> None:
    deployed.value("UPDATE pgops.fingerprint SET sha256 = 'another', server_major = server_major - 1", "pgops")
    assert deploy(deployed)["changes"] == ["update fingerprints of the objects"]
    assert not deploy(deployed)["changed"]


def test_somebodys_view_is_never_dropped(deployed: Server) -> None:
    deployed.value("CREATE VIEW public.mine AS SELECT metric_name FROM pgops.system_metrics", "pgops")
    deployed.value("DELETE FROM pgops.object_source WHERE object LIKE '%system_metrics'", "pgops")
    assert deploy(deployed)["changed"]
    assert deployed.value("SELECT count(*) FROM public.mine", "pgops") == 0


def test_collectors_and_thresholds_of_ones_own_come_and_go(deployed: Server) -> None:
    wanted: dict[str, Any] = {
        "collectors": [OWN_COLLECTOR],
        "thresholds": {"database_size_mb": {"warning": 5, "critical": 6.5}, "collector_errors": {"warning": 1}},
    }
    assert deploy(deployed, check=True, **wanted) == deploy(deployed, **wanted)
    assert not deploy(deployed, **wanted)["changed"]
    deployed.value("SELECT pgops.collect_database_metrics()", "pgops")
    select = "SELECT metric_value FROM pgops.system_metrics WHERE metric_name = 'my_metric'"
    assert deployed.value(select, "pgops") == 42
    select = "SELECT critical_threshold FROM pgops.system_metrics WHERE metric_name = 'database_size_mb' LIMIT 1"
    assert deployed.value(select, "pgops") == 6.5
    assert {
        "remove function pgops.collector_mine()",
        "remove collector mine",
        "remove threshold collector_errors",
        "remove threshold database_size_mb",
    } == set(deploy(deployed)["changes"])
    assert deployed.value(select, "pgops") == 5000
    for thresholds, words in (
        ({"no_such_metric": {"warning": 1}}, "no_such_metric"),
        ({"database_size": {"warning": 1}}, "did you mean database_size_mb or"),
        ({"database_size_mb": {"warning": 9000}}, "beyond critical 5000"),
    ):
        with pytest.raises(InvalidInput, match=words):
            deploy(deployed, check=True, thresholds=thresholds)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("INSERT INTO pgops.migration VALUES (900, 'x', 'x', '9')", "this collection only has"),
        ("UPDATE pgops.migration SET sha256 = 'x' WHERE number = 1", "differs from the applied one"),
    ],
)
def test_a_ledger_that_does_not_fit_is_refused(deployed: Server, edit: str, words: str) -> None:
    deployed.value(edit, "pgops")
    with pytest.raises(Conflict, match=words):
        deploy(deployed)


def test_two_runs_at_the_same_time_both_end_well(bare: Server) -> None:
    forked = multiprocessing.get_context("fork")  # no threads: a login changes the user of a whole process
    results = forked.SimpleQueue()

    def run() -> None:
        try:
            results.put(deploy(bare)["changed"])
        except PgOpsError as error:
            results.put(str(error))

    both = [forked.Process(target=run) for _run in range(2)]
    for one in both:
        one.start()
    found = [results.get() for _run in both]
    for one in both:
        one.join()
    assert sorted(found, key=str) == [False, True]


@pytest.mark.parametrize("name", ['we"ird ops', "naïve %s {0}"])
def test_any_name_will_do_for_the_database(bare: Server, name: str) -> None:
    try:
        deploy(bare, database=name)
        assert not deploy(bare, database=name)["changed"]
        assert bare.value("SELECT pgops.collect_database_metrics()", name)
        deploy(bare, database=name, state="absent", purge=True)
    finally:
        bare.value('DROP DATABASE IF EXISTS "{}" WITH (FORCE)'.format(name.replace('"', '""')))
        withdraw(bare)


# --- the store


def test_an_insert_records_a_sample(deployed: Server) -> None:
    deployed.value(
        "INSERT INTO pgops.system_metrics (metric_name, metric_category, metric_value, metric_unit, database_name, "
        "additional_info) VALUES ('mine', 'capacity', 1.5, 'MB', 'x', '{\"a\": 1}'), ('mine', 'capacity', 2.5, 'MB', "
        "'x', '{\"a\": 1}')",
        "pgops",
    )
    select = (
        "SELECT array_agg(metric_value ORDER BY collected_at) FROM pgops.system_metrics WHERE metric_name = 'mine'"
    )
    assert deployed.value(select, "pgops") == [1.5, 2.5]


def test_samples_of_the_same_instant_are_all_kept(deployed: Server) -> None:
    insert = b"INSERT INTO pgops.system_metrics (metric_name, metric_value, collected_at) VALUES ('same', 1, %s)"
    moment = deployed.value("SELECT date_trunc('minute', now())")
    with deployed.connect("pgops") as first, ThreadPoolExecutor() as threads:
        with first.transaction():
            first.execute(insert, [moment])
            second = threads.submit(deployed.value, insert.decode().replace("%s", f"'{moment}'"), "pgops")
            until(lambda: deployed.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), "waiting", 1)
        second.result(PATIENCE)
    assert deployed.value("SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'same'", "pgops") == 2


def test_a_collection_counts_what_it_stores(deployed: Server) -> None:
    stored = deployed.value("SELECT pgops.collect_database_metrics()", "pgops")
    assert stored == deployed.value("SELECT count(*) FROM pgops.system_metrics", "pgops")
    names = deployed.value("SELECT array_agg(DISTINCT metric_name) FROM pgops.system_metrics", "pgops")
    six = {"active_connections", "cache_hit_ratio", "database_size_mb", "deadlocks", "table_size_mb", "waiting_locks"}
    assert six <= set(names)  # type: ignore[call-overload]


def test_a_collector_that_fails_or_waits_loses_its_own_samples_alone(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.held (); GRANT USAGE ON SCHEMA public TO pgops", "pgops")
    deployed.value("GRANT SELECT ON public.held TO pgops", "pgops")
    header = "-- collector: {0}\n-- metric: {0}\n"
    broken = f"{header.format('broken')}SELECT 1 / (count(*) - count(*)) AS broken FROM pg_class"
    held = f"{header.format('held')}SELECT count(*) AS held FROM public.held"
    deploy(deployed, collectors=[broken, held])
    errors = """SELECT string_agg(additional_info ->> 'collector', ' ') FROM pgops.system_metrics
                WHERE metric_name = 'collector_errors' AND metric_value = {}"""
    with deployed.connect("pgops") as holder:
        holder.execute("BEGIN; LOCK TABLE public.held")
        # Who waited for the lock would be ended by the time limit, which is an error.
        deployed.value("ALTER DATABASE pgops SET statement_timeout = '60 s'")
        stored = deployed.value("SELECT pgops.collect_database_metrics()", "pgops")
    assert stored == deployed.value("SELECT count(*) FROM pgops.system_metrics", "pgops")
    assert set(str(deployed.value(errors.format(1), "pgops")).split()) == {"broken", "held"}
    assert {"database_size", "locks"} <= set(str(deployed.value(errors.format(0), "pgops")).split())


def test_series_that_come_and_go_share_a_shape(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.item (name text, n int)", "pgops")
    deployed.value("GRANT USAGE ON SCHEMA public TO pgops; GRANT SELECT ON public.item TO pgops", "pgops")
    query = "SELECT i.name AS item, i.n AS item_count, '' AS schema FROM public.item AS i"
    deploy(deployed, collectors=[f"-- collector: items\n-- metric: item_count\n{query}"])
    shapes = """SELECT count(DISTINCT p.shape_id) FROM pgops.shape_series AS p JOIN pgops.series USING (series_id)
                JOIN pgops.metric USING (metric_id) WHERE metric_name = '{}'"""
    given = []
    for at, (names, expected) in enumerate((("ab", 1), ("a", 1), ("b", 1), ("cb", 2), ("abc", 2), ("ca", 2))):
        deployed.value("TRUNCATE public.item", "pgops")
        for name in names:
            deployed.value(f"INSERT INTO public.item VALUES ('{name}', {at})", "pgops")
        given += [f"{name}{at}" for name in names]
        deployed.value("SELECT pgops.collect_database_metrics()", "pgops")
        assert deployed.value(shapes.format("item_count"), "pgops") == expected, names
    stored = """SELECT array_agg((additional_info ->> 'item') || metric_value) FROM pgops.system_metrics
                WHERE metric_name = 'item_count'"""
    assert sorted(deployed.value(stored, "pgops")) == sorted(given)  # type: ignore[call-overload]
    assert deployed.value(shapes.format("collector_errors"), "pgops") == 1
    # None of those before, and too many of them to keep their places.
    deployed.value(
        "TRUNCATE public.item; INSERT INTO public.item SELECT 'z' || g, 1 FROM generate_series(1, 60) g", "pgops"
    )
    deployed.value("SELECT pgops.collect_database_metrics()", "pgops")
    deployed.value("DELETE FROM public.item WHERE name <> 'z7'", "pgops")
    deployed.value("SELECT pgops.collect_database_metrics()", "pgops")
    assert deployed.value(shapes.format("item_count"), "pgops") == 4
    assert deployed.value(f"{stored} AND additional_info ->> 'item' = 'z7'", "pgops") == ["z71", "z71"]


def test_a_round_is_stored_once_and_only_if_it_fits(deployed: Server) -> None:
    node = deployed.value("SELECT pgops.primary_node_id()", "pgops")
    define = """SELECT pgops.define_shape({}, '\\x01', '[{{"metric_name": "m", "category": "capacity", "unit": "x",
        "kind": "gauge"}}]', '[{{"metric": "m"}}, {{"metric": "m", "database": "d"}}]')"""
    deployed.value(define.format(node), "pgops")
    call = "SELECT pgops.store_round({}, '\\x{}', 'o', {}, '{{{}}}')"
    now = "timestamptz '2026-01-02 03:04:05+00'"
    assert deployed.value(call.format(node, "01", now, "1,2"), "pgops") is True
    assert deployed.value(call.format(node, "01", now, "1,2"), "pgops") is True
    assert deployed.value(call.format(node, "02", now, "1,2"), "pgops") is False
    assert deployed.value("SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'm'", "pgops") == 2
    for wrong in (call.format(node, "01", now, "1"), call.format(node, "01", "now() + interval '2 days'", "1,2")):
        with pytest.raises(Exception, match=r"does not fit|in the future"):
            deployed.value(wrong, "pgops")


def test_days_are_made_ahead_and_dropped_after_the_retention(deployed: Server) -> None:
    assert deployed.value("SELECT pgops.maintain_partitions(3)", "pgops") >= 2 * 4 + 1  # and a month, or two
    assert deployed.value("SELECT pgops.maintain_partitions(3)", "pgops") == 0
    insert = (
        "INSERT INTO pgops.system_metrics (metric_name, metric_value, collected_at) "
        "VALUES ('old', 1, now() - interval '{} days')"
    )
    for days in (29, 38, 40):  # what is yet to be rolled up stays for a week more
        deployed.value(insert.format(days), "pgops")
    assert deployed.value("SELECT count(*) FROM pgops.expired_partitions()", "pgops") == 2
    dropped = "SELECT count(*) FILTER (WHERE pgops.drop_partition(partition_name)) FROM pgops.expired_partitions()"
    assert deployed.value(dropped, "pgops") == 2
    today = "SELECT pgops.drop_partition('round_0_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))"
    assert deployed.value(today, "pgops") is False
    assert deployed.value("SELECT count(*) FROM pgops.system_metrics", "pgops") == 1


def test_a_database_that_somebody_prepared_runs_nothing_of_theirs(bare: Server) -> None:
    bare.value("CREATE ROLE mallory LOGIN CREATEDB")
    bare.value("CREATE DATABASE pgops OWNER mallory")
    bare.value("CREATE TABLE caught (what text)", "pgops")
    bare.value("GRANT ALL ON caught TO PUBLIC", "pgops")
    with bare.connect("pgops") as mallory:
        mallory.execute("SET SESSION AUTHORIZATION mallory")
        mallory.execute("CREATE SCHEMA pgops")
        mallory.execute(
            "CREATE FUNCTION pgops.trap() RETURNS integer LANGUAGE plpgsql AS "
            "$$BEGIN INSERT INTO public.caught VALUES (current_user); RETURN 1; END$$"
        )
        mallory.execute("CREATE VIEW pgops.migration AS SELECT pgops.trap() AS number, 'a' AS name, 'b' AS sha256")
        assert mallory.execute("SELECT count(number) FROM pgops.migration").rowcount == 1
        mallory.execute("DELETE FROM public.caught")
    try:
        for check in (True, False):
            with pytest.raises(Conflict, match="belongs to mallory"):
                deploy(bare, check=check)
            deploy(bare, check=check, state="absent", purge=True)
        bare.value("CREATE VIEW pgops.fingerprint AS SELECT pgops.trap()::text AS object, 'a' AS sha256", "pgops")
        (found,) = gathering.gather(target(bare), FACTS)["ansible_facts"]["pg_ops"]["instances"]
        assert (found["schema"]["installed"], found["monitoring"]["nodes"]) == (False, [])
        assert bare.value("SELECT count(*) FROM caught", "pgops") == 0
    finally:
        withdraw(bare)
        bare.value("DROP ROLE mallory")


def test_rights_that_somebody_gave_are_taken_back(deployed: Server) -> None:
    deployed.value("CREATE ROLE mallory")
    try:
        function, view = "pgops.create_partition(text, date)", "pgops.system_metrics"
        deployed.value(f"GRANT EXECUTE ON FUNCTION {function} TO mallory, PUBLIC", "pgops")
        deployed.value(f"GRANT ALL ON {view} TO mallory", "pgops")
        assert deploy(deployed, check=True) == deploy(deployed)
        assert not deploy(deployed)["changed"]
        for role in ("mallory", "public"):
            may = f"SELECT has_function_privilege('{role}', '{function}', 'EXECUTE')"
            assert not deployed.value(may, "pgops")
        assert not deployed.value(f"SELECT has_table_privilege('mallory', '{view}', 'SELECT')", "pgops")
        assert deployed.value(f"SELECT has_table_privilege('pgops_reader', '{view}', 'SELECT')", "pgops")
    finally:
        deployed.value("DROP OWNED BY mallory", "pgops")
        deployed.value("DROP ROLE mallory")


def test_a_function_that_somebody_added_is_told_and_left(deployed: Server) -> None:
    deployed.value("CREATE FUNCTION pgops.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'", "pgops")
    (warning,) = deploy(deployed)["warnings"]
    assert "function pgops.mine()" in warning


@pytest.mark.every_major
def test_memberships_of_any_grantor_are_taken_back(deployed: Server) -> None:
    deployed.value("CREATE ROLE chief CREATEROLE")
    try:
        deployed.value("GRANT pg_read_all_data, pg_monitor TO chief WITH ADMIN OPTION")
        with deployed.connect() as session:
            session.execute("SET ROLE chief")
            session.execute("GRANT pg_read_all_data, pg_monitor TO pgops")
        assert deploy(deployed)["changes"] == ["update role pgops"]
        assert not deploy(deployed)["changed"]
        assert not deployed.value("SELECT pg_has_role('pgops', 'pg_read_all_data', 'MEMBER')")
    finally:
        deployed.value("DROP OWNED BY chief CASCADE")
        deployed.value("DROP ROLE chief")


def test_a_view_that_was_dropped_takes_inserts_again(deployed: Server) -> None:
    insert = "INSERT INTO pgops.system_metrics (metric_name, metric_value) VALUES ('mine', 1)"
    for harm in ("DROP VIEW pgops.system_metrics", "DROP TRIGGER record_sample ON pgops.system_metrics"):
        deployed.value(harm, "pgops")
        assert deploy(deployed)["changed"]
        deployed.value(insert, "pgops")


def test_access_rules_that_the_server_never_read_are_loaded(deployed: Server) -> None:
    path = Path(str(deployed.value("SHOW hba_file")))
    unread = ["update access rules of the server"]
    until(lambda: not deploy(deployed)["changed"], "settled")
    os.utime(path)
    assert deploy(deployed, check=True)["changes"] == unread
    assert deploy(deployed)["changes"] == unread
    until(lambda: not deploy(deployed, check=True)["changed"], "reloaded")
    future = time.time() + 10**6
    os.utime(path, (future, future))
    assert not deploy(deployed)["changed"]


def test_what_an_interrupted_drop_left_is_told_and_can_be_purged(bare: Server) -> None:
    deploy(bare)
    bare.value("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'pgops'")
    with pytest.raises(Conflict, match="DROP DATABASE of pgops was interrupted"):
        deploy(bare)
    assert "remove database pgops" in deploy(bare, state="absent", purge=True)["changes"]
    assert bare.value("SELECT count(*) FROM pg_database WHERE datname = 'pgops'") == 0
