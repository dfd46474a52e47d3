# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The WAL of a backup in the repository: what is missing or damaged is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeping import GENERATION

from pgops.repository import archiver, segments, wal
from pgops.repository.segments import Stretch

SIZE = 1 << 20
IDENTIFIER = int(GENERATION.partition("-")[0])


def stretch(base: Path, start: int = SIZE + 40, stop: int = 3 * SIZE + 100) -> Stretch:
    return Stretch(str(base), GENERATION, 2, start, stop, SIZE)


def content(
    number: int, timeline: int = 2, identifier: int = IDENTIFIER, info: int = archiver.XLP_LONG_HEADER
) -> bytes:
    head = archiver.LONG_HEADER.pack(0xD118, info, timeline, number * SIZE, 0, identifier, SIZE, 8192)
    return head + bytes(SIZE - len(head))


def stored(base: Path, number: int, data: bytes, ending: str = "") -> Path:
    name = wal.name(2, number, SIZE)
    path = Path(archiver.place(str(base), GENERATION, name) + ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if ending else data)
    return path


def whole(base: Path) -> Stretch:
    for number, ending in ((1, ""), (2, ".gz"), (3, "")):
        stored(base, number, content(number), ending)
    return stretch(base)


def test_the_segments_are_those_that_have_a_byte_of_it(tmp_path: Path) -> None:
    assert list(stretch(tmp_path).numbers) == [1, 2, 3]
    assert list(stretch(tmp_path, stop=3 * SIZE).numbers) == [1, 2]
    assert list(stretch(tmp_path, SIZE, SIZE + 1).numbers) == [1]
    assert list(stretch(tmp_path, SIZE, SIZE).numbers) == [1]


def test_those_that_are_whole_have_no_problems(tmp_path: Path) -> None:
    found = whole(tmp_path)
    assert (segments.absent(found), list(segments.damaged(found))) == ([], [])


def test_missing_ones_are_named(tmp_path: Path) -> None:
    found = whole(tmp_path)
    Path(archiver.place(str(tmp_path), GENERATION, found.name(2)) + ".gz").unlink()
    assert segments.absent(found) == [wal.name(2, 2, SIZE)]
    assert list(segments.damaged(found)) == []


def test_the_newest_is_of_a_timeline(tmp_path: Path) -> None:
    whole(tmp_path)
    folder = tmp_path / GENERATION / "wal"
    (folder / "00000002.history").write_text("")
    (folder / "0000000200000009").mkdir()
    (folder / "0000000200000000" / ".~half").write_text("")
    assert segments.newest(str(tmp_path), GENERATION, 2, SIZE) == 3
    assert segments.newest(str(tmp_path), GENERATION, 1, SIZE) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (content(7), "has the header of another segment"),
        (content(1, info=0), "has the header of another segment"),
        (content(1, identifier=5), "belongs to system identifier 5"),
        (content(1, timeline=3), "is of timeline 3"),
        (content(1) + b"x", "is incomplete"),
    ],
)
def test_what_is_another_one_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    found = whole(tmp_path)
    stored(tmp_path, 1, data)
    (problem,) = segments.damaged(found)
    assert said in problem
    assert found.name(1) in problem


def test_the_first_segment_of_a_timeline_may_begin_on_the_one_before(tmp_path: Path) -> None:
    found = whole(tmp_path)
    stored(tmp_path, 1, content(1, timeline=1))
    assert list(segments.damaged(found)) == []


@given(left=st.integers(0, SIZE - 1))
def test_a_segment_that_ends_anywhere_is_named(tmp_path_factory: pytest.TempPathFactory, left: int) -> None:
    base = tmp_path_factory.mktemp("repository")
    found = stretch(base, stop=2 * SIZE)
    stored(base, 1, content(1)[:left])
    assert len(list(segments.damaged(found))) == 1


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_compressed_one_that_ends_anywhere_is_named(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    base = tmp_path_factory.mktemp("repository")
    found = stretch(base, stop=2 * SIZE)
    path = stored(base, 1, content(1), ".gz")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert len(list(segments.damaged(found))) == 1


def pages(number: int, size: int, wrong: int = -1, zeros: int = SIZE) -> bytes:
    """A segment whose pages of some size all have headers; that at ``wrong`` has another's, and from ``zeros`` on
    nothing comes any more."""
    found = bytearray(content(number)[: archiver.LONG_HEADER.size] + b"x" * (SIZE - archiver.LONG_HEADER.size))
    archiver.struct.pack_into("=I", found, archiver.LONG_HEADER.size - 4, size)
    for at in range(size, SIZE, size):
        address = number * SIZE + (at if at != wrong else 0)
        segments.SHORT_HEADER.pack_into(found, at, 0xD118, 0, 2, address)
    found[zeros:] = bytes(SIZE - zeros)
    return bytes(found)


@pytest.mark.parametrize("size", [4096, 8192, 65536])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_each_page_has_to_be_in_its_place(tmp_path: Path, size: int, ending: str) -> None:
    one = stretch(tmp_path, SIZE, 2 * SIZE)
    stored(tmp_path, 1, pages(1, size), ending)
    assert segments.wrong(one, 1) == ""
    stored(tmp_path, 1, pages(1, size, zeros=SIZE // 2), ending)
    assert segments.wrong(one, 1) == ""
    stored(tmp_path, 1, pages(1, size, wrong=3 * 65536), ending)
    assert segments.wrong(one, 1) == "has the header of another page at 0/130000"
    again = bytearray(pages(1, size, zeros=SIZE // 2))
    again[-65536:] = pages(1, size)[-65536:]
    stored(tmp_path, 1, bytes(again), ending)
    assert segments.wrong(one, 1) == "has the header of another page at 0/1F0000"


def test_how_much_room_wal_takes_is_seen_by_the_newest(tmp_path: Path) -> None:
    (tmp_path / GENERATION / "wal").mkdir(parents=True)
    assert segments.stored_share(str(tmp_path), GENERATION, SIZE) == 1.0
    stored(tmp_path, 1, content(1))
    (stored(tmp_path, 2, b"").parent / ".~half").write_text("")
    assert segments.stored_share(str(tmp_path), GENERATION, SIZE) == 0.5
