# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the newest WAL can be reached, why not, and how long that takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from keeping import GENERATION, MIDNIGHT, manifest

from pgops.repository import recoverable, windows
from pgops.repository.backups import Kept, Listing
from pgops.repository.inventory import Inventory
from pgops.repository.restores import Speed
from pgops.repository.wal import Run

MB = 1 << 20


def kept(name: str, start: int, **other: Any) -> Kept:
    """A backup that began in a segment, and ended half a segment later."""
    place = {"start_lsn": start * MB + 40, "stop_lsn": start * MB + MB // 2, "segment_bytes": MB}
    return Kept(name, manifest(id=name, **{**place, **other}))


def held(*runs: Run, backups: tuple[Kept, ...] = (kept("a", 3),), **other: Any) -> Inventory:
    return Inventory(GENERATION, MB, runs, {}, Listing(backups), **other)


def obstacle(found: Inventory, timeline: int | None = 1) -> str | None:
    known = windows.windows(found, recoverable.good(found))
    why = recoverable.prevents(found, known, timeline)
    assert (why is None) == (recoverable.to_newest(found, known, timeline) is not None)
    return why


def test_why_the_newest_wal_cannot_be_reached() -> None:
    assert obstacle(held(Run(1, 3, 9))) is None
    assert obstacle(held(Run(1, 3, 9), backups=())) == "no base backup"
    assert obstacle(held(Run(1, 3, 6), Run(1, 8, 9))) == "missing segment 000000010000000000000007"
    assert obstacle(held(Run(1, 4, 9))) == "missing segment 000000010000000000000003"


@pytest.mark.parametrize("name", ["000000010000000000000007", "00000001000000000000000A"])
def test_a_damaged_segment_is_one_also_where_it_is_the_last(name: str) -> None:
    runs = [Run(1, 3, 6), Run(1, 8, 9)] if name.endswith("7") else [Run(1, 3, 9)]
    assert obstacle(held(*runs, rotten={name: "its checksum is another"})) == f"damaged segment {name}"


def test_without_a_timeline_it_is_that_of_the_newest() -> None:
    other = kept("b", 5, timeline=2)
    assert obstacle(held(Run(1, 3, 9), Run(2, 5, 9), backups=(kept("a", 3), other)), None) is None
    assert obstacle(held(Run(1, 3, 9), Run(2, 6, 9), backups=(kept("a", 3), other)), None) is not None


def test_how_long_it_takes_is_by_the_newest_backup_of_a_window_and_all_wal_behind_it() -> None:
    """In a generation whose gap is between two backups, each window has its own."""
    taken = {"data_bytes": 100 * MB, "completed_at": MIDNIGHT + timedelta(seconds=20)}
    added = kept("c", 15, kind="incremental", parent="b", data_bytes=300 * MB)
    found = held(Run(1, 3, 8), Run(1, 10, 29), backups=(kept("a", 3, **taken), kept("b", 10, **taken), added))
    one, other = windows.windows(found, found.listing.backups)
    speeds = {part: Speed(MB, "here") for part in ("copy", "combine", "verify", "replay")}

    def expected(window: windows.Window) -> dict[str, float]:
        told = recoverable.expected(found, found.listing.backups, window, speeds)
        return {part.part: part.seconds for part in told.parts}

    assert expected(one) == {"select": 5, "copy": 100, "verify": 100, "replay": 6, "start": 10}
    assert expected(other) == {"select": 5, "combine": 300, "verify": 300, "replay": 15, "start": 10}
    whole = replace(found, runs=(Run(1, 3, 29),))
    (all_of_it,) = windows.windows(whole, whole.listing.backups)
    assert expected(all_of_it) == expected(other)
