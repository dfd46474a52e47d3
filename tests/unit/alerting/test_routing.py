# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Channels that inventories declare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import artifact
import pytest

from pgops.alerting import routing
from pgops.alerting.routing import Present, Route
from pgops.errors import InvalidInput


def one(**given: Any) -> Route:
    (found,) = routing.declared([{"name": "desk", **given}]).values()
    return found


def test_a_channel_has_defaults() -> None:
    assert one() == one(severities=["info", "warning", "critical"], labels={}, fallback=None) == Route("desk")
    assert one(repeat_interval="1h", labels={"level": 1}).shown()["repeat_interval"] == 3600
    assert one(severities=["critical", "warning"]).shown()["severities"] == ["warning", "critical"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "a b"}, "has the name 'a b'"),
        ({"name": ""}, "has the name ''"),
        ({"severitys": []}, "did you mean severities"),
        ({"kind": "slack"}, "kind is one of apprise alertmanager"),
        ({"severities": ["fatal"]}, "severities are some of"),
        ({"severities": []}, "severities are some of"),
        ({"group_interval": "2d"}, "group_interval is at most a day"),
        ({"repeat_interval": "30s"}, "repeat_interval a minute to 31 days"),
        ({"repeat_interval": "often"}, "is not a duration"),
        ({"attempts": 0}, "are 1 to 100"),
        ({"fallback": "desk"}, "its own fallback"),
    ],
)
def test_what_no_channel_can_be_is_refused(given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        one(**given)


def test_channels_are_declared_once_and_are_not_too_many() -> None:
    with pytest.raises(InvalidInput, match="more than once"):
        routing.declared([{"name": "desk"}, {"name": "desk"}])
    with pytest.raises(InvalidInput, match="at most 200"):
        routing.declared([{"name": f"c{number}"} for number in range(201)])


def test_an_alertmanager_is_nobodys_fallback() -> None:
    routes = routing.declared([{"name": "am", "kind": "alertmanager"}, {"name": "desk", "fallback": "am"}])
    with pytest.raises(InvalidInput, match="is an Alertmanager"):
        routing.refuse_unknown(routes, (), {})
    routing.refuse_unknown({"desk": Route("desk", fallback="theirs")}, ["theirs"], {"rule": ["desk", "theirs"]})


@pytest.mark.parametrize(
    "given", [{"default": False}, {"labels": {"node": "a"}}, {"severities": ["warning"]}, {"enabled": False}]
)
def test_it_is_said_where_nobody_may_be_told_of_what_is_critical(given: Mapping[str, Any]) -> None:
    (warning,) = routing.warnings({"desk": one(**given)}, Present())
    assert "default for critical alerts" in warning
    assert routing.warnings({"desk": one(**given), "all": Route("all")}, Present()) == ()
    assert routing.warnings({}, Present()) == ()


def test_the_module_takes_what_a_channel_has() -> None:
    text = (artifact.ROOT / "plugins" / "modules" / "pg_ops_alerts.py").read_text()
    options = re.findall(r'^    "(\w+)": {"type"', text.partition("CHANNEL = {")[2].partition("\n}")[0], re.MULTILINE)
    assert set(options) == routing.NAMES


def test_what_is_no_channel_of_the_ops_database_only_has_addresses() -> None:
    routes = {"alive": Route("alive", kind="heartbeat")}
    assert routing.plan(Present(), routes) == ()
    assert routing.warnings(routes, Present()) == ()
    with pytest.raises(InvalidInput, match="declared nowhere: alive"):
        routing.refuse_unknown(routes, (), {"rule": ["alive"]})
