# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is scarce, shared out."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.fairness import level

AMOUNTS = st.lists(st.integers(0, 1000), max_size=9)


@pytest.mark.parametrize(
    ("wanted", "room", "most"),
    [
        ([], 0, inf),
        ([5], 5, inf),
        ([5], 4, 4),
        ([1, 2, 90], 20, 17),
        ([90, 1, 90], 21, 10),
        ([7, 7, 7], 0, 0),
        ([3], -1, 0),
    ],
)
def test_each_gets_what_it_wants_or_an_equal_share(wanted: list[int], room: int, most: float) -> None:
    assert level(wanted, room) == most


@given(AMOUNTS, st.integers(0, 5000))
def test_all_is_shared_out_and_no_more(wanted: list[int], room: int) -> None:
    most = level(wanted, room)
    given_out = sum(min(one, most) for one in wanted)
    assert given_out == pytest.approx(min(sum(wanted), room))
    if most == inf:
        assert sum(wanted) <= room
    else:
        assert most >= room / len(wanted)
