# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The newest values, and their text for Prometheus."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import artifact
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import HostFailed
from pgops.metrics import collectors, latest
from pgops.metrics.collectors import OWN, Metric
from pgops.metrics.exposition import exported_name, exported_value, exposition, label_name, number
from pgops.metrics.latest import Run

SHIPPED = [
    collectors.parse(path.read_text(), path.name)
    for path in sorted((artifact.LIBRARY / "sql" / "collectors").glob("*.sql"))
]
METRICS = [metric for found in [*SHIPPED, OWN] for metric in found.metrics]
NOW = 1_700_000_000.0
UNITS = ["us", "ms", "s", "min", "h", "d", "bytes", "B", "kB", "MB", "GB", "TB", "%", "count", "tps"]
words = st.sampled_from(
    ["wal", "last", "gauge", "total", "count", "bucket", "mb", "ms", "seconds", "percent", "ratio", "timestamp", "x"]
)
metrics = st.builds(
    Metric,
    name=st.lists(words, min_size=1, max_size=4).map("_".join),
    unit=st.sampled_from(UNITS),
    kind=st.sampled_from(["gauge", "counter"]),
    help=st.text(max_size=20),
)
labels = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["instance", "node", "le"]), st.text(max_size=8) | st.integers(), max_size=3
)


def series(metric: str, **other: Any) -> str:
    """The key of a series, as collections make it."""
    named = {key: other.pop(key) for key in collectors.LABELS if key in other}
    return json.dumps({"metric": metric, **named, **({"other": other} if other else {})}, sort_keys=True)


def run(*samples: tuple[str, float], collector: str = "c", database: str = "", at: float = NOW) -> Run:
    """A run of a collector once a minute."""
    return Run(collector, database, 60, at, samples)


def shown(metrics: list[Metric], *runs: Run) -> list[str]:
    """The lines but those of the collectors' times, without the labels of the node."""
    text = exposition(metrics, runs, "shop", "db1")
    return [
        re.sub(r'(?<=[{,])(cluster|node)="(shop|db1)",?', "", line).replace(",}", "}")
        for line in text.splitlines()
        if "pgops_collected_timestamp_seconds" not in line
    ]


# --- the newest values


def test_a_newer_run_replaces_the_older_of_its_collector_and_database(tmp_path: Path) -> None:
    path = str(tmp_path / "latest.json")
    first = [run(("a", 1.0), ("b", 2.0)), run(("a", 1.0), database="x"), run(("z", math.inf), collector="d")]
    latest.remember(path, first, NOW)
    assert latest.load(path) == first
    latest.remember(path, [run(("a", 3.0)), run(collector="d")], NOW)
    assert latest.load(path) == [run(("a", 3.0)), first[1], run(collector="d")]
    assert Path(path).stat().st_mode & 0o777 == 0o640


def test_of_several_files_the_newest_run_counts(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("latest.json", "again.json", "none.json")]
    latest.remember(paths[0], [run(("a", 1.0), at=NOW - 30), run(collector="d", at=NOW - 30)], NOW)
    latest.remember(paths[1], [run(("a", 2.0), at=NOW - 10)], NOW)
    for order in (paths, paths[::-1]):
        assert latest.present(order, NOW) == [run(("a", 2.0), at=NOW - 10), run(collector="d", at=NOW - 30)]


@pytest.mark.parametrize(("interval", "seconds"), [(300, 900), (60, 180), (1, 180)])
def test_values_vanish_after_three_intervals_or_runs_of_the_agent(interval: float, seconds: float) -> None:
    old = Run("c", "", interval, NOW, (("a", 1.0),))
    assert latest.merged([old], [], NOW + seconds) == [old]
    assert latest.merged([old], [], NOW + seconds + 1) == []
    assert latest.merged([old], [], NOW - seconds - 1) == []


