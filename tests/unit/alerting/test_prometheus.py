# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules as Prometheus reads them: promtool takes them, and fires where ours do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import promtool
import pytest
import yaml
from deploying import SHIPPED
from hypothesis import given
from hypothesis import strategies as st

from pgops import capabilities
from pgops.alerting import prometheus, rules
from pgops.alerting.prometheus import Known
from pgops.alerting.rules import Rule
from pgops.metrics import collectors

METRICS = collectors.metrics(SHIPPED)
KNOWN = Known("shop", METRICS, 1)
EVERY = rules.shipped(["backup", "statements"])


def written(*given: Rule, known: Known = KNOWN) -> str:
    return prometheus.rule_file(given, known)


def of(*given: Rule, known: Known = KNOWN) -> list[dict[str, Any]]:
    """The rules of the file."""
    (group,) = yaml.safe_load(written(*given, known=known))["groups"]
    return list(group["rules"])


def promtooled(folder: Path, text: str, tests: Sequence[Mapping[str, Any]] = ()) -> str:
    """Nothing, or what promtool finds wrong with the file, and with what it does."""
    (folder / "rules.yml").write_text(text)
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": list(tests)}
    (folder / "tests.yml").write_text(json.dumps(document))
    for words in (["check", "rules", "rules.yml"], ["test", "rules", "tests.yml"]):
        said = subprocess.run(
            [str(promtool.program()), *words], cwd=folder, capture_output=True, text=True, check=False
        )
        if said.returncode:
            return said.stdout + said.stderr
    return ""


def test_every_rule_that_is_shipped_is_written_and_promtool_takes_them(tmp_path: Path) -> None:
    text = written(*EVERY.values())
    enabled = {rule.key for rule in EVERY.values() if rule.enabled}
    assert {(one["alert"], one["labels"]["severity"]) for one in of(*EVERY.values())} == enabled
    assert "Not among them" not in text
    assert promtooled(tmp_path, text) == ""


def test_what_is_derived_in_the_ops_database_is_derived_of_what_is_exported() -> None:
    (derived,) = [one for one in collectors.own(capabilities.ALERTING) if one.name == "derived"]
    assert {metric.name for metric in derived.metrics} == set(prometheus.DERIVED)


def test_what_prometheus_cannot_evaluate_is_named() -> None:
    unknown = Rule("mine", "orders_waiting", ">", 5)
    surplus = EVERY["standby_missing", "critical"]
    window = Rule("avg", "slot_unused", ">", 0, evaluation="avg")
    text = written(unknown, surplus, window, known=Known("shop", METRICS))
    assert '#   "mine" (warning): the metric "orders_waiting" is not exported.\n' in text
    assert '#   "standby_missing" (critical): nobody said how many standbys are expected' in text
    assert '#   "avg" (warning): the metric "slot_unused" is not exported.' in text
    assert text.endswith("groups: []\n")
    assert yaml.safe_load(text) == {"groups": []}


def test_values_are_compared_as_they_are_exported_and_told_in_their_own_unit() -> None:
    (percent,) = of(Rule("a", "connections_used_percent", ">", 80, lasts=600, keep_firing_for=90.5))
    assert percent["expr"] == '(pgops_connections_used_ratio{cluster="shop"} > 0.8) * 100'
    assert (percent["for"], percent["keep_firing_for"]) == ("600s", "90500ms")
    (size,) = of(Rule("b", "database_size_mb", "=", 2, labels={"database": 'a"b\\', "node": ""}, lasts=0))
    assert size["expr"] == (
        '(pgops_database_size_bytes{cluster="shop",database="a\\"b\\\\",node="(empty)"} == 2097152) / 1048576'
    )
    assert "for" not in size
    (growth,) = of(Rule("c", "deadlocks", ">=", 5, evaluation="increase", window=300))
    assert growth["expr"] == 'increase(pgops_deadlocks_total{cluster="shop"}[300s]) >= 5'


def test_texts_are_templates_and_nothing_in_them_is_taken_for_one() -> None:
    text = "{metric_value} of {threshold_value} {{x}} at {node} in {database} of {severity} {job}"
    (made,) = of(Rule("r", "waiting_locks", ">", 1.5, text=text))
    assert made["annotations"]["summary"] == (
        '{{ printf "%.6g" $value }} of 1.5 {{ "{" }}{{ $labels.x }}} at {{ $labels.node }} in {{ $labels.database }} '
        "of warning {{ $labels.pgops_job }}"
    )


@given(st.text(max_size=50))
def test_any_text_is_one_that_yaml_reads_back(text: str) -> None:
    line = prometheus.quoted(text)
    assert line.isprintable()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert yaml.safe_load(line) == text


def test_odd_names_are_taken_by_promtool(tmp_path: Path) -> None:
    odd = 'with "quotes", {{ and {{x}} and {{y}}} and \\ and\na line \u202e \U0001f418'
    rule = Rule(odd, "waiting_locks", ">", 1, labels={"database": odd}, clear_threshold=0.5, text=odd)
    assert promtooled(tmp_path, written(rule, known=Known(odd, METRICS))) == ""


