# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is in a generation, read from its directory: what counts as what, and what is told."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeping import GENERATION, backup, generation

from pgops.errors import HostFailed
from pgops.repository import archiver, backups, inventory, wal
from pgops.repository.inventory import history
from pgops.repository.wal import Ancestor, Run


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> Path:
    generation(tmp_path / "shop")
    (tmp_path / "shop" / GENERATION / "wal").mkdir()
    return tmp_path / "shop"


def store(repository: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        whole, ending = wal.parted(name)
        path = Path(archiver.place(str(repository), GENERATION, whole) + ending)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def test_an_empty_generation(repository: Path) -> None:
    shutil.rmtree(repository / GENERATION / "wal")  # as a crash of its creation leaves it
    found = inventory.read(str(repository), GENERATION)
    assert (found.generation, found.segment_bytes) == (GENERATION, 1 << 24)
    assert (found.runs, found.histories, found.others, found.damaged) == ((), {}, (), {})
    assert found.listing == backups.Listing()


def test_segments_and_what_is_none(repository: Path) -> None:
    store(repository, "000000010000000000000002", "000000010000000000000003.zst", "000000010000000000000003.gz")
    store(repository, "000000010000000000000005.lz4", "0000000100000000000000FF", "000000010000000100000000")
    store(repository, "000000010000000000000006.partial", "000000010000000000000002.00000028.backup.gz")
    store(repository, ".~000000010000000000000004~db1~77", "000000010000000000000007.new")
    store(repository, "0000000100000000000001FF")  # there is none of this name with segments of 16 MB
    (repository / GENERATION / "wal" / "0000000100000000" / "000000020000000000000004").touch()
    (repository / GENERATION / "wal" / "000000010000000000000004").touch()
    found = inventory.read(str(repository), GENERATION)
    assert found.runs == (Run(1, 2, 3), Run(1, 5, 5), Run(1, 255, 256))
    assert found.others == ("000000010000000000000002.00000028.backup", "000000010000000000000006.partial")


def test_histories(repository: Path) -> None:
    store(repository, "00000002.history", content=b"1\t0/5000077\tno recovery target specified\n")
    packed = gzip.compress(b"1\t0/5000077\twhy\n\n2\t0/6000000\twhy\n")
    store(repository, "00000003.history.gz", content=packed)
    store(repository, "00000004.history.gz", content=packed[:-9])
    store(repository, "00000005.history", content=b"")
    found = inventory.read(str(repository), GENERATION)
    assert found.histories == {
        2: (Ancestor(1, 0x5000077),),
        3: (Ancestor(1, 0x5000077), Ancestor(2, 0x6000000)),
    }
    assert found.damaged.keys() == {4, 5}
    assert "ends too early" in found.damaged[4]
    assert found.damaged[5] == "00000005.history cannot be read: its end is missing."


@pytest.mark.parametrize("name", [b"caf\xe9", "\u2028 \x0b9\t0/1 \x85".encode(), b"#", b""])
def test_a_history_with_the_name_of_a_restore_point(repository: Path, name: bytes) -> None:
    store(repository, "00000002.history", content=b'1\t0/5000077\tat restore point "' + name + b'"\n')
    found = inventory.read(str(repository), GENERATION)
    assert (found.histories, found.damaged) == ({2: (Ancestor(1, 0x5000077),)}, {})


def test_an_unreadable_history_is_told_and_nothing_waits_for_a_pipe(repository: Path) -> None:
    os.mkfifo(repository / GENERATION / "wal" / "00000002.history")
    (repository / GENERATION / "wal" / "00000003.history").mkdir()
    (repository / GENERATION / "wal" / "00000004.history").write_bytes(b"#" * (inventory.LARGEST_HISTORY + 1))
    bomb = gzip.compress(b"#" * (inventory.LARGEST_HISTORY + 1))
    (repository / GENERATION / "wal" / "00000005.history.gz").write_bytes(bomb)
    found = inventory.read(str(repository), GENERATION)
    assert found.damaged.keys() == {2, 3, 4, 5}
    assert found.histories == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1\t0/5000077",
        "1\t0/5000077\twhy\n2\t0/60",
        "1\tG/5000077\twhy\n",
        "1\t0/50/77\twhy\n",
        "one\t0/5000077\twhy\n",
        "1\n",
        "3\t0/5000077\twhy\n",
        "2\t0/5000077\twhy\n1\t0/6000000\twhy\n",
        "1\t0/5000077\twhy\n2\t0/4000000\twhy\n",
        "# nothing\n",
    ],
)
def test_what_is_no_history_of_timeline_3(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(its end is|its timelines are|a line is|a timeline ends) "):
        history(text, 3)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1 << 40)), min_size=1, max_size=9))
