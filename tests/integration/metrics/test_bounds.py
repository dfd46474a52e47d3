# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pgops_max_size_mb bounds all that users can make grow, and nobody's growth costs another one what is his."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import pytest
from deploying import collect, configured, deploy
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server

from pgops.fairness import level
from pgops.metrics import collectors, partitions

LETTERS = st.text("aä€\N{GRINNING FACE}", max_size=30)


def test_a_text_is_cut_by_bytes_between_two_characters(deployed: Server) -> None:
    with deployed.connect("pgops") as session:

        @settings(max_examples=200, deadline=None)
        @given(LETTERS, st.integers(0, 50))
        def examples(text: str, size: int) -> None:
            (cut,) = session.execute("SELECT pgops.cut_text(%s, %s)", [text, size]).fetchone() or ("",)
            assert cut == text.encode()[:size].decode(errors="ignore")

        examples()


def test_shares_in_sql_are_those_of_the_agent(deployed: Server) -> None:
    with deployed.connect("pgops") as session:

        @settings(max_examples=200, deadline=None)
        @given(st.lists(st.integers(0, 100), max_size=8), st.integers(0, 500))
        def examples(wanted: list[int], room: int) -> None:
            (most,) = session.execute("SELECT pgops.fair_level(%s::bigint[], %s)", [wanted, room]).fetchone() or (0,)
            expected = level(wanted, room)
            assert most == (None if expected == inf else int(expected))

        examples()


EXECUTIONS = """
INSERT INTO pgops.slow_query (node_id, source, state, executed_at, first_seen_at, last_seen_at, query, toplevel,
    execution_time_ms, time_is_exact, executions, database_name, user_name)
SELECT 1, 'sessions', 'ended', s.at, s.at, s.at, s.text, true, 1, true, 1, 'shop', '{}'
FROM generate_series(1, {}) AS g
CROSS JOIN LATERAL (
    SELECT now() - g * interval '1 minute' AS at,
        (SELECT string_agg(md5(g::text || h), '') FROM generate_series(1, 150) AS h) AS text
) AS s
"""
TEXTS = """
WITH made AS (
    INSERT INTO pgops.query_text (cluster, queryid, query, normalised, last_used_on)
    SELECT 'shop', g, (SELECT string_agg(md5(g::text || h), '') FROM generate_series(1, 150) AS h), true, current_date
    FROM generate_series(1, 40) AS g
    RETURNING cluster, queryid
)

INSERT INTO pgops.statement (cluster, database_name, user_name, queryid, toplevel, last_used_on)
SELECT cluster, 'shop', 'noisy', queryid, true, current_date FROM made
"""


@pytest.mark.every_major
def test_texts_that_are_too_many_go_and_those_of_others_stay(deployed: Server, tmp_path: Path) -> None:
    assert collect(deployed, tmp_path)["errors"] == []
    configuration, _layout = configured(deployed, tmp_path)
    deployed.value(TEXTS, "pgops")
    deployed.value(EXECUTIONS.format("noisy", 40), "pgops")
    deployed.value(EXECUTIONS.format("quiet", 5), "pgops")
    assert partitions.maintain(configuration)["errors"] == []
    deploy(deployed, max_size_mb=1)
    outcome = partitions.maintain(configuration)
    (error,) = [one for one in outcome["errors"] if "pgops_max_size_mb: " in one and "texts" in one]
    assert error.startswith(f"deleted early to keep to pgops_max_size_mb: {outcome['forget_excess_texts']} texts")
    by_user = "SELECT count(*) FROM pgops.slow_query WHERE user_name = '{}'"
    assert deployed.value(by_user.format("quiet"), "pgops") == 5
    assert 80 > outcome["forget_excess_texts"] > 40
    assert [one for one in partitions.maintain(configuration)["errors"] if "texts" in one] == []


SHAPE = "SELECT pgops.define_shape(1, sha256(%s::bytea), '[]', %s::jsonb)"


def series(database: str, names: range) -> str:
    return json.dumps([{"metric": "database_size_mb", "database": database, "table": f"t{name}"} for name in names])


@pytest.mark.every_major
def test_series_that_are_too_many_go_and_those_of_other_databases_stay(deployed: Server, tmp_path: Path) -> None:
    assert collect(deployed, tmp_path)["errors"] == []
    configuration, _layout = configured(deployed, tmp_path)
    with deployed.connect("pgops") as session:
        session.execute(SHAPE, [b"calm", series("calm", range(100))])
        for turn in range(20):  # a table is renamed again and again
            session.execute(SHAPE, [b"churn%d" % turn, series("churn", range(turn, turn + 150))])
    assert partitions.maintain(configuration)["errors"] == []
    deploy(deployed, max_size_mb=1)
    errors = partitions.maintain(configuration)["errors"]
    assert any(
        one.startswith("deleted early to keep to pgops_max_size_mb: ") and one.endswith(" series") for one in errors
    )
    counts = "SELECT count(*) FROM pgops.series WHERE database_name = '{}'"
    assert deployed.value(counts.format("calm"), "pgops") == 100
    assert int(str(deployed.value(counts.format("churn"), "pgops"))) < 170
    size = "SELECT 100 * (SELECT sum(size) FROM pgops.shape) + 300 * (SELECT count(*) FROM pgops.series)"
    assert int(str(deployed.value(size, "pgops"))) <= 1048576 / 4
    # What is still measured is defined anew.
    assert collect(deployed, tmp_path)["errors"] == []


def test_what_is_stored_besides_samples_counts(deployed: Server, tmp_path: Path) -> None:
    insert = (
        "INSERT INTO pgops.round SELECT s, 1, current_date - 1 + interval '1 second' * s, 0, "
        "array_fill(random(), ARRAY[200]) FROM generate_series(1, 1000) AS s"
    )
    assert collect(deployed, tmp_path)["errors"] == []
    deployed.value("SELECT pgops.create_partition('round_0', current_date - 1)", "pgops")
    deployed.value(insert, "pgops")  # two megabytes
    configuration, _layout = configured(deployed, tmp_path)
    deploy(deployed, max_size_mb=60)
    assert partitions.maintain(configuration)["errors"] == []
    blob = "INSERT INTO pgops.setting SELECT g, string_agg(md5(g::text || h), '') FROM {} AS g, {} AS h GROUP BY g"
    deployed.value(blob.format("generate_series(1, 60)", "generate_series(1, 32768)"), "pgops")
    assert len(partitions.maintain(configuration)["dropped"]) == 1


def test_a_collector_of_endless_rows_is_cut(deployed: Server, tmp_path: Path) -> None:
    header = "-- collector: inside\n-- scope: database\n-- databases: postgres\n-- metric: inside\n"
    rows = collectors.parse(
        f"{header}SELECT g::text AS customer, g AS inside FROM generate_series(1, 20000) AS g", "x"
    )
    outcome = collect(deployed, tmp_path, found=[rows])
    assert outcome["errors"] == ["inside in postgres: only the first 10000 rows are stored"]
    assert deployed.value("SELECT count(*) FROM pgops.series WHERE other ? 'customer'", "pgops") == 10_000