MINUTES = 40
DB1, DB2 = 'cluster="shop",node="db1/main"', 'cluster="shop",node="db2/main"'
# By case: the rule, the series by minutes, the minutes in which an alert fires, and its labels.
CASES: dict[str, tuple[tuple[str, str], dict[str, str], Collection[int], dict[str, str]]] = {
    # Above 80 % from minute 3 on, for ten minutes; 77 % is still above the 75 % where it ends, and begins nothing.
    "hysteresis": (
        ("connections", "warning"),
        {f"pgops_connections_used_ratio{{{DB1}}}": "0.5x2 0.85x11 0.77x4 0.75x5 0.77x20"},
        range(13, 20),
        {},
    ),
    "equal_is_not_above": (
        ("connections", "critical"),
        {f"pgops_connections_used_ratio{{{DB1}}}": "0.9x45"},
        (),
        {},
    ),
    "counter": (
        ("deadlocks", "warning"),
        {f'pgops_deadlocks_total{{{DB1},database="shop"}}': "0x6 6x40"},
        range(7, 17),  # five minutes more than the window
        {"database": "shop"},
    ),
    "share": (
        ("cache_hit_ratio", "warning"),
        {
            f'pgops_blocks_hit_total{{{DB1},database="shop"}}': "1000000+8000x45",
            f'pgops_blocks_read_total{{{DB1},database="shop"}}': "1000000+2000x45",
        },
        range(16, MINUTES),
        {"database": "shop"},
    ),
    "share_of_little": (
        ("cache_hit_ratio", "warning"),
        {
            f'pgops_blocks_hit_total{{{DB1},database="shop"}}': "1000000+80x45",
            f'pgops_blocks_read_total{{{DB1},database="shop"}}': "1000000+20x45",
        },
        (),
        {},
    ),
    "standby_missing": (
        ("standby_missing", "critical"),
        {
            f"pgops_standbys_connected{{{DB1}}}": "1x5 0x40",
            f"pgops_server_in_recovery{{{DB1}}}": "0x45",
            f"pgops_standbys_connected{{{DB2}}}": "0x45",
            f"pgops_server_in_recovery{{{DB2}}}": "1x45",
        },
        range(7, MINUTES),
        {},
    ),
    # One that nobody has ever used on a standby waits there for a failover.
    "slot_inactive": (
        ("slot_inactive", "warning"),
        {
            f'pgops_slot_active{{{DB2},slot="kept"}}': "0x45",
            f"pgops_server_in_recovery{{{DB2}}}": "1x45",
            f'pgops_slot_active{{{DB1},slot="lost"}}': "1x5 0x40",
            f"pgops_server_in_recovery{{{DB1}}}": "0x45",
        },
        range(16, MINUTES),
        {"slot": "lost"},
    ),
    # 100 MB a minute, of which there are 4 hours at first; it is told after a quarter of an hour.
    "disk_filling": (
        ("disk_filling", "critical"),
        {f'pgops_disk_free_bytes{{{DB1},disk="data"}}': "24000000000-100000000x45"},
        range(20, MINUTES),
        {"disk": "data"},
    ),
    "lag_that_shrinks": (
        ("replication_lag_not_shrinking", "critical"),
        {f'pgops_replication_lag_bytes{{{DB1},standby="b"}}': "90000000000-1000000000x45"},
        (),
        {},
    ),
    "lag_that_does_not": (
        ("replication_lag_not_shrinking", "critical"),
        {f'pgops_replication_lag_bytes{{{DB1},standby="b"}}': "9000000000x45"},
        range(10, MINUTES),
        {"standby": "b"},
    ),
    "late_agent": (
        ("collector_stale", "warning"),
        {f'pgops_collected_timestamp_seconds{{{DB1},collector="agent"}}': "0+60x10 600x40"},
        range(14, MINUTES),
        {"collector": "agent"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_alerts_fire_and_end_as_ours_do(tmp_path: Path, case: str) -> None:
    (name, severity), series, firing, labels = CASES[case]
    shown = {
        "alertname": name,
        "alertstate": "firing",
        "severity": severity,
        "cluster": "shop",
        "node": "db1/main",
        **labels,
    }
    alert = "ALERTS{" + ",".join(f'{key}="{value}"' for key, value in shown.items()) + "}"
    expected = [
        {
            "expr": f'ALERTS{{alertname="{name}",alertstate="firing"}}',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": alert, "value": 1}] if minute in firing else [],
        }
        for minute in range(MINUTES)
    ]
    given = [{"series": one, "values": values} for one, values in series.items()]
    tests = [{"interval": "1m", "input_series": given, "promql_expr_test": expected}]
    assert promtooled(tmp_path, written(EVERY[name, severity]), tests) == ""
