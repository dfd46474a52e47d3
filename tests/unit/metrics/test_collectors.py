# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Headers of collectors, and rows made into rounds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import artifact
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops import capabilities
from pgops.errors import InvalidInput
from pgops.metrics import collectors, repeat
from pgops.metrics.collectors import Collector, Metric

SHIPPED = sorted((artifact.LIBRARY / "sql" / "collectors").glob("*.sql"))
DOCUMENTED = artifact.ROOT / "docs" / "monitoring.md"
GOOD = """-- collector: queue
-- scope: database
-- interval: 300
-- timeout: 2.5
-- role: primary
-- versions: 15-17
-- metric: waiting unit=count kind=gauge category=availability direction=above warning=1 critical=2
--   How many wait,
--   and for what.
SELECT 1 AS waiting;
"""
QUEUE = collectors.parse(GOOD, "queue.sql")


def test_a_header_says_all_of_a_collector() -> None:
    assert Collector(
        name="queue",
        query="SELECT 1 AS waiting",
        metrics=(
            Metric("waiting", "count", "gauge", "availability", "above", 1.0, 2.0, "How many wait, and for what."),
        ),
        scope="database",
        interval=300,
        timeout=2.5,
        role="primary",
        oldest=15,
        newest=17,
    ) == collectors.parse(GOOD, "queue.sql")


def test_the_example_of_the_documentation_is_a_collector() -> None:
    (example,) = re.findall(r"^```sql\n(-- collector:.*?)^```", DOCUMENTED.read_text(), re.MULTILINE | re.DOTALL)
    found = collectors.parse(example, "docs/monitoring.md")
    assert (found.name, found.scope, found.role, found.oldest) == ("queue", "database", "primary", 15)
    assert found.databases == ("shop", "crm*")
    assert [metric.help for metric in found.metrics] == ["Orders that wait for a worker."]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_collectors_are_named_like_their_files_and_explain_their_metrics(path: Path) -> None:
    found = collectors.parse(path.read_text(), path.name)
    assert found.name == path.stem
    assert all(metric.help for metric in found.metrics)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("collector: queue", "collector: Que ue"),
        ("scope: database", "scope: galaxy"),
        ("role: primary", "role: chief"),
        ("interval: 300", "interval: 0"),
        ("interval: 300", "interval: soon"),
        ("interval: 300", "interval: 1.5"),
        ("interval: 300", "interval: nan"),
        ("interval: 300", "interval: inf"),
        ("timeout: 2.5", "timeout: inf"),
        ("timeout: 2.5", "timeout: 0"),
        ("versions: 15-17", "versions: new"),
        ("kind=gauge", "kind=speed"),
        ("category=availability", "category=beauty"),
        ("direction=above", "direction=left"),
        ("warning=1", "warning=much"),
        ("warning=1", "warning=nan"),
        ("warning=1", "warning=3"),
        ("direction=above", "direction=below"),
        ("unit=count", "colour=red"),
        ("-- metric: waiting", "-- metric: wai-ting"),
        ("-- scope: database", "-- flavour: sweet"),
        ("-- scope: database", "-- nothing of a key"),
        ("-- scope: database", "-- databases: shop"),
        ("-- scope: database", "-- scope: database\n-- databases: shop,, crm"),
        ("-- scope: database", "-- scope: database\n-- databases:"),
        ("SELECT 1 AS waiting;", ""),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused_with_the_files_name(old: str, new: str) -> None:
    with pytest.raises(InvalidInput, match=r"queue\.sql"):
        collectors.parse(GOOD.replace(old, new), "queue.sql")


@pytest.mark.parametrize(
    ("patterns", "database", "fits"),
    [
        ("shop", "shop", True),
        ("shop", "shop2", False),
        ("shop", "Shop", False),
        ("other, crm*", "crm_1", True),
        ("crm_?", "crm_12", False),
        ("*[0-9]", "crm_12", True),
    ],
)
def test_databases_are_named_by_patterns(patterns: str, database: str, fits: bool) -> None:
    text = GOOD.replace("-- scope: database", f"-- scope: database\n-- databases: {patterns}")
    assert collectors.parse(text, "queue.sql").looks_into(database) is fits
    assert QUEUE.looks_into(database)