def test_a_clock_that_was_set_back_does_not_keep_old_values() -> None:
    assert latest.merged([run(("a", 1.0))], [run(("a", 2.0), at=NOW - 60)], NOW - 60) == [
        run(("a", 2.0), at=NOW - 60)
    ]
    assert latest.merged([], [run(("a", 2.0)), run(("a", 1.0), at=NOW - 60)], NOW) == [run(("a", 2.0))]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "runs": []}', '{"format": 1, "runs": [["c"]]}'])
def test_a_file_that_is_not_understood_is_made_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "latest.json"
    path.write_text(content)
    assert latest.load(str(path)) == []
    latest.remember(str(path), [run(("a", 1.0))], NOW)
    assert latest.load(str(path)) == [run(("a", 1.0))]
    path.write_text(path.read_text().replace(f'"format": {latest.FORMAT}', f'"format": {latest.FORMAT + 1}'))
    assert latest.load(str(path)) == []


# --- values that another user has stored


def stored(path: Path, *runs: Run) -> str:
    path.write_text(latest.text(runs))
    return str(path)


def test_of_another_user_only_what_its_job_measures_is_taken(tmp_path: Path) -> None:
    metrics = {"inspect": ["a", "b"], "sequences": ["c"]}
    good = run((series("a", database="x"), 1.0), (series("b"), 2.0), collector="inspect")
    other = run((series("c", shade="red"), 1.0), collector="sequences")
    path = stored(
        tmp_path / "latest.json",
        good,
        run((series("a"), 1.0), collector="agent"),
        run((series("a"), 1.0), (series("c"), 1.0), collector="inspect", database="mixed"),
        run((series("a"), 1.0), collector="sequences", database="of others"),
        other,
    )
    assert latest.received(path, metrics) == [good, other]
    assert latest.received(path, {}) == []
    assert latest.received(str(tmp_path / "none.json"), metrics) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "[]",
        "5",
        "null",
        "{}",
        '{"other": {}}',
        '{"metric": "a", "other": []}',
        '{"metric": "z"}',
        "[" * 9999,
    ],
)
def test_a_series_of_another_user_that_is_none_is_not_taken(tmp_path: Path, key: str) -> None:
    path = stored(tmp_path / "latest.json", run((key, 1.0), (series("a"), 1.0), collector="inspect"))
    assert latest.received(path, {"inspect": ["a"]}) == []


def test_a_metric_without_a_name_is_no_series_either(tmp_path: Path) -> None:
    path = stored(tmp_path / "latest.json", run(("x", 1.0), collector="inspect"))
    assert latest.received(path, {"inspect": ["a", "XXXX"]}) == []


def test_no_link_of_another_user_is_followed_and_no_pipe_waited_for(tmp_path: Path) -> None:
    good = run((series("a"), 1.0), collector="inspect")
    path = stored(tmp_path / "latest.json", good)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(HostFailed, match="link cannot be read"):
        latest.received(str(tmp_path / "link"), {"inspect": ["a"]})
    os.mkfifo(tmp_path / "pipe")
    assert latest.received(str(tmp_path / "pipe"), {"inspect": ["a"]}) == []
    assert latest.received(path, {"inspect": ["a"]}) == [good]


