# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names and places of WAL files; runs, and gaps between them, over timelines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.repository import wal
from pgops.repository.wal import Ancestor, Place, Run

MB = 1 << 20
SIZES = st.sampled_from([MB << power for power in range(11)])


def test_places() -> None:
    assert wal.place("00000002000000030000001F", 16 * MB) == Place(2, (3 << 32) + 0x1F000000, 3 * 256 + 0x1F)
    assert wal.place("0000000200000003000001FF", MB) == Place(2, (3 << 32) + 0x1FF00000, 3 * 4096 + 0x1FF)
    assert wal.place("00000002000000030000001F.partial", 16 * MB) == Place(2, (3 << 32) + 0x1F000000, None)
    assert wal.place("00000002000000030000001F.00000028.backup", 16 * MB) == Place(2, (3 << 32) + 0x1F000028, None)
    assert wal.place("00000002.history", 16 * MB) is None
    assert wal.place("00000002.history.tmp", 16 * MB) is None
    assert wal.lsn((0x16 << 32) + 0xB374D848) == "16/B374D848"


@given(st.integers(1, (1 << 32) - 1), st.integers(0, 1 << 40), SIZES)
def test_a_segments_name_tells_its_place(timeline: int, number: int, size: int) -> None:
    number %= (1 << 32) * ((1 << 32) // size)
    assert wal.place(wal.name(timeline, number, size), size) == Place(timeline, number * size, number)


def test_a_history_file() -> None:
    text = "1\t0/3000000\tno recovery target specified\n\n# words\n2\t1/A0\tbefore 2026-01-01 # 3\nrubbish\n"
    assert wal.ancestry(text) == (Ancestor(1, 0x3000000), Ancestor(2, (1 << 32) + 0xA0))
    assert wal.ancestry("1\tA/3000000\n12\t1F/0\t") == (
        Ancestor(1, (10 << 32) + 0x3000000),
        Ancestor(12, 0x1F << 32),
    )
    # The name of a restore point is anybody's who may make one: only a newline ends a line.
    assert wal.ancestry('1\t0/3000000\tat restore point "\x0b4\t0/1\u20285\t0/2"\n') == (Ancestor(1, 0x3000000),)
    assert wal.ancestry("#1\t0/3\n1 # 0/3\nx\t0/3\n1\t3\n1") == ()
    assert wal.ancestry("") == ()


@pytest.mark.parametrize(
    ("runs", "chain", "missing"),
    [
        ([], [], []),
        ([Run(2, 5, 9)], [Run(2, 5, 9)], []),
        # Timeline 2 begins within segment 5, which is whole on it only.
        ([Run(1, 2, 4), Run(2, 5, 9)], [Run(2, 5, 9), Run(1, 2, 4)], []),
        ([Run(1, 2, 7), Run(2, 5, 9)], [Run(2, 5, 9), Run(1, 2, 4)], []),
        ([Run(1, 2, 3), Run(2, 5, 9)], [Run(2, 5, 9)], [Run(1, 4, 4)]),
        ([Run(1, 2, 4), Run(2, 7, 9)], [Run(2, 7, 9)], [Run(2, 5, 6)]),
        ([Run(1, 1, 1), Run(1, 3, 4), Run(2, 5, 9)], [Run(2, 5, 9), Run(1, 3, 4)], [Run(1, 2, 2)]),
        ([Run(1, 2, 4), Run(2, 5, 6), Run(2, 8, 9)], [Run(2, 8, 9)], [Run(2, 7, 7)]),
        # What the old primary still wrote after it had been left.
        ([Run(1, 8, 9), Run(2, 5, 9)], [Run(2, 5, 9)], []),
        ([Run(1, 2, 4), Run(1, 8, 9), Run(2, 5, 9)], [Run(2, 5, 9), Run(1, 2, 4)], [Run(1, 5, 7)]),
        # A timeline that nothing comes from.
        ([Run(2, 5, 9), Run(3, 6, 6), Run(3, 8, 8)], [Run(2, 5, 9)], [Run(3, 7, 7)]),
        # The old primary went on before it was left: what it has of the new timeline's segments leads nowhere.
        ([Run(1, 2, 5), Run(2, 5, 9)], [Run(2, 5, 9), Run(1, 2, 4)], []),
        ([Run(1, 5, 7), Run(2, 5, 9)], [Run(2, 5, 9)], []),
        ([Run(1, 2, 7), Run(2, 6, 9)], [Run(2, 6, 9)], [Run(2, 5, 5)]),
        ([Run(1, 2, 7), Run(2, 7, 9)], [Run(2, 7, 9)], [Run(2, 5, 6)]),
        # A single segment, on either side.
        ([Run(1, 2, 4), Run(2, 6, 9)], [Run(2, 6, 9)], [Run(2, 5, 5)]),
        ([Run(1, 4, 4), Run(2, 5, 5)], [Run(2, 5, 5), Run(1, 4, 4)], []),
        ([Run(1, 2, 2), Run(2, 5, 5)], [Run(2, 5, 5)], [Run(1, 3, 4)]),
        # Archiving began after the promotion.
        ([Run(2, 7, 9)], [Run(2, 7, 9)], []),
        # It was just promoted.
        ([Run(1, 2, 4)], [Run(1, 2, 4)], []),
        ([Run(1, 2, 7)], [Run(1, 2, 4)], []),
        ([Run(1, 2, 3)], [], []),
    ],
)
def test_runs_and_gaps(runs: list[Run], chain: list[Run], missing: list[Run]) -> None:
    ancestors = (Ancestor(1, 5 * MB + 77),)
    assert wal.continuous(runs, 2, ancestors, MB) == tuple(chain)
    assert wal.gaps(runs, 2, ancestors, MB) == tuple(missing)


def test_a_gap_before_the_promotion_before_last_is_one_too() -> None:
    ancestors = (Ancestor(1, 5 * MB + 77), Ancestor(2, 8 * MB + 5))
    whole = [Run(1, 2, 4), Run(2, 5, 7), Run(3, 8, 9)]
    assert wal.continuous(whole, 3, ancestors, MB) == (Run(3, 8, 9), Run(2, 5, 7), Run(1, 2, 4))
    assert not wal.gaps(whole, 3, ancestors, MB)
    early = [Run(1, 2, 3), Run(2, 5, 7), Run(3, 8, 9)]
    assert wal.continuous(early, 3, ancestors, MB) == (Run(3, 8, 9), Run(2, 5, 7))
    assert wal.gaps(early, 3, ancestors, MB) == (Run(1, 4, 4),)
    both = [Run(1, 2, 4), Run(2, 6, 6), Run(3, 9, 9)]
    assert wal.continuous(both, 3, ancestors, MB) == (Run(3, 9, 9),)
    assert wal.gaps(both, 3, ancestors, MB) == (Run(2, 5, 5), Run(2, 7, 7), Run(3, 8, 8))
    # The gap of a later promotion is found though nothing is known of the first.
    late = [Run(2, 5, 7), Run(3, 9, 9)]
    assert wal.gaps(late, 3, ancestors, MB) == (Run(3, 8, 8),)
    # What the old primary has of the new timeline's segments proves nothing.
    assert not wal.gaps([Run(1, 5, 9), Run(2, 6, 7), Run(3, 8, 9)], 3, ancestors, MB)
    # Nothing of the timeline in between, which may have been short.
    assert not wal.gaps([Run(1, 2, 4), Run(3, 8, 9)], 3, ancestors, MB)


def test_promotions_within_one_segment() -> None:
    runs, ancestors = [Run(1, 2, 4), Run(3, 5, 6)], [Ancestor(1, 5 * MB + 7), Ancestor(2, 5 * MB + 9)]
    assert wal.continuous(runs, 3, ancestors, MB) == (Run(3, 5, 6), Run(1, 2, 4))
    assert not wal.gaps(runs, 3, ancestors, MB)


def test_the_end_of_a_timeline_at_the_end_of_a_segment() -> None:
    runs = [Run(1, 2, 4), Run(2, 5, 5)]
    assert wal.continuous(runs, 2, [Ancestor(1, 5 * MB)], MB) == (Run(2, 5, 5), Run(1, 2, 4))
    assert not wal.gaps(runs, 2, [Ancestor(1, 5 * MB)], MB)


@given(st.sets(st.integers(0, 60)), st.integers(0, 60))
def test_every_missing_segment_is_in_a_gap_and_no_other(numbers: set[int], start: int) -> None:
    runs = [
        Run(1, number, next(end for end in range(number, 99) if end + 1 not in numbers))
        for number in sorted(numbers)
        if number - 1 not in numbers
    ]
    gaps = wal.gaps(runs, 1, (), MB)
    missing = {number for gap in gaps for number in range(gap.first, gap.last + 1)}
    expected = set(range(min(numbers), max(numbers) + 1)) - numbers if numbers else set()
    assert missing == expected
    (newest,) = wal.continuous(runs, 1, (), MB) or (Run(1, start, start - 1),)
    assert all(number in numbers for number in range(newest.first, newest.last + 1))
