# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What pgBackRest says and is told, and which WAL it keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from keeping import MIDNIGHT, manifest

from pgops.backup import options as declared
from pgops.backup import scrub
from pgops.backup.expiry import ExpiryPlan, plan
from pgops.backup.pgbackrest import LARGEST_NOTE, Verified, note, results
from pgops.backup.retention import Retention
from pgops.errors import InvalidInput
from pgops.instance.configuration import Configuration
from pgops.repository import wal
from pgops.repository.backups import Kept, Listing
from pgops.repository.inventory import Inventory
from pgops.repository.wal import Ancestor, Run

MB = 1 << 20
SAID = """stanza: orders
status: error
  archiveId: 15-1, total WAL checked: 3, total valid WAL: 2
    missing: 0, checksum invalid: 0, size invalid: 0, other: 1
  backup: 20261129-223316F, status: valid, total files checked: 964, total valid files: 964
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261129-223316F_20261129-223400I, status: invalid, total files checked: 9, total valid files: 6
    missing: 1, checksum invalid: 2, size invalid: 0, other: 0
"""


def test_what_a_verification_says_is_read() -> None:
    assert results(SAID).backups == {
        "20261129-223316F": "",
        "20261129-223316F_20261129-223400I": "invalid: of 9 files 1 missing, 2 with a wrong checksum",
    }
    assert results("") == Verified({}, 0, {})
    # Of another version, whose log has other words.
    assert (results(SAID, {"15-1"}).segments, results(SAID, {"15-1"}).unnamed) == (3, 1)


def test_damaged_wal_is_known_by_its_names() -> None:
    """The log has them, and the summary is in it as well; of other generations nothing is told."""
    log = """P00   INFO: verify command begin 2.45: --stanza=orders --verbose
P01   INFO: invalid checksum '15-1/0000000100000000/00000001000000000000000D-6f6d88b5b04cfebd154aac205496f1f9eaf75b57'
P02   INFO: invalid size '15-1/0000000100000000/00000001000000000000000E-f754c42c11f593ae8e21bec8d07e479ea8aa49f6.gz'
P01   INFO: invalid checksum '14-2/0000000100000000/000000010000000000000001-6f6d88b5b04cfebd154aac205496f1f9eaf75b57'
P01   INFO: invalid checksum '20261129-223316F/pg_data/base/1/1255.gz'
P00   INFO: stanza: orders
            status: error
              archiveId: 15-1, total WAL checked: 3, total valid WAL: 1
              archiveId: 14-2, total WAL checked: 7, total valid WAL: 6
"""
    found = results(log + SAID.replace("valid WAL: 2", "valid WAL: 1"), {"15-1"})
    assert (found.segments, found.unnamed, found.damaged) == (
        3,
        0,
        {
            "00000001000000000000000D": "pgBackRest says invalid checksum",
            "00000001000000000000000E": "pgBackRest says invalid size",
        },
    )


def test_a_note_fits_into_an_argument() -> None:
    short = {"id": "1", "environment": {"extensions": {"one": {}}}}
    assert json.loads(note(short)) == short
    long = {"id": "1", "environment": {"extensions": {str(number): {} for number in range(20_000)}}}
    assert json.loads(note(long)) == {"id": "1", "environment": {}}
    assert len(note(long)) < LARGEST_NOTE


@pytest.mark.parametrize(("name", "value"), [("max_rate_mb", 10.0), ("source", "db2/main")])
def test_what_pgbackrest_cannot_do_is_refused(name: str, value: Any) -> None:
    def parsed(**more: Any) -> declared.Options:
        usual = {"engine": "pgbackrest", **more}
        return declared.options(Configuration("main", "shop", "db1/main", parts={"backup": usual}))

    assert parsed().engine == "pgbackrest"
    with pytest.raises(InvalidInput, match=r"set pgops_backup_engine to native"):
        parsed(**{name: value})


# --- which WAL a stanza keeps