@pytest.mark.parametrize(
    ("text", "span"), [("", (0, 999)), ("15", (15, 15)), ("15-", (15, 999)), ("-16", (0, 16)), ("14-16", (14, 16))]
)
def test_versions(text: str, span: tuple[int, int]) -> None:
    found = collectors.parse(GOOD.replace("15-17", text), "queue.sql")
    assert (found.oldest, found.newest) == span


def test_a_header_may_be_as_short_or_as_odd_as_it_is_understood() -> None:
    text = """
-- collector: odd

-- not a header any more
SELECT 1 AS y,
    -- which
    2 AS z;
"""
    with pytest.raises(InvalidInput, match="no '-- metric:' line"):
        collectors.parse(text, "odd.sql")
    found = collectors.parse(
        "-- collector: odd\n--\n--   \n-- interval: 1\n-- timeout: 0.5\n-- scope: database\n-- databases: a:b\n"
        "-- metric: y unit=a=b\n-- metric: z\n--   On: two\n--   lines.\nSELECT 1 AS y,\n  -- which\n  2 AS z\n;;\n",
        "odd.sql",
    )
    assert (found.interval, found.timeout, found.databases) == (1, 0.5, ("a:b",))
    assert [(metric.unit, metric.help) for metric in found.metrics] == [("a=b", ""), ("count", "On: two lines.")]
    assert found.query == "SELECT 1 AS y,\n  -- which\n  2 AS z\n"
    assert collectors.parse("-- collector: x\n-- metric: y\nXX", "x").query == "XX"


@pytest.mark.parametrize("text", ["-- metric: y\nSELECT 1 AS y", "-- collector:\n-- metric: y\nSELECT 1 AS y"])
def test_a_collector_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="needs a name"):
        collectors.parse(text, "x.sql")


def made(**header: str) -> Collector:
    lines = "".join(f"-- {key}: {value}\n" for key, value in header.items())
    return collectors.parse(f"-- collector: x\n{lines}-- metric: y\nSELECT 1 AS y", "x.sql")


@pytest.mark.parametrize(
    ("header", "major", "primary", "standby"),
    [
        ({}, 14, True, True),
        ({"role": "any"}, 14, True, True),
        ({"role": "primary"}, 14, True, False),
        ({"role": "standby"}, 14, False, True),
        ({"versions": "15-16"}, 14, False, False),
        ({"versions": "15-16"}, 15, True, True),
        ({"versions": "15-16"}, 16, True, True),
        ({"versions": "15-16"}, 17, False, False),
        ({"versions": "15-", "role": "standby"}, 14, False, False),
        ({"versions": "15-", "role": "primary"}, 18, True, False),
    ],
)
def test_a_collector_runs_on_servers_of_its_versions_and_role(
    header: dict[str, str], major: int, primary: bool, standby: bool
) -> None:
    found = made(**header)
    assert found.applies(major, in_recovery=False) is primary
    assert found.applies(major, in_recovery=True) is standby
    assert found.for_version(major) is (primary or standby)


@pytest.mark.parametrize(
    ("header", "called"),
    [
        ({}, True),
        ({"scope": "database"}, True),
        ({"scope": "instance"}, True),
        ({"scope": "database", "databases": "pg*"}, True),
        ({"scope": "database", "databases": "shop"}, False),
        ({"rights": "host"}, False),
        ({"rights": "all_data", "scope": "database"}, False),
        ({"role": "primary"}, True),
        ({"role": "standby"}, False),
        ({"versions": "18-"}, False),
    ],
)
def test_a_call_by_hand_measures_the_ops_database_with_the_callers_rights(
    header: dict[str, str], called: bool
) -> None:
    assert made(**header).called_in("pgops", 17) is called


def test_the_store_gets_all_that_a_header_says_of_a_metric() -> None:
    assert QUEUE.metrics[0].definition() == {
        "metric_name": "waiting",
        "unit": "count",
        "kind": "gauge",
        "category": "availability",
        "direction": "above",
        "warning": 1.0,
        "critical": 2.0,
        "help": "How many wait, and for what.",
    }


