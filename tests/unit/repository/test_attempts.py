# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from pathlib import Path

import pytest

from pgops.repository import attempts
from pgops.repository.attempts import Attempt, Attempts

NOW = datetime(2026, 11, 29, 6, 30, tzinfo=timezone.utc)


def attempt(number: int = 1) -> Attempt:
    return Attempt(str(uuid.UUID(int=number)), "full", "db2/main", "torn", "it was due", NOW)


def test_one_runs_until_it_is_published_or_fails(tmp_path: Path) -> None:
    place = str(tmp_path)
    assert attempts.read(place) == Attempts()
    attempts.begin(place, attempt(1))
    assert attempts.read(place) == Attempts(attempt(1))
    attempts.end(place)
    assert attempts.read(place) == Attempts()
    attempts.begin(place, attempt(2))
    attempts.fail(place, attempt(2), "no room")
    found = attempts.read(place)
    assert (found.running, [one.message for one in found.failed]) == (None, ["no room"])
    attempts.fail(place, attempt(2), "the request of it failed")
    assert attempts.read(place) == found


def test_one_that_is_left_when_the_next_begins_was_killed(tmp_path: Path) -> None:
    attempts.begin(str(tmp_path), attempt(1))
    attempts.begin(str(tmp_path), attempt(2))
    found = attempts.read(str(tmp_path))
    assert found.running == attempt(2)
    assert [(one.id, one.message) for one in found.failed] == [(attempt(1).id, attempts.DIED)]


def test_a_request_that_fails_leaves_the_running_one(tmp_path: Path) -> None:
    attempts.begin(str(tmp_path), attempt(1))
    for number in range(2, 40):
        attempts.fail(str(tmp_path), attempt(number), "no")
    found = attempts.read(str(tmp_path))
    assert found.running == attempt(1)
    assert [one.id for one in found.failed] == [attempt(number).id for number in range(20, 40)]


@pytest.mark.parametrize("field", [{"id": "x"}, {"kind": "x"}, {"started_at": "x"}, {"node": None, "id": 1}])
def test_what_the_ops_database_would_refuse_is_not_read(tmp_path: Path, field: dict[str, object]) -> None:
    attempts.begin(str(tmp_path), attempt(1))
    path = tmp_path / attempts.NOTE
    noted = json.loads(path.read_text())
    path.write_text(json.dumps({**noted, "running": {**noted["running"], **field}}))
    assert attempts.read(str(tmp_path)) == Attempts()


def test_a_text_has_nothing_that_the_ops_database_cannot_store(tmp_path: Path) -> None:
    attempts.begin(str(tmp_path), attempt(1))
    path = tmp_path / attempts.NOTE
    path.write_text(path.read_text().replace("it was due", "it was\\u0000 due"))
    assert attempts.read(str(tmp_path)) == Attempts(attempt(1))
