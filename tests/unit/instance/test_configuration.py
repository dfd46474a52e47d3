# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's configuration: what former and newer agents wrote is read, and what no agent knows is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pgops.capabilities import OPTIONS
from pgops.errors import InvalidInput
from pgops.instance.configuration import Configuration, Peer, checked_parts, parse
from pgops.metrics.options import options as monitoring
from pgops.statements.options import options as statements

PLAIN = Configuration("main", "shop", "db1/main", peers=(Peer("db2", 5433),))
FLAT: dict[str, Any] = {
    "instance": "main",
    "cluster": "shop",
    "node": "db1/main",
    "peers": [{"host": "db2", "port": 5433}],
    "collectors": {"disks": {"enabled": False}},
    "retention": {"deadlocks": 90},
    "time_budget": 20.0,
    "spool_bytes": 1000,
    "query_texts": False,
    "slow_query_ms": 250.0,
    "explain": True,
    "repository": "/srv/repository/shop",
    "superuser": "",
}


def read(data: dict[str, Any]) -> Configuration:
    return parse(json.dumps(data), "agent.json")


def test_what_is_written_is_read() -> None:
    assert parse(PLAIN.text(), "agent.json") == PLAIN


@pytest.mark.parametrize("number", [1, 2])
def test_options_of_a_former_agents_file_are_kept(number: int) -> None:
    found = read({"format": number, **FLAT})
    assert (found.peers, found.repository) == (PLAIN.peers, "/srv/repository/shop")
    own, queries = monitoring(found), statements(found)
    assert (own.collectors, own.retention) == (FLAT["collectors"], FLAT["retention"])
    assert (own.time_budget, own.spool_bytes) == (20.0, 1000)
    assert (queries.query_texts, queries.slow_query_ms, queries.explain) == (False, 250.0, True)


def test_what_a_newer_agent_knows_is_left_out() -> None:
    data = {
        **json.loads(PLAIN.text()),
        "moon": 1,
        "parts": {"tides": {"high": 1}, "statements": {"explain": True, "x": 2}},
    }
    assert statements(read(data)).explain
    assert set(read(data).part("statements")) == set(OPTIONS["statements"])


@pytest.mark.parametrize("text", ["", "[]", '{"format": 4}', '{"format": 3}', '{"instance": "main"}'])
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"site\.yml"):
        parse(text, "agent.json")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"statement": {}}, "did you mean statements"),
        ({"statements": {"explian": True}}, "did you mean explain"),
        ({"statements": {"explain": "yes"}}, "of the type bool"),
        ({"statements": {"slow_query_ms": True}}, "of the type float"),
        ({"metrics": {"spool_bytes": "1"}}, "of the type int"),
        ({"metrics": {"collectors": []}}, "of the type dict"),
    ],
)
def test_options_that_no_capability_has_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        checked_parts(given)


def test_options_are_taken_as_they_are() -> None:
    given = {"statements": {"slow_query_ms": 5, "explain": True}, "metrics": {}}
    assert checked_parts(given) == {"statements": given["statements"]}


def test_what_a_file_leaves_out_is_as_usual() -> None:
    for capability, defaults in OPTIONS.items():
        assert PLAIN.part(capability) == defaults
    assert read({"format": 3, "instance": "main", "cluster": "shop", "node": "db1/main"}) == replace(PLAIN, peers=())
    some = replace(PLAIN, parts={"statements": {"explain": True}})
    assert some.part("statements") == {**OPTIONS["statements"], "explain": True}


def test_a_file_is_rewritten_only_where_something_has_changed() -> None:
    one = replace(PLAIN, parts={"metrics": {"spool_bytes": 1}, "statements": {"explain": True}})
    other = replace(PLAIN, parts={"statements": {"explain": True}, "metrics": {"spool_bytes": 1}})
    assert one.text() == other.text() != PLAIN.text()
    assert one.text().endswith("}\n")
