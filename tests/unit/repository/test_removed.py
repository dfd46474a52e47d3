# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What we have removed from a repository is noted in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import HostFailed
from pgops.repository import removed
from pgops.repository.wal import Run

runs = st.builds(
    lambda timeline, first, count: Run(timeline, first, first + count), st.integers(1, 3), *2 * [st.integers(0, 9)]
)


@given(st.lists(runs))
def test_merged_runs_are_the_same_segments(given_runs: list[Run]) -> None:
    merged = removed._merged(given_runs)
    segments = {(run.timeline, number) for run in given_runs for number in range(run.first, run.last + 1)}
    assert {(run.timeline, number) for run in merged for number in range(run.first, run.last + 1)} == segments
    assert all(one.timeline < other.timeline or one.last + 1 < other.first for one, other in zip(merged, merged[1:]))
    noted = removed.Removed(runs=tuple(merged))
    assert {(t, n) for t in range(5) for n in range(25) if noted.has(t, n)} == segments


def test_notes_add_up(tmp_path: Path) -> None:
    place = str(tmp_path)
    assert removed.read(place) == removed.Removed()
    removed.note(place, ["a"], [Run(1, 1, 3)])
    removed.note(place, ["b", "a"], [Run(1, 4, 4), Run(2, 4, 4)])
    assert removed.read(place) == removed.Removed(("b", "a"), (Run(1, 1, 4), Run(2, 4, 4)))


def test_they_are_bounded_and_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed, "MOST_BACKUPS", 2)
    monkeypatch.setattr(removed, "MOST_RUNS", 2)
    for number in range(4):
        removed.note(str(tmp_path), [str(number)], [Run(1, 2 * number, 2 * number)])
    assert removed.read(str(tmp_path)) == removed.Removed(("2", "3"), (Run(1, 4, 4), Run(1, 6, 6)))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"backups": []}', '{"backups": [], "wal": [[1]]}'])
def test_a_damaged_note_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / removed.NOTE).write_text(text)
    with pytest.raises(HostFailed, match="is damaged"):
        removed.read(str(tmp_path))