def test_what_a_header_leaves_out_is_usual() -> None:
    assert made() == Collector("x", "SELECT 1 AS y", (Metric("y"),))
    assert made().interval == 60
    assert made().timeout == 10.0
    assert made().metrics[0].definition() == {
        "metric_name": "y",
        "unit": "count",
        "kind": "gauge",
        "category": "performance",
        "direction": None,
        "warning": None,
        "critical": None,
        "help": "",
    }


@pytest.mark.parametrize("days", [1, "1", 90, "3660"])
def test_a_retention_is_whole_days(days: object) -> None:
    assert collectors.checked_retention({"deadlocks": days}) == {"deadlocks": int(str(days))}


@pytest.mark.parametrize("days", [0, -1, 3661, 1.5, "1.5", "", "long", None, True, [1]])
def test_what_is_no_retention_is_refused(days: object) -> None:
    with pytest.raises(InvalidInput, match="retention of deadlocks must be whole days, 1 to 3660"):
        collectors.checked_retention({"waiting": 5, "deadlocks": days})


def test_settings_of_collectors_are_typed() -> None:
    assert collectors.checked_settings(
        {
            "a": {"interval": "300", "timeout": "2.5", "enabled": "No"},
            "b": {"enabled": True},
            "c": {},
            "d": {"timeout": 1},
        }
    ) == {
        "a": {"interval": 300, "timeout": 2.5, "enabled": False},
        "b": {"enabled": True},
        "c": {},
        "d": {"timeout": 1.0},
    }
    assert isinstance(collectors.checked_settings({"a": {"interval": 300.0}})["a"]["interval"], int)


@pytest.mark.parametrize(
    "settings",
    [
        None,
        [],
        "60",
        {"every": 60},
        {"interval": 0},
        {"interval": 0.5},
        {"interval": 1.5},
        {"interval": "often"},
        {"interval": None},
        {"interval": "inf"},
        {"interval": "nan"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": "inf"},
        {"timeout": "nan"},
        {"enabled": "perhaps"},
        {"enabled": None},
    ],
)
def test_settings_of_collectors_that_cannot_be_meant_are_refused(settings: object) -> None:
    with pytest.raises(InvalidInput, match="The settings of collector locks"):
        collectors.checked_settings({"locks": settings})


def test_settings_change_only_the_collector_that_they_name() -> None:
    one, other = with_rights("monitor", "one"), with_rights("monitor", "other")
    changed = collectors.adjusted([one, other], {"one": {"interval": 5, "timeout": 1, "enabled": True}})
    assert [(found.interval, found.timeout) for found in changed] == [(5, 1.0), (300, 2.5)]
    assert collectors.adjusted([one, other], {"one": {"enabled": False}}) == [other]
    assert collectors.adjusted([one, other], {}) == [one, other]


@given(st.integers(1, 3600), st.floats(0, 2e9), st.floats(0, 7200))
def test_a_collector_is_due_once_in_each_slot_of_the_clock(interval: int, last: float, later: float) -> None:
    found = Collector("x", "SELECT 1", (), interval=interval)
    assert collectors.due(found, last, None)
    assert collectors.due(found, last + later, last) == ((last + later) // interval != last // interval)


def test_two_collectors_or_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="collector queue"):
        collectors.joined([QUEUE], [QUEUE])
    with pytest.raises(InvalidInput, match="metric waiting"):
        collectors.joined([QUEUE], [collectors.parse(GOOD.replace("queue", "other"), "x")])


@pytest.mark.parametrize("versions", ["-14", "18-"])
def test_a_metric_may_stand_in_collectors_that_no_server_runs_both_of(versions: str) -> None:
    other = GOOD.replace("queue", "other").replace("15-17", versions)
    assert len(collectors.joined([QUEUE], [collectors.parse(other, "x")])) == 2
    with pytest.raises(InvalidInput, match="metric waiting"):
        collectors.joined([QUEUE], [collectors.parse(other.replace("warning=1", "warning=2"), "x")])


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ({"versions": "-15"}, {"versions": "15-"}, True),
        ({"versions": "-14"}, {"versions": "15-"}, False),
        ({"versions": "15"}, {"versions": "14-16"}, True),
        ({"role": "primary"}, {"role": "standby"}, False),
        ({"role": "primary"}, {"role": "primary"}, True),
        ({"role": "primary"}, {"role": "any"}, True),
        ({"role": "any"}, {"role": "standby"}, True),
        ({"role": "standby", "versions": "14"}, {"role": "standby", "versions": "15"}, False),
    ],
)
def test_two_collectors_clash_where_a_server_would_run_both(
    one: dict[str, str], other: dict[str, str], clash: bool
) -> None:
    first, second = made(**one), replace(made(**other), name="z")
    for pair in ([first, second], [second, first]):
        if clash:
            with pytest.raises(InvalidInput, match="metric y is defined twice"):
                collectors.joined(pair[:1], pair[1:])
        else:
            assert collectors.joined(pair[:1], pair[1:]) == pair