def test_every_history_that_is_cut_off_is_noticed(steps: list[tuple[int, int]]) -> None:
    timeline, end, written, ancestors = 0, 0, "# from\n", []
    for step, more in steps:
        timeline, end = timeline + step, end + more
        ancestors.append(Ancestor(timeline, end))
        written += f"{timeline}\t{wal.lsn(end)}\tno recovery target specified\n"
    assert history(written, timeline + 1) == tuple(ancestors)
    lines = [number for number, character in enumerate(written) if character == "\n"]
    for cut in set(range(len(written))) - {number + 1 for number in lines[1:]}:
        with pytest.raises(ValueError, match=r"^(its end is|a line is) "):
            history(written[:cut], timeline + 1)


def test_backups_are_listed_in_order(repository: Path) -> None:
    place = backups.prepared(str(repository), GENERATION)
    backup(place, "a", id="1", stop_lsn=0x3000000)
    backup(place, "b", id="2")
    found = inventory.read(str(repository), GENERATION)
    assert [kept.name for kept in found.listing.backups] == ["b", "a"]


def test_a_foreign_backup_and_a_copy_are_told_and_do_not_count(repository: Path) -> None:
    place = backups.prepared(str(repository), GENERATION)
    backup(place, "b", id="1")
    shutil.copytree(os.path.join(place, "b"), os.path.join(place, "c"))
    backup(place, "a", id="2", system_identifier="7412345678901234568")
    backup(place, "d", id="3", segment_bytes=1 << 20)
    found = inventory.read(str(repository), GENERATION).listing
    assert [kept.name for kept in found.backups] == ["b"]
    assert found.damaged.keys() == {"a", "c", "d"}
    assert "system identifier 7412345678901234568" in found.damaged["a"]
    assert "the same backup as b" in found.damaged["c"]


def test_a_copy_with_other_times_is_the_same(repository: Path, tmp_path: Path) -> None:
    store(repository, "000000010000000000000002", "000000010000000000000003.zst")
    store(repository, "00000002.history", content=b"1\t0/5000077\twhy\n")
    backup(backups.prepared(str(repository), GENERATION), "a")
    shutil.copytree(repository, tmp_path / "copy", copy_function=shutil.copyfile)
    assert inventory.read(str(tmp_path / "copy"), GENERATION) == inventory.read(str(repository), GENERATION)


def test_an_absent_mount_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="mounted"):
        inventory.read(str(tmp_path), GENERATION)


@pytest.mark.parametrize(
    "identity",
    ["", "[]", "{}", '{"wal_segment_size": "1"}', '{"wal_segment_size": 3000000}', '{"wal_segment_size": 1}'],
)
def test_a_damaged_identity_is_told(repository: Path, identity: str) -> None:
    (repository / GENERATION / archiver.IDENTITY).write_text(identity)
    with pytest.raises(HostFailed, match="damaged"):
        inventory.read(str(repository), GENERATION)


@given(st.sets(st.tuples(st.integers(1, 3), st.integers(0, 30))))
def test_runs_are_the_segments_that_are_there(segments: set[tuple[int, int]]) -> None:
    runs = wal.runs(segments)
    assert {(run.timeline, number) for run in runs for number in range(run.first, run.last + 1)} == segments
    assert list(runs) == sorted(runs)
    for one, other in zip(runs, runs[1:]):
        assert one.timeline != other.timeline or one.last + 1 < other.first


@given(
    st.sets(st.tuples(st.integers(1, 3), st.integers(0, 30))),
    st.sets(st.tuples(st.integers(1, 3), st.integers(0, 30))),
)
def test_without_some(segments: set[tuple[int, int]], bad: set[tuple[int, int]]) -> None:
    held = inventory.Inventory(GENERATION, 1 << 24, wal.runs(segments), {}, backups.Listing())
    names = [wal.name(*segment, 1 << 24) for segment in bad]
    assert held.without(names).runs == wal.runs(segments - bad)
