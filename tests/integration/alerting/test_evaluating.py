# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules evaluated over stored samples, at chosen moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from servers import Server

RULE = "INSERT INTO pgops.alert_rules ({}) VALUES ({}) RETURNING rule_id"
SAMPLE = (
    "INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name, collected_at) "
    "VALUES (%s, %s, %s, %s::timestamptz + make_interval(secs => %s))"
)


class Watched:
    """A store of samples whose first moment is 0, in seconds, and what rules make of them."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self.session = session
        self.start = session.execute("SELECT date_trunc('hour', now()) - interval '1 day'").fetchone()[0]  # type: ignore[index]
        self.sample(-86_400, 0)  # a rule must be on a metric that is known

    def sample(self, second: float, value: float, database: str = "shop", metric: str = "load") -> None:
        self.session.execute(SAMPLE, [metric, value, database, self.start, second])

    def rule(self, **columns: Any) -> str:
        """A new rule, on load above 5 if nothing else is said; returns its rule_id."""
        named = {
            "rule_name": "high_load",
            "metric_name": "load",
            "condition_operator": ">",
            "threshold_value": 5,
            **columns,
        }
        query = RULE.format(", ".join(named), ", ".join(["%s"] * len(named)))
        return str(self.session.execute(query.encode(), list(named.values())).fetchone()[0])  # type: ignore[index]

    def evaluate(self, second: float) -> int:
        query = "SELECT pgops.evaluate_alerts_at(%s::timestamptz + make_interval(secs => %s))"
        return int(self.session.execute(query, [self.start, second]).fetchone()[0])  # type: ignore[index]

    def history(self, columns: str = "alert_status, database_name") -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM pgops.alert_history ORDER BY started_at, database_name"
        return self.session.execute(query.encode()).fetchall()

    def course(self) -> list[tuple[float, str, str]]:
        """All transitions, with their seconds."""
        query = """
            SELECT extract(EPOCH FROM t.changed_at - %s)::float, t.from_status, t.to_status
            FROM pgops.alert_transition AS t ORDER BY 1, 2, 3
        """
        return self.session.execute(query, [self.start]).fetchall()


@pytest.fixture(name="watched")
def _watched(deployed: Server) -> Iterator[Watched]:
    with deployed.connect("pgops") as session:
        yield Watched(session)


def test_a_condition_that_lasts_fires_and_ends(watched: Watched) -> None:
    watched.sample(0, 9)
    watched.rule(minimum_duration="2 minutes")
    assert [watched.evaluate(10), watched.evaluate(70), watched.evaluate(130)] == [0, 0, 1]
    assert watched.history("alert_status, metric_value, threshold_value") == [("firing", 9, 5)]
    watched.sample(140, 1)
    assert watched.evaluate(190) == 0
    assert watched.history("alert_status, resolved_at - started_at = interval '3 minutes'") == [("resolved", True)]
    assert watched.course() == [
        (10, "inactive", "pending"),
        (130, "pending", "firing"),
        (190, "firing", "inactive"),
    ]


def test_series_are_judged_by_themselves_and_labels_choose_them(watched: Watched) -> None:
    watched.rule(minimum_duration="0", labels='{"database": "shop"}')
    for database in ("shop", "bank"):
        watched.sample(0, 9, database)
    assert watched.evaluate(10) == 1
    assert watched.history() == [("firing", "shop")]
    watched.rule(minimum_duration="0", rule_name="any_load")
    assert watched.evaluate(20) == 2
    assert watched.history() == [("firing", "shop"), ("firing", "bank"), ("firing", "shop")]


@pytest.mark.parametrize(
    ("operator", "breached", "cleared"),
    [(">", 6, 5), (">=", 5, 4), ("<", 4, 5), ("<=", 5, 6), ("=", 5, 6), ("!=", 4, 5)],
)
def test_each_operator(watched: Watched, operator: str, breached: float, cleared: float) -> None:
    watched.rule(minimum_duration="0", condition_operator=operator)
    watched.sample(0, breached)
    assert watched.evaluate(10) == 1
    watched.sample(20, cleared)
    watched.evaluate(30)
    assert watched.history("alert_status") == [("resolved",)]


def test_between_the_thresholds_an_alert_goes_on(watched: Watched) -> None:
    watched.rule(minimum_duration="0", clear_threshold=3)
    for second, value, status in ((0, 9, "firing"), (60, 4, "firing"), (120, 3, "resolved"), (180, 4, "resolved")):
        watched.sample(second, value)
        watched.evaluate(second + 1)
        assert watched.history("alert_status") == [(status,)]


def test_an_alert_may_fire_for_longer_than_its_condition(watched: Watched) -> None:
    watched.rule(minimum_duration="0", keep_firing_for="2 minutes")
    for second, value in ((0, 9), (60, 1), (120, 9), (180, 1), (240, 1), (300, 1)):
        watched.sample(second, value)
        watched.evaluate(second)
    assert watched.course() == [
        (0, "inactive", "firing"),
        (60, "firing", "recovering"),
        (120, "recovering", "firing"),
        (180, "firing", "recovering"),
        (300, "recovering", "inactive"),
    ]
    assert watched.history("alert_status") == [("resolved",)]


def test_a_condition_that_ends_in_time_never_fires(watched: Watched) -> None:
    watched.rule()
    watched.sample(0, 9)
    watched.evaluate(0)
    watched.sample(30, 1)
    assert watched.evaluate(59) == 0
    assert watched.history("alert_status, resolved_at") == [("inactive", None)]


def test_what_happens_where_nothing_is_measured(watched: Watched) -> None:
    for policy in ("keep", "fire", "resolve"):
        watched.rule(rule_name=policy, minimum_duration="0", missing_data=policy)
    watched.sample(0, 9)
    assert watched.evaluate(0) == 3
    assert watched.evaluate(300) == 0
    assert sorted(watched.history("rule_name, alert_status")) == [
        ("fire", "missing"),
        ("keep", "missing"),
        ("resolve", "resolved"),
    ]
    watched.sample(400, 1)
    assert watched.evaluate(400) == 0
    assert {status for _name, status in watched.history("rule_name, alert_status")} == {"resolved"}
    assert watched.evaluate(800) == 1
    assert watched.history("rule_name, alert_status")[-1] == ("fire", "missing")


def test_an_alert_without_data_ends_after_a_day(watched: Watched) -> None:
    watched.rule(minimum_duration="0")
    watched.sample(0, 9)
    watched.evaluate(0)
    watched.evaluate(600)
    watched.evaluate(86_000)
    assert watched.history("alert_status, reason") == [("missing", None)]
    watched.evaluate(87_000)
    assert watched.history("alert_status, reason") == [("resolved", "Nothing has been measured any more.")]


@pytest.mark.parametrize(("evaluation", "fires"), [("last", 1), ("max", 1), ("avg", 0), ("min", 0)])
def test_what_is_compared_is_made_of_the_window(watched: Watched, evaluation: str, fires: int) -> None:
    watched.rule(minimum_duration="0", evaluation=evaluation, evaluation_window="2 minutes")
    for second, value in ((0, 99), (60, 1), (120, 6), (180, 1), (230, 6)):
        watched.sample(second, value)
    assert watched.evaluate(240) == fires


def test_a_counter_is_compared_by_its_growth(watched: Watched) -> None:
    kind = (
        "INSERT INTO pgops.system_metrics (metric_name, metric_value, metric_kind, collected_at) VALUES ('hits', %s, "
    )
    for second, value in ((0, 1000), (60, 1600), (120, 40)):
        moment = "'counter', %s::timestamptz + make_interval(secs => %s))"
        watched.session.execute((kind + moment).encode(), [value, watched.start, second])
    for evaluation, threshold in (("rate", 10.1), ("rate", 5.2), ("increase", 641), ("increase", 639)):
        name = f"{evaluation}_{threshold}"
        watched.rule(
            rule_name=name, metric_name="hits", evaluation=evaluation, threshold_value=threshold, minimum_duration="0"
        )
    watched.evaluate(61)
    assert watched.history("rule_name") == [("rate_5.2",)]
    watched.evaluate(121)
    assert sorted(watched.history("rule_name")) == [("increase_639",), ("rate_5.2",)]


def test_flapping_is_damped_and_told(watched: Watched) -> None:
    watched.rule(minimum_duration="0", flapping_after=3)
    for second in range(0, 600, 120):
        watched.sample(second, 9)
        watched.evaluate(second)
        watched.sample(second + 60, 1)
        watched.evaluate(second + 60)
    assert watched.history("alert_status, flapping") == [
        ("resolved", False),
        ("resolved", False),
        ("recovering", True),
    ]
    watched.sample(540 + 900, 1)
    watched.evaluate(540 + 900)
    assert watched.history("alert_status, flapping")[-1] == ("resolved", True)


def test_a_rule_that_goes_takes_its_alerts_along(watched: Watched) -> None:
    watched.rule(minimum_duration="0")
    watched.rule(minimum_duration="0", rule_name="other")
    watched.sample(0, 9)
    watched.evaluate(0)
    watched.session.execute("DELETE FROM pgops.alert_rules WHERE rule_name = 'other'")
    watched.session.execute("UPDATE pgops.alert_rules SET is_enabled = false")
    watched.evaluate(60)
    assert watched.history("alert_status, reason") == [("resolved", "The rule was removed or disabled.")] * 2
    assert watched.session.execute("SELECT count(*) FROM pgops.alert_state").fetchone() == (0,)


def test_an_edited_rule_keeps_its_alert(watched: Watched) -> None:
    rule = watched.rule(minimum_duration="0")
    watched.sample(0, 9)
    watched.evaluate(0)
    watched.session.execute("UPDATE pgops.alert_rules SET threshold_value = 8, severity_level = 'critical'")
    watched.evaluate(60)
    assert watched.history("alert_status, rule_id::text") == [("firing", rule)]
    watched.session.execute("UPDATE pgops.alert_rules SET threshold_value = 10")
    watched.evaluate(120)
    assert watched.history("alert_status") == [("resolved",)]


def test_a_moment_is_evaluated_once_and_a_clock_may_be_wrong(watched: Watched) -> None:
    watched.rule(minimum_duration="0")
    watched.sample(0, 9)
    assert [watched.evaluate(60), watched.evaluate(60), watched.evaluate(30)] == [1, 0, 0]
    watched.sample(100, 1)
    watched.evaluate(90_000)  # a clock that is ahead
    watched.evaluate(120)
    assert watched.history("alert_status") == [("resolved",)]


def test_a_series_that_its_collector_no_longer_finds_ends_its_alert(watched: Watched) -> None:
    collector = """
        INSERT INTO pgops.collector (collector, scope, role, rights, called, labels, metrics)
        VALUES ('loads', 'instance', 'any', 'monitor', false, '{}', '{load}')
    """
    report = (
        "INSERT INTO pgops.system_metrics (metric_name, metric_value, additional_info, collected_at) "
        "VALUES ('collector_errors', %s, '{\"collector\": \"loads\"}', %s::timestamptz + make_interval(secs => %s))"
    )
    watched.session.execute(collector)
    watched.rule(minimum_duration="0")
    watched.sample(0, 9)
    watched.session.execute(report, [0, watched.start, 1])
    watched.evaluate(10)
    for second, errors, status in ((60, 1, "firing"), (120, 0, "resolved")):
        watched.session.execute(report, [errors, watched.start, second])
        watched.evaluate(second + 1)
        assert watched.history("alert_status") == [(status,)], second
    assert watched.history("reason") == [("It is no longer there.",)]