@pytest.mark.parametrize("name", ["agent", "jobs", "inspect"])
def test_names_of_what_jobs_measure_about_themselves_are_taken(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"collector {name} is defined twice"):
        collectors.joined([], [with_rights("monitor", name)])
    taken = collectors.SELF["agent"].metrics[0].name
    with pytest.raises(InvalidInput, match=f"metric {taken} is defined twice"):
        collectors.joined([], [collectors.parse(GOOD.replace("waiting", taken), "x")])


def test_all_metrics_are_known_by_name_those_of_jobs_too() -> None:
    found = collectors.metrics([QUEUE])
    assert found["waiting"] is QUEUE.metrics[0]
    assert all(found[metric.name] is metric for own in collectors.SELF.values() for metric in own.metrics)


def test_a_capabilitys_own_metrics_stand_below_a_header_each() -> None:
    texts = "-- collector: one\n-- metric: a\n-- collector: two\n-- interval: 5\n-- metric: b\n--   Bees.\n"
    one, two = collectors.own(replace(capabilities.ALL[0], metrics=f"\n{texts}"))
    assert (one.name, one.query, [metric.name for metric in one.metrics]) == ("one", "", ["a"])
    assert (two.name, two.interval, two.metrics[0].help) == ("two", 5, "Bees.")
    assert collectors.own(replace(capabilities.ALL[0], metrics="")) == []
    with pytest.raises(InvalidInput, match=f"capability {capabilities.ALL[0].name}"):
        collectors.own(replace(capabilities.ALL[0], metrics="-- collector: one"))


def test_only_known_rights_can_be_asked_for() -> None:
    assert collectors.parse(GOOD.replace("-- role", "-- rights: all_data\n-- role"), "x").rights == "all_data"
    with pytest.raises(InvalidInput, match="rights 'root'"):
        collectors.parse(GOOD.replace("-- role", "-- rights: root\n-- role"), "x")


def with_rights(rights: str, name: str = "queue") -> Collector:
    text = GOOD.replace("queue", name).replace("waiting", f"{name}_waiting")
    return collectors.parse(text.replace("-- role", f"-- rights: {rights}\n-- role"), f"{name}.sql")


@pytest.mark.parametrize("rights", ["all_data", "host"])
def test_a_collector_of_a_user_gets_the_rights_of_pg_monitor_and_no_others(rights: str) -> None:
    greedy, modest = with_rights(rights), with_rights("monitor", "modest")
    assert collectors.joined([greedy], [modest]) == [greedy, modest]
    with pytest.raises(InvalidInput, match="collectors queue request more rights than pg_monitor"):
        collectors.joined([], [modest, greedy])
    with pytest.raises(InvalidInput, match="collectors other, queue request"):
        collectors.joined([modest], [greedy, with_rights(rights, "other")])


@given(st.integers(1, 7200), st.lists(st.floats(0, 60), max_size=3))
def test_a_collector_is_slowed_down_until_it_is_a_small_part_of_its_interval(
    interval: int, seconds: list[float]
) -> None:
    found = Collector("x", "SELECT 1", (), interval=interval)
    longest = max(interval, collectors.LONGEST_INTERVAL)
    slowed = collectors.slowed(found, seconds).interval
    assert interval <= slowed <= longest
    if seconds and slowed * 2 <= longest:
        assert min(seconds) <= collectors.SHARE * slowed
    if slowed > interval:
        assert min(seconds) > collectors.SHARE * slowed / 2
    assert collectors.slowed(found, [*seconds, 0.0]) == found


def test_a_collector_of_disks_costs_the_server_nothing_and_keeps_its_interval() -> None:
    assert collectors.slowed(made(rights="host", interval="10"), [5.0]).interval == 10
    assert collectors.slowed(made(rights="monitor", interval="10"), [5.0]).interval == 2560


