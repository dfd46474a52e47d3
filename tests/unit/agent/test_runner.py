# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a line of the log says of a job's errors."""

from __future__ import annotations

from typing import Any

import pytest

from pgops.agent.runner import LONGEST, MOST, brief

ERRORS = [f"database {number}: refused" for number in range(MOST + 7)]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ({}, {}),
        ({"errors": []}, {}),
        ({"errors": ERRORS[:MOST]}, {"errors": ERRORS[:MOST]}),
        ({"errors": ERRORS}, {"errors": [*ERRORS[:MOST], "7 more errors"]}),
        ({"errors": ["x" * 5000]}, {"errors": ["x" * LONGEST]}),
    ],
)
def test_a_line_has_so_many_errors_and_the_number_of_all_others(
    outcome: dict[str, Any], told: dict[str, Any]
) -> None:
    assert brief(outcome) == told
