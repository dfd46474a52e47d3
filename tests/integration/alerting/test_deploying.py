# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_ops_alerts on real servers: what it installs, what it leaves to users, and what it predicts."""

from __future__ import annotations

from typing import Any

import pytest
from deploying import deploy, rule, withdraw
from servers import Server

from pgops.alerting.rules import DEFAULTS
from pgops.errors import Conflict, InvalidInput

OWN = {"name": "orders", "metric": "active_connections", "operator": ">", "threshold": 500.0, "lasts": "10m"}
FOUND = """
SELECT r.rule_name, r.severity_level, r.threshold_value, r.source, r.is_enabled FROM pgops.alert_rules AS r
"""


def found(server: Server, where: str) -> list[tuple[Any, ...]]:
    with server.connect("pgops") as session:
        return session.execute(f"{FOUND} WHERE {where} ORDER BY 1, 2".encode()).fetchall()


def said(server: Server, statement: str, *values: Any) -> None:
    with server.connect("pgops") as session:
        session.execute(statement.encode(), values)


@pytest.mark.every_major
def test_the_shipped_rules_are_installed_once_as_predicted(deployed: Server) -> None:
    predicted = rule(deployed, check=True)
    assert predicted["changed"]
    assert found(deployed, "true") == []
    made = rule(deployed)
    assert made["prediction"] == predicted["prediction"]
    assert len(found(deployed, "r.source = 'shipped'")) == len(DEFAULTS)
    for again in (rule(deployed), rule(deployed, check=True)):
        assert (again["changed"], again["changes"], again["diff"]) == (False, [], [])


def test_a_schema_with_rules_can_be_deployed_again(deployed: Server) -> None:
    rule(deployed)
    assert deploy(deployed)["changes"] == []


def test_rules_are_enabled_with_their_capability(deployed: Server) -> None:
    rule(deployed, capabilities=[])
    assert found(deployed, "r.rule_name = 'backup_age' AND r.is_enabled") == []
    changed = rule(deployed, capabilities=["backup"])
    assert changed["changes"] == [
        "update alert rule backup_age (warning)",
        "update alert rule backup_age (critical)",
        "update alert rule not_recoverable (critical)",
    ]
    assert changed["prediction"][0]["after"] == {"enabled": True}
    assert found(deployed, "r.rule_name = 'database_size' AND r.is_enabled") == []


def test_the_inventory_changes_shipped_rules_and_adds_its_own(deployed: Server) -> None:
    rule(deployed)
    declared = [{"name": "connections", "severity": "warning", "threshold": 70.0}, OWN]
    assert rule(deployed, rules=declared)["changes"] == [
        "update alert rule connections (warning)",
        "create alert rule orders (warning)",
    ]
    assert found(deployed, "r.source = 'inventory'") == [
        ("connections", "warning", 70, "inventory", True),
        ("orders", "warning", 500, "inventory", True),
    ]
    assert not rule(deployed, rules=declared)["changed"]
    back = rule(deployed)
    assert back["changes"] == ["update alert rule connections (warning)", "remove alert rule orders (warning)"]
    assert found(deployed, "r.source = 'inventory'") == []


def test_a_changed_rule_keeps_its_identity_and_tells_when(deployed: Server) -> None:
    rule(deployed, rules=[OWN])
    before = "SELECT rule_id::text, updated_at FROM pgops.alert_rules WHERE rule_name = 'orders'"
    with deployed.connect("pgops") as session:
        first = session.execute(before.encode()).fetchone()
        rule(deployed, rules=[{**OWN, "threshold": 400.0}])
        second = session.execute(before.encode()).fetchone()
    assert first is not None
    assert second is not None
    assert first[0] == second[0]
    assert first[1] < second[1]


def test_a_rule_on_a_metric_that_nobody_measures_is_refused(deployed: Server) -> None:
    wrong = {**OWN, "metric": "active_conections"}
    for check in (True, False):
        with pytest.raises(InvalidInput, match="active_connections"):
            rule(deployed, check=check, rules=[wrong])
    assert found(deployed, "true") == []


def test_a_metric_of_ones_own_collector_can_have_rules(undeployed: Server) -> None:
    collector = "-- collector: orders\n-- metric: orders_waiting\nSELECT 1 AS orders_waiting\n"
    try:
        deploy(undeployed, collectors=[collector])
        assert rule(undeployed, rules=[{**OWN, "metric": "orders_waiting"}])["changed"]
    finally:
        withdraw(undeployed)


