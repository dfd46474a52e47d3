# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses that inventories declare: no error, and no result of a module, has a part of one."""

from __future__ import annotations

from typing import Any

import pytest

from pgops import secrecy
from pgops.alerting import addresses
from pgops.alerting.routing import Route
from pgops.errors import InvalidInput

TOKEN = "TIiajkdnlazkcOXrIdevi7FQ"
ROUTES = {"desk": Route("desk"), "am": Route("am", kind="alertmanager")}
SPEC = {"addresses": {"type": "raw", "no_log": True}}


def test_they_have_the_kinds_of_their_channels() -> None:
    given = {"desk": {"chat": f"slack://A/B/{TOKEN}"}, "am": {"one": "https://user:pass@am.example.com/alerts"}}
    found = addresses.declared(given, ROUTES)
    assert {name: channel.kind for name, channel in found.items()} == {"desk": "apprise", "am": "alertmanager"}
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (f"slack://{TOKEN}", "is not a mapping of channels"),
        ({"dsk": {"chat": f"slack://{TOKEN}"}}, "did you mean desk"),
        ({"desk": f"slack://{TOKEN}"}, "not a mapping of targets to URLs"),
        ({"desk": {}}, "not a mapping of targets to URLs"),
        ({"desk": {f"slack://{TOKEN}": "chat"}}, "A target of channel desk has a name"),
        ({"desk": {"chat": TOKEN}}, "The address chat of channel desk is not a URL"),
        ({"desk": {"chat": 5}}, "is not a URL"),
        ({"desk": {"chat": f"slack://a\n{TOKEN}"}}, "is not a URL"),
        ({"am": {"one": f"slack://{TOKEN}"}}, "is not that of an Alertmanager"),
        ({"am": {"one": f"http://[{TOKEN}"}}, "is not that of an Alertmanager"),
        ({"am": {"one": f"http:///{TOKEN}"}}, "is not that of an Alertmanager"),
    ],
)
def test_what_none_can_be_is_refused_without_showing_it(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as raised:
        addresses.declared(given, ROUTES)
    assert TOKEN not in str(raised.value)
    assert raised.value.__cause__ is None


def test_no_result_of_a_module_may_contain_one() -> None:
    url = f"slack://A/B/{TOKEN}"
    assert secrecy.forbidden({"addresses": {"desk": {"chat": url}}}, SPEC) == {url}
