# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules that are shipped, and those that inventories declare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import artifact
import pytest
from deploying import SHIPPED
from hypothesis import given
from hypothesis import strategies as st

from pgops import capabilities
from pgops.alerting import rules
from pgops.alerting.rules import DEFAULTS, Rule
from pgops.errors import InvalidInput
from pgops.metrics.collectors import SELF, Collector, metrics

COLLECTORS = [*SHIPPED, *SELF.values()]
SHARED = {"metric_value", "threshold_value", "node"}
NEW = {"name": "mine", "metric": "connections", "operator": ">", "threshold": 5}
each = pytest.mark.parametrize("rule", DEFAULTS, ids=lambda rule: "_".join(rule.key))
KNOWN = rules.shipped(["backup"])


def collectors_of(metric: str) -> list[Collector]:
    return [one for one in COLLECTORS if metric in {found.name for found in one.metrics}]


def one(given: Mapping[str, Any]) -> Rule:
    (found,) = rules.declared([given], KNOWN).values()
    return found


@each
def test_a_shipped_rule_is_on_a_metric_that_a_collector_yields(rule: Rule) -> None:
    assert rule.metric in metrics(SHIPPED)
    rules.refuse_unknown({rule.key: rule}, metrics(SHIPPED))


@each
def test_a_window_has_at_least_two_and_a_half_runs_of_its_collector(rule: Rule) -> None:
    # Two runs without an error tell what is no longer there.
    assert rule.window >= 2.5 * max(found.interval for found in collectors_of(rule.metric))


@each
def test_growth_is_asked_of_counters_and_values_of_gauges(rule: Rule) -> None:
    grows = rule.evaluation in ("rate", "increase")
    assert (metrics(SHIPPED)[rule.metric].kind == "counter") == grows


@each
def test_a_shipped_rule_can_be_declared_as_it_is(rule: Rule) -> None:
    shown = {key: value for key, value in rule.shown().items() if value is not None}
    assert one(shown).shown() == rule.shown()


@each
def test_a_text_names_the_node_and_only_labels_that_the_series_have(rule: Rule) -> None:
    named = set(re.findall(r"{(\w+)}", rule.text))
    assert "node" in named
    for collector in collectors_of(rule.metric):
        labels = set(re.findall(r"\bAS \"?(\w+)", collector.query)) | set(re.findall(r"\.(\w+)", collector.query))
        of_derived = {"database", "collector", "disk", "slot", "standby"} if not collector.query else set()
        assert named - SHARED <= labels | of_derived, collector.name


@each
def test_a_critical_rule_is_beyond_its_warning(rule: Rule) -> None:
    warning = next((one for one in DEFAULTS if one.key == (rule.name, "warning")), rule)
    if rule.severity == "critical" and rule.labels == warning.labels:
        sign = 1 if rule.operator in (">", ">=") else -1
        assert sign * rule.threshold >= sign * warning.threshold
        assert sign * rule.threshold > sign * warning.threshold or rule.lasts >= warning.lasts


def test_rules_of_a_capability_are_enabled_with_it() -> None:
    assert {rule.capability for rule in DEFAULTS} - {""} <= {one.name for one in capabilities.ALL}
    off, on = rules.shipped([]), rules.shipped(["backup", "recovery", "statements"])
    assert {key for key in on if on[key].enabled != off[key].enabled} == {
        rule.key for rule in DEFAULTS if rule.capability
    }
    assert not on["database_size", "critical"].enabled


def test_no_two_rules_have_one_name_and_severity() -> None:
    assert len({rule.key for rule in DEFAULTS}) == len(DEFAULTS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(90, 90), ("90", 90), ("90s", 90), ("1.5 m", 90), ("10min", 600), ("36h", 129_600), ("7d", 604_800), (0, 0)],
)
def test_durations(given: Any, expected: float) -> None:
    assert rules.seconds("lasts", given) == expected


@given(st.text())
def test_no_other_text_is_a_duration(text: str) -> None:
    try:
        assert rules.seconds("lasts", text) >= 0
    except InvalidInput:
        assert not re.fullmatch(r"\d+", text, re.ASCII)


def test_a_new_rule_has_defaults() -> None:
    rule = one({**NEW, "labels": {"database": "shop"}, "channels": None})
    assert (rule.severity, rule.window, rule.lasts, rule.enabled) == ("warning", 300, 60, True)
    assert rule.row()["labels"] == '{"database": "shop"}'


def test_a_shipped_rule_is_changed_in_part_at_all_severities_or_one() -> None:
    off = rules.declared([{"name": "connections", "enabled": False}], KNOWN)
    assert set(off) == {("connections", "warning"), ("connections", "critical")}
    assert not any(rule.enabled for rule in off.values())
    assert off["connections", "critical"].threshold == 90
    with pytest.raises(InvalidInput, match="several severities"):
        one({"name": "connections", "threshold": 70})


def test_the_threshold_takes_the_one_for_clearing_along() -> None:
    given = {"name": "connections", "severity": "warning", "threshold": 40.0}
    assert one(given).clear_threshold == 37.5
    assert one({**given, "clear_threshold": 39.0}).clear_threshold == 39
    assert one({**given, "operator": "<"}).clear_threshold is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "connections", "operator": ">", "threshold": 5}, "needs a name"),
        ({"name": "conections", "threshold": 5}, "did you mean connections"),
        ({**NEW, "treshold": 1}, "did you mean threshold"),
        ({**NEW, "operator": "~"}, "operator is one of"),
        ({**NEW, "severity": "fatal"}, "severity is one of"),
        ({**NEW, "evaluation": "median"}, "evaluation is one of"),
        ({**NEW, "missing_data": "page"}, "missing_data is one of"),
        ({**NEW, "lasts": "soon"}, "is not a duration"),
        ({**NEW, "window": "32d"}, "31 days"),
        ({**NEW, "window": 0}, "31 days"),
        ({**NEW, "threshold": "many"}, "is not a number"),
        ({**NEW, "threshold": float("nan")}, "finite"),
        ({**NEW, "clear_threshold": 6}, "wrong side"),
        ({**NEW, "operator": "<", "clear_threshold": 4}, "wrong side"),
        ({**NEW, "operator": "!=", "clear_threshold": 5}, "wrong side"),
        ({**NEW, "flapping_after": 61}, "flapping_after"),
        ({**NEW, "text": "x" * 10_001}, "10,000"),
        ({**NEW, "capability": "backup"}, "unknown keys"),
    ],
)
def test_what_no_rule_can_be_is_refused(given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        one(given)


def test_a_rule_is_declared_once() -> None:
    with pytest.raises(InvalidInput, match="more than once"):
        rules.declared([NEW, NEW], KNOWN)


def test_the_module_takes_what_a_rule_has() -> None:
    text = (artifact.ROOT / "plugins" / "modules" / "pg_ops_alerts.py").read_text()
    options = re.findall(r'^    "(\w+)": {"type"', text.partition("RULE = {")[2].partition("\n}")[0], re.MULTILINE)
    assert set(options) == rules.NAMES
