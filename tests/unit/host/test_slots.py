# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file of two slots, and work with a deadline."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.host import children
from pgops.host.slots import Slots


def test_the_newest_content_counts_and_the_one_before_stays(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path / "file"), 1000)
    assert slots.read() is None
    for number in range(1, 6):
        slots.write(number, b"x" * number)
        assert slots.read() == (number, b"x" * number)
    assert (os.stat(slots.path).st_size, os.stat(slots.path).st_mode & 0o777) == (2000, 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@given(st.integers(0, 1999), st.binary(min_size=1, max_size=400))
def test_a_write_that_was_cut_short_leaves_one_of_both(place: int, junk: bytes) -> None:
    path = Path(f"{tempfile.gettempdir()}/pgops-slots-{os.getpid()}")
    slots = Slots(str(path), 1000)
    try:
        slots.write(1, b"one")
        slots.write(2, b"two")
        whole = path.read_bytes()
        damaged = whole[:place] + junk + whole[place + len(junk) :]
        path.write_bytes(damaged[:2000])
        # What was damaged is in one slot, unless it reaches from one into the other.
        if place // 1000 == (place + len(junk) - 1) // 1000:
            assert slots.read() in ((1, b"one"), (2, b"two"))
        slots.write(3, b"three")
        assert slots.read() == (3, b"three")
    finally:
        path.unlink(missing_ok=True)


def test_what_is_somebody_elses_is_neither_read_nor_written(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):  # noqa: PT011 - of any kind
            Slots(str(tmp_path / name), 1000).write(1, b"x")
    assert Slots(str(tmp_path / "pipe"), 1000).read() is None
    assert (tmp_path / "there").read_bytes() == b""


def test_what_has_no_room_is_refused(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path / "file"), 1000)
    slots.write(1, b"x" * slots.room)
    assert slots.read() == (1, b"x" * slots.room)
    with pytest.raises(ValueError, match="no room"):
        slots.write(2, b"x" * (slots.room + 1))


def test_work_has_one_deadline_and_what_fails_is_missing() -> None:
    def hang() -> None:
        while True:
            os.read(os.pipe()[0], 1)

    def fail() -> None:
        raise OSError

    works = {"quick": lambda: {"a": [1]}, "long": lambda: "x" * 200_000, "hangs": hang, "fails": fail}
    assert children.answers(works, 1.0) == {"quick": {"a": [1]}, "long": "x" * 200_000}
    assert children.answers({}, 1.0) == {}
