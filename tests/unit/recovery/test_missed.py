# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether what a recovery reached is its target."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from keeping import manifest

from pgops.recovery import line, replay
from pgops.recovery.choice import Choice, Reach
from pgops.recovery.replay import Reached
from pgops.recovery.targets import Target
from pgops.repository.backups import Kept

MB = 1 << 20
NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)
KEPT = Kept("b", manifest(start_lsn=2 * MB, stop_lsn=3 * MB, segment_bytes=MB))
REACH = Reach(line.to(1, {}, MB), KEPT, 2, 9)
AT = 5 * MB


@pytest.mark.parametrize(
    ("target", "lsn", "time", "hit"),
    [
        (Target("time", time=NOON), AT, NOON, True),
        (Target("time", time=NOON), AT, NOON + SECOND, False),
        (Target("time", time=NOON, inclusive=False), AT, NOON, False),
        (Target("time", time=NOON, inclusive=False), AT, NOON - SECOND, True),
        (Target("time", time=NOON), AT, None, True),
        (Target("lsn", lsn=AT), AT + 8, None, True),
        (Target("lsn", lsn=AT), AT, None, False),
        (Target("lsn", lsn=AT, inclusive=False), AT, None, True),
        (Target("lsn", lsn=AT, inclusive=False), AT + 8, None, False),
        (Target("xid", xid=7), AT + 8, None, True),
        (Target("xid", xid=7), AT - 8, None, False),
        (Target("xid", xid=7, inclusive=False), AT - 8, None, True),
        (Target("name", name="n"), AT + 100, None, True),
        (Target("name", name="n"), AT, None, False),
        (Target("name", name="n"), AT + MB, None, False),
        (Target("immediate"), 3 * MB, None, True),
        (Target("immediate"), 3 * MB - 1, None, False),
        (Target("latest"), 9 * MB + 1, None, True),
        (Target("latest"), 9 * MB, None, False),
    ],
)
def test_what_was_reached(target: Target, lsn: int, time: datetime | None, hit: bool) -> None:
    found = Choice((KEPT,), REACH, 9, AT if target.kind in ("xid", "name") else None)
    said = replay.missed(target, found, Reached(lsn, time))
    assert (said == "") == hit
    assert hit or "reached was LSN" in said
