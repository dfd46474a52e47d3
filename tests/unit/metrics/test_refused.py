# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a refused session says of its server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgops.errors import LoginRefused, Unreachable
from pgops.instance.layout import Layout
from pgops.metrics import collectors, refused
from pgops.metrics.spool import Spool

FULL, OTHER = LoginRefused("sorry", full=True), LoginRefused("role is not permitted to log in")
MB = 1024 * 1024


def test_only_one_that_says_so_is_full() -> None:
    assert refused.values(FULL) == {"login_refused": 1, "connections_used_percent": 100}
    assert refused.values(OTHER) == {"login_refused": 1}


def test_what_is_measured_are_metrics() -> None:
    assert refused.REFUSED in {metric.name for metric in collectors.LOGIN.metrics}


def test_each_value_is_a_round_of_its_own_with_its_own_time() -> None:
    found = refused.rounds(refused.values(FULL), 60.0)
    assert [(one.collected_at, json.loads(one.series[0])["metric"], one.values) for one in found] == [
        ("1970-01-01T00:01:00+00:00", "login_refused", (1.0,)),
        ("1970-01-01T00:01:00+00:00", "connections_used_percent", (100.0,)),
    ]
    assert {one.origin for one in found} == {"- - -"}


def ask(folder: Path, error: Exception, limit: int = MB) -> Spool:
    """Ask for a session that there is none of; the spool."""
    layout = Layout("main", str(folder))
    Path(layout.state).mkdir(parents=True)
    waiting = Spool(f"{layout.state}/spool.jsonl", limit)
    with pytest.raises(type(error)), refused.noted(layout, waiting, 60.0):
        raise error
    return waiting


def test_a_refusal_waits_to_be_delivered(tmp_path: Path) -> None:
    assert [one.samples for one in ask(tmp_path, FULL).rounds()] == [1, 1]


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    waiting = ask(tmp_path, FULL, limit=10)
    assert (waiting.rounds(), waiting.dropped()) == ([], 2)


def test_a_server_that_is_down_refuses_nothing(tmp_path: Path) -> None:
    assert ask(tmp_path, Unreachable("down")).rounds() == []
