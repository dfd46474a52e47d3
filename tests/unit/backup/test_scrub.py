# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.backup import records, scrub
from pgops.repository import damage, segments, wal
from pgops.repository.damage import Damage, Reading
from pgops.repository.stanza import Stanza, StoredWal
from pgops.repository.wal import Run

NOW = datetime(2026, 11, 29, 6, 30, tzinfo=timezone.utc)
SEGMENTS = st.sets(st.tuples(st.integers(1, 3), st.integers(0, 40)), min_size=1)


def numbers(*parts: tuple[Run, ...]) -> list[tuple[int, int]]:
    return [(run.timeline, n) for runs in parts for run in runs for n in range(run.first, run.last + 1)]


@given(SEGMENTS, st.tuples(st.integers(0, 4), st.integers(0, 40)), st.floats(0.01, 1))
def test_a_portion_goes_on_where_the_last_one_ended(
    there: set[tuple[int, int]], after: tuple[int, int], part: float
) -> None:
    behind, before = scrub.portion(wal.runs(there), after, part)
    ordered = sorted(there)
    cycle = [one for one in ordered if one > after] + [one for one in ordered if one <= after]
    found = numbers(behind, before)
    assert found == cycle[: len(found)]
    assert len(found) >= len(there) * part
    assert (numbers(behind), numbers(before)) == (
        [one for one in found if one > after],
        [one for one in found if one <= after],
    )


@given(SEGMENTS, st.lists(st.floats(0.5, 1.5), min_size=14, max_size=14))
def test_all_is_read_within_the_days(there: set[tuple[int, int]], pauses: list[float]) -> None:
    """With a run each day or so, no segment waits for longer."""
    reading, now = Reading(), NOW
    read_at = dict.fromkeys(there, now)
    for pause in pauses:
        now += timedelta(days=pause)
        part = scrub.share(reading, 7, now)
        place = (int(reading.after[:8], 16), int(reading.after[16:], 16)) if reading.after else (0, 0)
        found = numbers(*scrub.portion(wal.runs(there), place, part))
        read_at.update(dict.fromkeys(found, now))
        reading = Reading(f"{found[-1][0]:08X}{0:08X}{found[-1][1]:08X}", now)
        assert max(now - one for one in read_at.values()) <= timedelta(days=7 + 1.5)


def test_a_clock_that_was_set_back_reads_as_usual() -> None:
    assert scrub.share(Reading(at=NOW + timedelta(days=100)), 7, NOW) == pytest.approx(1 / 6)
    assert scrub.share(Reading(), 7, NOW) == pytest.approx(1 / 6)
    assert scrub.share(Reading(at=NOW - timedelta(days=30)), 7, NOW) == 1
    assert scrub.share(Reading(at=NOW - timedelta(hours=1)), 1, NOW) == pytest.approx(1 / 24)


def test_what_was_found_is_noted_and_read_again(tmp_path: Path) -> None:
    found = Reading("000000010000000000000004", NOW, NOW, {"000000010000000000000003": Damage("torn", "ab", "cd", 7)})
    damage.note(str(tmp_path), found)
    assert damage.read(str(tmp_path)) == found
    found = found.finding(found.damaged)
    damage.note(str(tmp_path), found)
    assert damage.read(str(tmp_path)) == found
    # It is known which content was bad, also once another is there.
    assert found.finding({}).bad == {"000000010000000000000003": "ab"}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"after": 1}', '{"after": "", "at": "x"}'),
        '{"after": "", "at": null, "complete_at": null, "damaged": {}, "bad": {"../\\u0000": "ab"}}',
        '{"after": "", "at": null, "complete_at": null, "damaged": {}, "bad": {"000000010000000000000003": "x"}}',
    ],
)
def test_a_note_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "wal.json").write_text(text)
    assert damage.read(str(tmp_path)) == Reading()


def test_damage_is_of_a_content_and_not_of_a_name(tmp_path: Path) -> None:
    name = "000000010000000000000003"
    folder = tmp_path / "1-18" / "wal" / name[:16]
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"rotten")
    noted = Reading(damaged={name: Damage("torn", segments.digest(str(folder / name)))})
    assert damage.still(str(tmp_path), "1-18", noted) == {name: "torn"}
    (folder / name).write_bytes(b"a good copy")
    assert damage.still(str(tmp_path), "1-18", noted) == {}
    (folder / name).unlink()
    assert damage.still(str(tmp_path), "1-18", noted) == {}


def test_of_a_stanza_a_file_is_known_by_its_size_and_time(tmp_path: Path) -> None:
    name = "000000010000000000000003"
    one = StoredWal(f"archive/shop/18-1/{name[:16]}/{name}-{'a' * 40}", 70_000, 1.0, "a" * 40)
    there = damage.in_stanza(Stanza("shop", "", "1-18", _wal={name: one}), name)
    assert there == damage.in_stanza(Stanza("shop", "", "1-18", _wal={name: one}), name)
    for other in (replace(one, size=70_001), replace(one, modified=2.0)):
        assert damage.in_stanza(Stanza("shop", "", "1-18", _wal={name: other}), name) != there
    assert damage.in_stanza(Stanza("shop", "", "1-18", _wal={}), name) == ""
    # Where there is none, the segment is gone.
    assert damage.still(str(tmp_path), "1-18", Reading(damaged={name: Damage("torn", there)})) == {}


@pytest.mark.parametrize(
    ("left", "end"),
    [
        (1, 48),
        (8192 - 40, 8192),
        (8192 - 40 + 1, 8192 + 24 + 8),
        (8192 - 40 + 8192 - 24, 16384),
        # Into the next segment, whose first page has the long header.
        (8192 - 40 + 127 * (8192 - 24) + 1, (1 << 20) + 40 + 8),
    ],
)
def test_where_a_record_ends(left: int, end: int) -> None:
    assert records.carried(0, left, 1 << 20, 8192) == end