def kept(name: str, at: int, day: float, parent: str = "", **other: Any) -> Kept:
    """A backup in a stanza that began and ended in a segment, on a day."""
    pin = other.pop("pin", None)
    usual: dict[str, Any] = {
        "id": name,
        "kind": "incremental" if parent else "full",
        "parent": parent,
        "segment_bytes": MB,
        "start_lsn": at * MB + 40,
        "stop_lsn": at * MB + 300,
        "completed_at": MIDNIGHT + timedelta(days=day),
        "layout": "stanza",
    }
    return Kept(name, manifest(**{**usual, **other}), pin)


def held(*backups: Kept, runs: tuple[Run, ...] = (Run(1, 0, 99),), **other: Any) -> Inventory:
    ordered = tuple(sorted(backups, key=lambda one: one.manifest.position))
    usual: dict[str, Any] = {"histories": {}, "stanza_runs": runs, **other}
    return Inventory("7412345678901234567-17", MB, runs, listing=Listing(ordered), **usual)


def on(day: float, inventory: Inventory) -> ExpiryPlan:
    return plan(inventory, Retention(30, 7, 0, 0), MIDNIGHT + timedelta(days=day))


def gone(found: ExpiryPlan) -> list[int]:
    """The numbers of the segments of timeline 1 that are to go."""
    places = [wal.place(name, MB) for name in found.wal]
    return [place.lsn // MB for place in places if place and place.timeline == 1]


def test_what_only_a_stanza_has_is_not_read_as_files() -> None:
    inventory = held(kept("a", 10, 0), runs=(Run(1, 0, 30),), stanza_runs=(Run(1, 15, 17), Run(1, 20, 30)))
    assert scrub.needed(inventory) == (Run(1, 10, 14), Run(1, 18, 19))


def test_wal_goes_before_the_oldest_full_backup_that_is_kept() -> None:
    found = on(50, held(kept("a", 10, 0), kept("b", 20, 30), kept("c", 30, 40)))
    assert (found.fulls, gone(found)) == (2, list(range(20)))


def test_pgbackrest_keeps_more_where_an_incremental_is_what_is_needed() -> None:
    # The retention needs all WAL from the incremental on, pgBackRest can only be told of its full one.
    backups = (kept("a", 10, 0), kept("i", 20, 30, "a"))
    found = on(33, held(*backups))
    assert {one.kept.name for one in found.kept if one.limited} == {"a"}
    assert (found.fulls, gone(found)) == (1, list(range(10)))


def test_a_pinned_one_keeps_its_own_wal_only() -> None:
    found = on(50, held(kept("a", 10, 0, pin="audit"), kept("b", 20, 40)))
    assert (found.fulls, gone(found)) == (1, [*range(10), *range(11, 20)])


def test_nothing_goes_where_pgbackrest_cannot_be_told_enough() -> None:
    # A native backup from before the first in the stanza is to be replayed through all of its WAL.
    native = kept("n", 5, 45, layout="plain")
    found = on(50, held(native, kept("a", 10, 46)))
    assert (found.fulls, gone(found)) == (0, [])


def test_nothing_goes_of_a_stanza_with_several_generations() -> None:
    backups = held(kept("a", 10, 0), kept("b", 20, 40))
    assert on(50, backups).fulls == 1
    assert (
        on(50, replace(backups, stanza_alone=False)).fulls,
        gone(on(50, replace(backups, stanza_alone=False))),
    ) == (
        0,
        [],
    )


def test_later_timelines_stay_whole() -> None:
    runs = (Run(1, 0, 40), Run(2, 30, 60))
    backups = (kept("a", 10, 0), kept("b", 35, 40, timeline=2))
    found = on(50, held(*backups, runs=runs, histories={2: (Ancestor(1, 30 * MB),)}))
    names = [wal.place(name, MB) for name in found.wal]
    assert found.fulls == 1
    assert {(place.timeline, place.lsn // MB) for place in names if place} == {
        *((1, number) for number in range(41)),
        *((2, number) for number in range(30, 35)),
    }
