# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a restore will take, by those before it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeping import manifest

from pgops.repository import restores
from pgops.repository.backups import Kept
from pgops.repository.restores import Done, Forecast, Part, Speed
from pgops.repository.stanza import LAYOUT

GB = 10**9
NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
SEGMENT = 1 << 24
FULL = {"started_at": NOON, "completed_at": NOON + timedelta(seconds=200), "segment_bytes": SEGMENT}
PHASES = {"plan": 2.0, "copy": 50.0, "verify": 20.0, "sync": 5.0, "configure": 1.0, "recover": 10.0, "promote": 2.0}
BEFORE = Done("here", 5 * GB, GB, False, PHASES)


def kept(data: int, **other: Any) -> Kept:
    return Kept("one", manifest(**{**FULL, "data_bytes": data, **other}))


def parts(chain: Sequence[Kept], wal: int, *before: Done) -> dict[str, tuple[float, str]]:
    found = restores.forecast(chain, wal // SEGMENT, restores.speeds(before, "here"))
    assert found.seconds == pytest.approx(sum(one.seconds for one in found.parts), abs=0.5)
    return {one.part: (round(one.seconds), one.basis) for one in found.parts}


def test_a_first_restore_is_guessed_and_copied_as_fast_as_it_was_backed_up() -> None:
    assert parts([kept(10 * GB)], 4 * GB) == {
        "select": (5, "assumed"),
        "copy": (200, "backup"),
        "verify": (67, "assumed"),
        "replay": (100, "assumed"),
        "start": (10, "assumed"),
    }


def test_another_one_takes_as_long_for_its_size() -> None:
    assert parts([kept(10 * GB)], 2 * GB, BEFORE) == {
        "select": (2, "here"),
        "copy": (100, "here"),
        "verify": (50, "here"),
        "replay": (20, "here"),
        "start": (3, "here"),
    }


def test_what_was_done_on_the_same_host_counts_first() -> None:
    slow = Done("there", 5 * GB, GB, False, {**PHASES, "copy": 5000.0})
    assert parts([kept(5 * GB)], GB, slow)["copy"] == (5000, "elsewhere")
    assert parts([kept(5 * GB)], GB, slow, BEFORE)["copy"] == (50, "here")


def test_a_part_that_the_host_does_not_know_is_known_from_others() -> None:
    """A restore here that was too small for a rate, or of another kind, hides none that was measured elsewhere."""
    tiny = Done("here", 1000, 1000, False, PHASES)
    found = parts([kept(5 * GB)], GB, Done("there", 5 * GB, GB, False, PHASES), tiny)
    assert found["copy"] == (50, "elsewhere")
    assert found["select"] == (2, "here")


def test_a_chain_is_combined_and_a_tiny_restore_tells_no_rate() -> None:
    chain = [kept(10 * GB), kept(6 * GB, kind="incremental")]
    assert parts(chain, GB, BEFORE)["combine"] == (100, "assumed")
    assert "copy" not in parts(chain, GB, BEFORE)
    tiny = Done("here", 1000, 1000, False, PHASES)
    assert parts([kept(10 * GB)], GB, tiny)["copy"] == (200, "backup")


def test_what_pgbackrest_copies_in_one_go_takes_as_long_as_the_full_backup_did() -> None:
    """And not as long as the changes alone took."""
    quick = {"kind": "incremental", "layout": LAYOUT, "completed_at": NOON + timedelta(seconds=1)}
    found = parts([kept(10 * GB, layout=LAYOUT), kept(20 * GB, **quick)], GB)
    assert found["copy"] == (400, "backup")
    assert "combine" not in found


def test_the_whole_is_known_as_well_as_its_weakest_part() -> None:
    found = Forecast((Part("copy", 1.0, "here"), Part("verify", 2.0, "backup"), Part("replay", 3.0, "elsewhere")))
    assert (found.seconds, found.basis) == (6.0, "backup")


def test_what_is_recorded_of_speeds() -> None:
    assert restores.shown({"copy": Speed(1e8, "here"), "start": Speed(3.0, "elsewhere")}) == {
        "copy": {"bytes_per_second": 100_000_000, "basis": "here"},
        "start": {"seconds": 3.0, "basis": "elsewhere"},
    }


@given(st.integers(0, 10**15), st.integers(0, 10**8), st.booleans())
def test_more_takes_longer(data: int, segments: int, combined: bool) -> None:
    def seconds(times: int) -> float:
        chain = [kept(data * times), *([kept(data * times, kind="incremental")] if combined else [])]
        return restores.forecast(chain, segments * times, restores.speeds([BEFORE], "here")).seconds

    assert seconds(2) >= seconds(1) > 0


def test_the_last_restores_are_remembered(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    assert restores.read(str(tmp_path), "g") == ()
    for number in range(restores.MOST + 3):
        restores.note(str(tmp_path), "g", Done("here", number, 1, False, PHASES))
    found = restores.read(str(tmp_path), "g")
    assert [one.data for one in found] == list(range(3, restores.MOST + 3))
    assert found[0].phases == PHASES
    restores.note(str(tmp_path / "nowhere"), "g", BEFORE)


@pytest.mark.parametrize(
    "damage",
    [
        ("{", "["),
        ('"copy": 50.0', '"copy": "fifty"'),
        ('"copy": 50.0', '"copy": NaN'),
        ('"copy": 50.0', '"copy": -1'),
        ('"data": 5000000000', f'"data": 1{"0" * 400}'),
        ('"data": 5000000000', '"data": null'),
        ('"phases": {', '"phases": 1, "other": {'),
        ('"format": 1', '"format": 2'),
    ],
)
def test_a_record_that_no_restore_wrote_tells_nothing(tmp_path: Path, damage: tuple[str, str]) -> None:
    (tmp_path / "g").mkdir()
    restores.note(str(tmp_path), "g", BEFORE)
    path = tmp_path / "g" / restores.RECORD
    assert damage[0] in path.read_text()
    path.write_text(path.read_text().replace(*damage))
    assert restores.read(str(tmp_path), "g") == ()
    assert restores.known(str(tmp_path), "g") == {}
