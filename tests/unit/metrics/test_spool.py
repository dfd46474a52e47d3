# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file of rounds that wait."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.metrics.rounds import Round
from pgops.metrics.spool import Spool

made = st.builds(
    Round,
    place=st.text(max_size=5),
    collected_at=st.just("2026-01-01T00:00:00+00:00"),
    origin=st.text(max_size=5),
    series=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    values=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
)


@given(st.lists(made, min_size=1, max_size=10), st.floats(0, 1))
def test_rounds_come_back_in_order_but_for_one_that_a_crash_cut(rounds: list[Round], part: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(f"{folder}/spool", 10**6)
        assert spool.append(rounds) == (len(rounds), 0)
        assert spool.rounds() == rounds
        *whole, last = Path(spool.path).read_bytes().splitlines(keepends=True)
        torn = last[: int(len(last) * part)]
        Path(spool.path).write_bytes(b"".join([*whole, torn]))
        assert spool.rounds() == (rounds if len(torn) >= len(last) - 1 else rounds[:-1])
        Path(spool.path).write_bytes(b"".join([*whole, last]))
        spool.keep(rounds[1:])
        assert spool.rounds() == rounds[1:]
        spool.keep([])
        assert spool.rounds() == []


def test_a_line_that_a_crash_cut_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    one = Round("c", "now", "o", ("a", "b"), (1.0, 2.0))
    spool = Spool(str(tmp_path / "spool"), 10**6)
    spool.append([one, one])
    os.truncate(spool.path, os.path.getsize(spool.path) - 5)
    spool.append([one])
    assert spool.rounds() == [one, one]


def test_on_a_full_disk_a_collection_is_kept_whole_or_not_at_all_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    one = Round("c", "now", "o", ("a", "b"), (1.0, 2.0))
    spool = Spool(str(tmp_path / "spool"), 10**6)
    spool.prepare()
    spool.append([one])
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(spool.path) + 150, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            spool.append([one, one])
        spool.count_dropped(4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_soft, hard))
    assert spool.rounds() == [one]
    assert spool.dropped() == 4


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    one = Round("c", "now", "o", ("a", "b"), (1.0, 2.0))
    spool = Spool(str(tmp_path / "spool"), 200)
    spool.prepare()
    kept, dropped = spool.append([one, one, one, one])
    assert kept == len(spool.rounds()) == 4 - dropped / 2
    assert spool.dropped() == dropped > 0
    before = spool.dropped()
    spool.append([one])
    assert spool.dropped() == before + 2
