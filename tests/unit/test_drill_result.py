# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook `drill` says of each host what came of its drill."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.pgops.fleet.plugins.filter.drills import drill_result

PASSED = {"status": "passed", "backup": "b1", "rto_seconds": 12.34, "rpo_seconds": 0.0, "errors": []}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (PASSED, "Passed with backup b1: recovered in 12.3 s, and at most 0.0 s would have been lost."),
        ({"skipped": "standby: the primary has drills", "errors": []}, "Skipped: standby: the primary has drills."),
        ({"status": "failed", "errors": ["The drill failed (plan): no."]}, "The drill failed (plan): no."),
        ({"ok": False, "error": "Another run is using it."}, "Another run is using it."),
        ({"ok": False}, "The drill said nothing."),
    ],
)
def test_what_the_command_says_is_a_sentence(told: dict[str, Any], said: str) -> None:
    assert drill_result({"stdout": f"{json.dumps(told)}\n"}) == said


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"stdout": "", "stderr": "pgops: unknown\ninstance"}, "No drill was made: pgops: unknown instance"),
        ({"msg": "No such file"}, "No drill was made: No such file"),
        ({}, "No drill was made: pgops said nothing."),
    ],
)
def test_a_command_that_does_not_come_so_far_is_told(result: dict[str, Any], said: str) -> None:
    assert drill_result(result) == said