# --- names and values


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [
        (Metric("active_connections"), "pgops_active_connections", 50.0),
        (Metric("deadlocks", kind="counter"), "pgops_deadlocks_total", 50.0),
        (Metric("table_size_mb", "MB"), "pgops_table_size_bytes", 52428800.0),
        (Metric("wal_bytes", "bytes", "counter"), "pgops_wal_bytes_total", 50.0),
        (Metric("cache_hit_ratio", "%"), "pgops_cache_hit_ratio", 0.5),
        (Metric("xid_wraparound_percent", "%"), "pgops_xid_wraparound_ratio", 0.5),
        (Metric("sequences_used_percent_max", "%"), "pgops_sequences_used_max_ratio", 0.5),
        (Metric("checkpoint_write_time_ms", "ms", "counter"), "pgops_checkpoint_write_time_seconds_total", 0.05),
        (Metric("slot_inactive_seconds", "s"), "pgops_slot_inactive_seconds", 50.0),
        (Metric("table_last_vacuum", "s"), "pgops_table_last_vacuum_timestamp_seconds", 50.0),
        (Metric("started_at", "s"), "pgops_started_timestamp_seconds", 50.0),
        (Metric("replay_lag", "s"), "pgops_replay_lag_seconds", 50.0),
        (Metric("last_run_seconds", "s"), "pgops_last_run_seconds", 50.0),
        (Metric("seconds_at", "s"), "pgops_at_seconds", 50.0),
        (Metric("looked_at", "count"), "pgops_looked_at", 50.0),
        (Metric("age_minutes", "min"), "pgops_age_seconds", 3000.0),
        (Metric("rows_total"), "pgops_rows", 50.0),
        (Metric("rows_bucket_count"), "pgops_rows", 50.0),
        (Metric("gauge_of_rows"), "pgops_of_rows", 50.0),
        (Metric("total"), "pgops_value", 50.0),
    ],
    ids=lambda found: found.name if isinstance(found, Metric) else None,
)
def test_names_and_values_are_those_of_prometheus(metric: Metric, name: str, value: float) -> None:
    assert exported_name(metric) == name
    assert exported_value(metric, 50.0) == pytest.approx(value)


