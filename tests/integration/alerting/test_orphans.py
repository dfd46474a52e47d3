# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An alert ends, and its end is told, where its rule, its metric or its node goes while it fires."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import collect, rule
from notified import Notified
from servers import Server

from pgops.metrics import collectors
from pgops.metrics.collectors import Collector

DAY = 86_400
GONE, DISABLED = "Nothing has been measured any more.", "The rule was removed or disabled."
LEFT, UNSEEN = "The rule is no longer about it.", "Its node has not been seen for a week."
OPEN = "SELECT rule_name, node FROM pgops.alert_history WHERE ended_at IS NULL ORDER BY 1, 2"
LOADED = {"name": "loaded", "metric": "load", "operator": ">", "threshold": 5.0, "lasts": "0", "window": "1d"}
ORDERS = """
-- collector: orders
-- scope: instance
-- metric: {metric} unit=count kind=gauge category=capacity
--   How many orders wait.
SELECT 9 AS {metric}
"""


@pytest.fixture(name="notified")
def _notified(deployed: Server) -> Iterator[Notified]:
    with deployed.connect("pgops") as session:
        notified = Notified(session)
        notified.channel(group_interval="0")
        yield notified


def ends(notified: Notified) -> list[tuple[Any, ...]]:
    """How all alerts have ended, and that nothing is left of them."""
    assert notified.rows(OPEN) == []
    assert notified.value("SELECT count(*) FROM pgops.alert_state") == 0
    return notified.rows("SELECT alert_status, reason FROM pgops.alert_history ORDER BY started_at")


def test_a_rule_that_the_inventory_removes(deployed: Server, notified: Notified) -> None:
    rule(deployed, rules=[LOADED], channels=[])
    notified.fire(0, "shop")
    assert notified.told() == [[("firing", "shop")]]
    rule(deployed)
    assert notified.at(60) == 1
    assert notified.told() == [[("resolved", "shop")]]
    assert ends(notified) == [("resolved", DISABLED)]


def test_a_rule_that_is_no_more_about_a_series(notified: Notified) -> None:
    """Also one that fires where nothing is measured: it would do so for ever."""
    notified.rule(missing_data="fire")
    notified.fire(0, "shop", "bank")
    assert notified.told() == [[("firing", "bank"), ("firing", "shop")]]
    notified.session.execute(b"""UPDATE pgops.alert_rules SET labels = '{"database": "bank"}'""")
    assert notified.at(60) == 1
    assert notified.told() == [[("repeated", "bank"), ("resolved", "shop")]]
    notified.load(120, 1, metric="other")
    notified.session.execute(b"UPDATE pgops.alert_rules SET metric_name = 'other', labels = '{}'")
    notified.at(120)
    assert notified.told() == [[("resolved", "bank")]]
    assert ends(notified) == [("resolved", LEFT)] * 2


def orders(metric: str) -> Collector:
    """A collector of a user's own."""
    return collectors.parse(ORDERS.format(metric=metric).lstrip(), "orders.sql")


def test_a_metric_that_is_renamed(deployed: Server, notified: Notified, tmp_path: Path) -> None:
    """What is no longer measured ends after a day, and at once where its rule is renamed as well."""
    assert collect(deployed, tmp_path, found=[orders("orders_wait")])["errors"] == []
    notified.session.execute(b"DELETE FROM pgops.alert_rules")
    for name in ("waiting", "also_waiting"):
        notified.rule(name, metric_name="orders_wait", evaluation_window="5 minutes")
    notified.start = notified.value("SELECT now()")
    assert notified.at(1) == 2
    assert collect(deployed, tmp_path, found=[orders("orders_waiting")])["errors"] == []
    notified.session.execute(
        b"UPDATE pgops.alert_rules SET metric_name = 'orders_waiting' WHERE rule_name = 'waiting'"
    )
    notified.at(30)
    history = "SELECT rule_name, metric_name, alert_status, reason FROM pgops.alert_history ORDER BY 1, 2"
    assert notified.rows(history) == [
        ("also_waiting", "orders_wait", "firing", None),
        ("waiting", "orders_wait", "resolved", LEFT),
        ("waiting", "orders_waiting", "firing", None),
    ]
    notified.at(600)
    notified.at(DAY + 700)
    assert notified.rows(history)[0] == ("also_waiting", "orders_wait", "resolved", GONE)


STANDBY = "SELECT pgops.register_node('shop', 'db2/main', '1', false, '')"
DEFINE = """
SELECT pgops.define_shape(%s, '\\x01', '[]', '[{"metric": "load", "database": "shop"}]')
"""
STORE = "SELECT pgops.store_round(%s, '\\x01', 'here', %s, '{9}')"
REPORT = """
SELECT
    pgops.define_shape(
        %s, '\\x02', '[]', '[{"metric": "collector_errors", "other": {"collector": "connections"}}]'
    ),
    pgops.store_round(%s, '\\x02', 'here', %s, '{0}')
"""
SEEN = "UPDATE pgops.node SET last_seen_at = %s WHERE node_id = %s"
USED = "UPDATE pgops.shape SET last_used_on = %s WHERE node_id = %s"


def test_a_node_that_is_removed(deployed: Server, notified: Notified) -> None:
    """Nobody says that it was meant; so it is told to be gone for a week, and then no longer."""
    rule(deployed)
    notified.rule("loaded")
    notified.rule("silent", missing_data="fire", evaluation_window="5 minutes")
    node, start = notified.value(STANDBY), notified.value("SELECT now() - interval '9 days'")
    notified.value(DEFINE, node)
    notified.value(STORE, node, start)
    notified.session.execute(REPORT.encode(), [node, node, start])
    for said in (SEEN, USED):
        notified.session.execute(said.encode(), [start, node])

    def after(days: float) -> set[str]:
        moment = notified.value("SELECT %s::timestamptz + make_interval(secs => %s)", start, days * DAY)
        notified.value("SELECT pgops.derive_metrics(%s)", moment)
        notified.value("SELECT pgops.evaluate_alerts_at(%s)", moment)
        return {name for name, node in notified.rows(OPEN) if node == "db2/main"}

    assert after(0.001) == {"loaded", "silent"}
    assert after(0.5) == {"loaded", "silent", "collector_stale"}
    assert after(1.5) == {"loaded", "silent", "collector_stale"}
    assert after(2.6) == {"silent", "collector_stale"}
    assert after(6.9) == {"silent", "collector_stale"}
    after(7.1)
    after(8.2)
    assert after(8.3) == set()
    ended = "SELECT reason FROM pgops.alert_history WHERE node = 'db2/main' AND rule_name = 'silent'"
    assert notified.rows(ended) == [(UNSEEN,)]
