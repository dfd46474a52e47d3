# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Old data is moved aside and back, and none is lost at whatever moment a restore is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pgops.errors import HostFailed
from pgops.recovery import place
from pgops.recovery.place import Place

OLD = {"PG_VERSION": "17", "base/1": "old", "global/pg_control": "old", "postgresql.conf": "old"}
SPACE = {"PG_17/1": "old"}
STEPS = ("rename", "replace", "link", "unlink", "rmdir", "mkdir")


def tree(path: Path) -> dict[str, str]:
    """All files below a directory, with their contents."""
    return {str(one.relative_to(path)): one.read_text() for one in path.rglob("*") if one.is_file()}


def filled(root: Path) -> Place:
    """A data directory with a tablespace, neither of which can be renamed."""
    for name, files in (("data", OLD), ("space", SPACE)):
        for path, text in files.items():
            target = root / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    return Place(str(root / "data"), {1: str(root / "space")}, in_place=True)


def restored(here: Place, fails: bool = False) -> None:
    """As a restore does: fill the directories, and fail or not."""
    with here.begun(lambda: None):
        for path in here.every:
            os.makedirs(path, exist_ok=True)
            Path(path, "PG_VERSION").write_text("new")
            Path(path, "more").mkdir()
            Path(path, "more", "file").write_text("new")
        if fails:
            raise HostFailed("It failed.")
        here.done()


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Do some work in a child that is killed before its so many-th change of a directory; whether it was."""
    child = os.fork()
    if not child:
        left = step

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def call(*given: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **named)

            return call

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except HostFailed:
            pass
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.fixture(name="staying", autouse=True)
def _staying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        place, "_stays", lambda path: Path(path).parent == tmp_path or Path(path).parent.parent == tmp_path
    )


def asides(path: Path) -> list[dict[str, str]]:
    return [tree(one) for one in path.iterdir() if one.name.startswith("before-restore-")]


def without_asides(path: Path) -> dict[str, str]:
    return {name: text for name, text in tree(path).items() if not name.startswith("before-restore-")}


def test_the_content_is_moved_and_not_the_directory(tmp_path: Path) -> None:
    here = filled(tmp_path)
    inode = (tmp_path / "data").stat().st_ino
    restored(here)
    assert (tmp_path / "data").stat().st_ino == inode
    assert (asides(tmp_path / "data"), asides(tmp_path / "space")) == ([OLD], [SPACE])
    assert without_asides(tmp_path / "data") == {"PG_VERSION": "new", "more/file": "new"}


def test_what_fails_is_put_back(tmp_path: Path) -> None:
    here = filled(tmp_path)
    with pytest.raises(HostFailed):
        restored(here, fails=True)
    assert (tree(tmp_path / "data"), tree(tmp_path / "space")) == (OLD, SPACE)


@pytest.mark.parametrize("again", ["done", "fails"])
@pytest.mark.parametrize("first", ["done", "fails"])
def test_nothing_is_lost_wherever_it_is_killed(tmp_path: Path, first: str, again: str) -> None:
    step, was_killed = 0, True
    while was_killed:
        root = tmp_path / str(step)
        root.mkdir()
        here = filled(root)
        was_killed = killed_at(step, lambda here=here: restored(here, first == "fails"))  # type: ignore[misc]
        step += 1
        # Once it was ended, the old data is where it belongs.
        if asides(root / "data") and place.read_marker(here.data) is None:
            assert (asides(root / "data"), asides(root / "space")) == ([OLD], [SPACE])
            continue
        if again == "done":
            restored(here)
            assert (asides(root / "data"), asides(root / "space")) == ([OLD], [SPACE]), step
            assert without_asides(root / "data") == {"PG_VERSION": "new", "more/file": "new"}
        else:
            with pytest.raises(HostFailed):
                restored(here, fails=True)
            assert (tree(root / "data"), tree(root / "space")) == (OLD, SPACE), step
    assert step > 12