def test_no_collector_is_slowed_down_beyond_an_hour() -> None:
    assert collectors.slowed(made(interval="900"), [60.0]).interval == 3600
    assert collectors.slowed(made(interval="1000"), [60.0]).interval == 2000
    assert collectors.slowed(made(interval="7200"), [60.0]).interval == 7200


@pytest.mark.parametrize(
    ("interval", "last", "now", "due"),
    [
        (60, 59.0, 61.0, True),
        (60, 60.0, 119.9, False),
        (60, 60.0, 120.0, True),
        (60, 120.0, 119.0, True),  # the clock was set back
        (60, 60.5, 60.6, False),
        (3600, 7200.0, 7200.0, False),
    ],
)
def test_a_slot_begins_with_the_clock(interval: int, last: float, now: float, due: bool) -> None:
    assert collectors.due(made(interval=str(interval)), now, last) is due


@pytest.mark.parametrize(("seconds", "interval"), [(0.019, 10), (0.02, 10), (0.021, 20), (0.05, 40), (0.13, 80)])
def test_only_what_takes_20_ms_at_most_runs_every_ten_seconds(seconds: float, interval: int) -> None:
    found = Collector("x", "SELECT 1", (), interval=10)
    assert collectors.slowed(found, [seconds, seconds + 1, 60]).interval == interval


@given(st.integers(1, 90), st.floats(0, 2e9), st.floats(-100, 200))
def test_the_next_turn_is_soon_in_another_slot_and_an_interval_after_the_last(
    interval: int, now: float, ago: float
) -> None:
    found = Collector("x", "SELECT 1", (), interval=interval)
    last = now - ago
    then = repeat.coming(found, now, last)
    assert now < then <= now + interval
    if now < last + interval and last <= now:
        assert then == last + interval
        assert collectors.due(found, then + 1e-3, last)
    assert repeat.coming(found, now, None) == now + interval


def test_turns_keep_their_distance_from_one_minute_to_the_next() -> None:
    """Runs of the job begin 7 seconds after each minute; what is not due then has its turn later."""
    for interval in (5, 10, 15, 45):
        found = Collector("x", "SELECT 1", (), interval=interval)
        last, ran = None, []
        for begin in (7.0, 67.0, 127.0, 187.0):
            now = begin
            while now < begin + repeat.STAY:
                if collectors.due(found, now, last):
                    last = now
                    ran.append(now)
                now = repeat.coming(found, now, last)
        assert {later - earlier for earlier, later in zip(ran, ran[1:])} == {interval}


def test_passes_are_one_result_that_says_each_error_once() -> None:
    counted = dict.fromkeys(repeat.COUNTED, 2)
    first = {**counted, "sink": "local", "slowed": {"locks": 120}, "errors": ["a", "b"]}
    passes = [first, {**counted, "sink": "spool", "errors": ["b"]}, {**counted, "errors": ["c", "b"]}]
    assert repeat.together(passes) == {
        **dict.fromkeys(repeat.COUNTED, 6),
        "sink": "spool",
        "slowed": {"locks": 120},
        "errors": ["a", "b (3 times)", "c"],
        "passes": 3,
    }


def test_a_row_is_measured_once_wherever_it_runs_and_can_end_in_a_comment() -> None:
    query = "SELECT current_database() AS database, 1 AS waiting -- all"
    most = collectors.MOST_ROWS + 1
    inside = f"SELECT pg_catalog.to_jsonb(collected) FROM (\n{query}\n) AS collected LIMIT {most}"
    assert collectors.wrapped(query) == inside
    assert f"FROM (\n{inside}\nOFFSET 0\n) AS found (item)" in collectors.placed(query)


def test_every_shipped_counter_of_an_object_knows_it() -> None:
    """A counter with the name of a database, table or index would else be taken for another one's."""
    for path in SHIPPED:
        found = collectors.parse(path.read_text(), path.name)
        named = re.search(r"\bAS (database|table|index)\b|s\.database,", found.query)
        if named and any(metric.kind == "counter" for metric in found.metrics):
            assert f" AS {collectors.IDENTITY}" in found.query, path.name
