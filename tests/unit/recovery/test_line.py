# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which file holds which segment of a line."""

from __future__ import annotations

from datetime import datetime, timezone

from pgops.recovery import commits, line
from pgops.repository.wal import Ancestor

MB = 1 << 20
# Timeline 2 branched off within segment 5, timeline 4 within segment 9 of timeline 2.
LINE = line.to(4, {4: (Ancestor(1, 5 * MB + 100), Ancestor(2, 9 * MB))}, MB)


def test_a_segment_is_the_newest_timelines_that_has_it() -> None:
    assert [LINE.timeline_of(number) for number in (0, 4, 5, 8, 9, 10)] == [1, 1, 2, 2, 4, 4]
    assert LINE.name(5) == "000000020000000000000005"
    assert line.to(3, {}, MB).timeline_of(7) == 3


def test_where_a_line_leaves_a_timeline() -> None:
    assert [LINE.leaves(timeline) for timeline in (1, 2, 3, 4)] == [5 * MB + 100, 9 * MB, None, None]


DUMP = """\
rmgr: Transaction len (rec/tot):     34/    34, tx:        745, lsn: 0/01D2A3B8, prev 0/01D2A380, \
desc: COMMIT 2026-11-29 15:36:14.123456 UTC
rmgr: Transaction len (rec/tot):     82/    82, tx:          0, lsn: 1/00000028, prev 0/01D2A380, \
desc: COMMIT_PREPARED 746: 2026-11-29 15:36:15.000001 UTC; inval msgs: catcache 7
rmgr: Transaction len (rec/tot):     34/    34, tx:        747, lsn: 1/00000128, prev 1/00000028, \
desc: ABORT 2026-11-29 15:36:16.000000 UTC
rmgr: Transaction len (rec/tot):     34/    34, tx:        748, lsn: 1/00000138, prev 1/00000028, \
desc: ASSIGNMENT xtop 747: subxacts: 748
rmgr: XLOG        len (rec/tot):     98/    98, tx:          0, lsn: 1/00000228, prev 1/00000128, \
desc: RESTORE_POINT before the drop
rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 1/00000328, prev 1/00000228, desc: SWITCH
pg_waldump: error: error in WAL record at 1/328: invalid magic number
"""


def test_the_output_of_pg_waldump() -> None:
    assert [(one.what, one.lsn, one.xid, one.name) for one in commits.parse(DUMP)] == [
        ("COMMIT", 0x1D2A3B8, 745, ""),
        ("COMMIT_PREPARED", (1 << 32) + 0x28, 746, ""),
        ("ABORT", (1 << 32) + 0x128, 747, ""),
        ("RESTORE_POINT", (1 << 32) + 0x228, 0, "before the drop"),
    ]
    assert commits.parse(DUMP)[0].time == datetime(2026, 11, 29, 15, 36, 14, 123456, timezone.utc)