def test_what_users_changed_in_sql_stays_and_is_told(deployed: Server) -> None:
    rule(deployed)
    said(deployed, "UPDATE pgops.alert_rules SET threshold_value = 60 WHERE rule_name = 'connections'")
    columns = "(rule_name, metric_name, condition_operator, threshold_value)"
    said(deployed, f"INSERT INTO pgops.alert_rules {columns} VALUES ('mine', 'waiting_locks', '>', 3)")
    again = rule(deployed)
    assert again["changes"] == []
    assert again["user_rules"] == ["connections (critical)", "connections (warning)", "mine (warning)"]
    declared = rule(deployed, rules=[{"name": "connections", "severity": "warning", "threshold": 70.0}])
    assert declared["changes"] == []
    assert "connections (warning)" in declared["warnings"][0]
    said(deployed, "DELETE FROM pgops.alert_rules WHERE rule_name = 'connections'")
    assert len(rule(deployed)["changes"]) == 2


def test_rules_of_the_inventory_are_not_changed_in_sql(deployed: Server) -> None:
    rule(deployed, rules=[OWN])
    for statement in ("DELETE FROM pgops.alert_rules", "UPDATE pgops.alert_rules SET is_enabled = false"):
        with pytest.raises(Exception, match="belongs to the inventory"):
            said(deployed, f"{statement} WHERE rule_name = 'orders'")


def test_absent_takes_all_but_the_rules_of_users(deployed: Server) -> None:
    rule(deployed, rules=[OWN], expected_standbys=2)
    columns = "(rule_name, metric_name, condition_operator, threshold_value)"
    said(deployed, f"INSERT INTO pgops.alert_rules {columns} VALUES ('mine', 'waiting_locks', '>', 3)")
    predicted = rule(deployed, check=True, state="absent")
    assert predicted["prediction"] == rule(deployed, state="absent")["prediction"]
    assert found(deployed, "true") == [("mine", "warning", 3, "user", True)]
    assert not rule(deployed, state="absent")["changed"]


def test_settings_of_alerting(deployed: Server) -> None:
    rule(deployed, expected_standbys=2, retention_days=30)
    assert rule(deployed, expected_standbys=1, retention_days=30)["changes"] == ["update setting expected_standbys"]
    assert rule(deployed, retention_days=30)["changes"] == ["remove setting expected_standbys"]
    # The deployment of the schema leaves them.
    assert deploy(deployed)["changes"] == []


def test_without_a_schema(undeployed: Server) -> None:
    assert len(rule(undeployed, check=True)["changes"]) >= len(DEFAULTS)
    assert rule(undeployed, state="absent")["changes"] == []
    with pytest.raises(Conflict, match="pg_ops_schema"):
        rule(undeployed)


def test_a_rule_that_would_be_new_shows_what_it_would_have_done(deployed: Server) -> None:
    sample = (
        "INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name, collected_at) "
        "VALUES ('waiting_locks', %s, 'shop', date_trunc('minute', now()) - make_interval(mins => %s))"
    )
    # Nine minutes from 100 to 91 minutes ago, and again five from 30 on.
    with deployed.connect("pgops") as session:
        for minute in range(120, 0, -1):
            high = 91 <= minute <= 100 or 25 <= minute <= 30
            session.execute(sample.encode(), [9 if high else 0, minute])
    wanted = {"name": "locks", "metric": "waiting_locks", "operator": ">", "threshold": 5.0, "lasts": "2m"}
    tried = rule(deployed, check=True, rules=[wanted], backtest_days=1)
    (found_locks,) = [one for one in tried["backtests"] if one["rule"] == "locks (warning)"]
    assert (found_locks["fired"], found_locks["error"], found_locks["series"]) == (2, "", ["db1/main, shop"])
    assert found_locks["seconds"] == pytest.approx((10 + 6 - 2 * 2) * 60, abs=120)
    text = tried["diff"][-1]["after"]
    assert "alert rule locks (warning): would have fired 2 times in the last 1 days" in text
    assert {one["error"] for one in tried["backtests"]} == {""}
    assert rule(deployed, rules=[wanted], backtest_days=1)["backtests"] == []