@given(metrics)
def test_a_name_ends_as_its_kind_has_it(metric: Metric) -> None:
    name = exported_name(metric)
    assert re.fullmatch(r"pgops(_[a-z]+)+", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert not name.endswith(("_count", "_bucket"))
    assert "gauge" not in name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("shade", "shade"),
        ("le", "pgops_le"),
        ("quantile", "pgops_quantile"),
        ("instance", "pgops_instance"),
        ("job", "pgops_job"),
        ("My label", "My_label"),
        ("1st", "pgops_1st"),
        ("__name__", "pgops___name__"),
        ("", "pgops_"),
        ("_", "pgops__"),
    ],
)
def test_labels_are_fit_for_prometheus(key: str, name: str) -> None:
    assert label_name(key) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (-0.5, "-0.5"),
        (1e300, "1e+300"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (2.0**60, "1.152921504606847e+18"),
        (2.0**53 - 1, "9007199254740991"),
        (-(2.0**53) + 1, "-9007199254740991"),
        (2.0**53, "9007199254740992.0"),  # from here on a number may stand for its neighbour
        (0.0, "0"),
        (-2.0, "-2"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


# --- the text


def test_a_family_is_together_with_what_is_said_of_it_once() -> None:
    size = Metric("size_mb", "MB", help='A "size",\nwith a \\.')
    assert shown(
        [Metric("zoo"), size, Metric("unused")],
        run((series("size_mb", database="b"), 2.0), (series("zoo"), 1.0), (series("size_mb", database="a"), 1.0)),
    ) == [
        '# HELP pgops_size_bytes A "size",\\nwith a \\\\.',
        "# TYPE pgops_size_bytes gauge",
        'pgops_size_bytes{database="a"} 1048576',
        'pgops_size_bytes{database="b"} 2097152',
        "# HELP pgops_zoo The metric zoo of pgops.fleet.",
        "# TYPE pgops_zoo gauge",
        "pgops_zoo{} 1",
    ]


def test_labels_are_escaped_and_those_that_collide_renamed() -> None:
    sample = (series("x", table='a"b\\c\nd', node="n", node_="m", up=True, gone=""), 1.0)
    assert shown([Metric("x")], run(sample))[2:] == [
        'pgops_x{gone="(empty)",node_="m",pgops_node="n",table="a\\"b\\\\c\\nd",up="true"} 1'
    ]


def test_labels_are_text_whatever_they_were() -> None:
    labels = {"list": {"b": 1, "a": None}, "off": False, "lone": "a\ud800b", "n": 1.5}
    sample = (json.dumps({"metric": "x", "other": labels}), 1.0)
    assert shown([Metric("x")], run(sample))[2:] == [
        'pgops_x{list="{\\"a\\": null, \\"b\\": 1}",lone="a?b",n="1.5",off="false"} 1'
    ]


def test_what_is_not_defined_does_not_hide_what_is() -> None:
    assert shown([Metric("x")], run((series("gone"), 1.0), (series("x"), 2.0)))[2:] == ["pgops_x{} 2"]


def test_labels_that_come_to_one_name_are_both_kept() -> None:
    sample = (json.dumps({"metric": "x", "other": {"a b": "1", "a-b": "2", "a_b_": "3"}}), 1.0)
    assert shown([Metric("x")], run(sample))[2:] == ['pgops_x{a_b="1",a_b_="2",a_b__="3"} 1']


def test_the_time_of_a_collector_is_that_of_the_database_where_it_is_longest_ago() -> None:
    text = exposition([], [run(at=5.0, database="a"), run(at=3.5, database="b"), run(collector="d", at=9)], "s", "n")
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'pgops_collected_timestamp_seconds{cluster="s",collector="c",node="n"} 3.5',
        'pgops_collected_timestamp_seconds{cluster="s",collector="d",node="n"} 9',
    ]


def test_of_two_collectors_with_one_series_the_newer_run_counts() -> None:
    older, newer = run((series("x"), 1.0), at=NOW - 60), run((series("x"), 2.0), collector="d")
    assert shown([Metric("x")], older, newer) == shown([Metric("x")], newer)
    assert shown([Metric("x")], newer, older)[2:] == ["pgops_x{} 2"]


def test_metrics_that_come_to_one_name_are_told_apart() -> None:
    both = [Metric("size_mb", "MB", help="One."), Metric("size_bytes", "bytes", help="Other.")]
    assert shown(both, run((series("size_mb"), 1.0), (series("size_bytes"), 7.0))) == [
        "# HELP pgops_size_bytes Other.",
        "# TYPE pgops_size_bytes gauge",
        'pgops_size_bytes{pgops_metric="size_bytes"} 7',
        'pgops_size_bytes{pgops_metric="size_mb"} 1048576',
    ]


def test_what_nobody_defines_is_left_out_and_nothing_is_no_text() -> None:
    assert shown([], run((series("x"), 1.0))) == []
    assert exposition(METRICS, [], "c", "n") == ""


def test_no_two_metrics_of_the_shipped_collectors_come_to_one_name() -> None:
    defined = {metric.name: exported_name(metric) for metric in METRICS}
    assert len(set(defined.values())) == len(defined)


@given(st.lists(st.tuples(metrics, labels, st.floats()), max_size=8))
def test_prometheus_own_parser_reads_what_was_written(found: list[tuple[Metric, dict[str, Any], float]]) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="the package prometheus_client is not installed")
    made = run(*((json.dumps({"metric": metric.name, "other": other}), value) for metric, other, value in found))
    defined = {metric.name: metric for metric, _other, _value in found}
    text = exposition(defined.values(), [made], "shop", 'a"b\\c\nd')
    families = list(parser.text_string_to_metric_families(text))
    samples = [sample for family in families for sample in family.samples]
    keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples]
    assert len(set(keys)) == len(keys)
    assert len({(family.name, family.type) for family in families}) == len(families)
    assert all(sample.labels["node"] == 'a"b\\c\nd' and "" not in sample.labels.values() for sample in samples)
    values = [exported_value(defined[metric.name], value) for metric, _other, value in found]
    assert {sample.name for sample in samples} == {
        "pgops_collected_timestamp_seconds",
        *(exported_name(defined[metric.name]) for metric, _other, _value in found),
    }
    assert {repr(float(sample.value)) for sample in samples} <= {repr(value + 0.0) for value in [*values, NOW]}
