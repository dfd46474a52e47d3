# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store of backups: what counts as one, who keeps whom out, and what killed runs leave."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from clocks import Clock
from keeping import GENERATION, MIDNIGHT, backup, generation, manifest

from pgops.errors import Busy, HostFailed
from pgops.repository import backups


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> str:
    return generation(tmp_path / "shop")


def names(place: str) -> list[str]:
    return [kept.name for kept in backups.listed(place).backups]


def test_nothing_is_made_where_no_repository_is(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="mounted"):
        backups.prepared(str(tmp_path), GENERATION)
    assert list(tmp_path.iterdir()) == []


def test_an_absent_directory_has_no_backups(tmp_path: Path) -> None:
    assert backups.listed(str(tmp_path / "absent")) == backups.Listing()


def test_backups_are_in_the_order_of_the_wal_whatever_clocks_and_names_say(place: str) -> None:
    backup(place, "a", id="1", stop_lsn=300)
    backup(place, "b", id="2", stop_lsn=100)
    backup(place, "c", id="3", timeline=2, stop_lsn=50)
    assert names(place) == ["b", "a", "c"]


def test_a_directory_without_a_manifest_is_no_backup(place: str) -> None:
    backup(place, "a")
    (Path(place) / "killed" / "data").mkdir(parents=True)
    found = backups.listed(place)
    assert ([kept.name for kept in found.backups], found.unfinished) == (["a"], ("killed",))
    assert backups.sweep(place) == ("killed",)
    assert sorted(os.listdir(place)) == ["a"]


def test_what_is_not_published_is_removed(place: str) -> None:
    def killed() -> None:
        with backups.begun(place, "a") as path:
            Path(path, "data").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert os.listdir(place) == [backups.ATTEMPT]


def test_a_damaged_manifest_is_told_and_swept_by_nobody(place: str) -> None:
    backup(place, "a")
    path = Path(place, "a", backups.MANIFEST)
    path.write_text(path.read_text().replace("shop", "shup"))
    found = backups.listed(place)
    assert (found.backups, found.unfinished, list(found.damaged)) == ((), (), ["a"])
    assert backups.sweep(place) == ()
    assert Path(place, "a", "data", "file").exists()


def test_a_copy_is_a_repository(place: str, tmp_path: Path) -> None:
    made = backup(place, "a")
    copied = tmp_path / "copy"
    shutil.copytree(place, copied, copy_function=shutil.copyfile)  # with other times
    assert [kept.manifest for kept in backups.listed(str(copied)).backups] == [made]
    assert backups.remove(str(copied), "a")


def test_what_is_read_is_not_removed(place: str) -> None:
    backup(place, "a")
    with backups.reading(place, ["a"]):
        assert backups.being_read(place, "a")
        assert not backups.remove(place, "a")
        with backups.reading(place, ["a"]):  # by any number
            pass
    assert not backups.being_read(place, "a")
    assert backups.remove(place, "a")
    assert os.listdir(place) == []


def test_what_is_gone_cannot_be_read(place: str) -> None:
    backup(place, "a")
    assert backups.remove(place, "a")
    with pytest.raises(HostFailed), backups.reading(place, ["a"]):
        pass


def test_nothing_is_open_in_a_directory_that_is_removed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS it could not be removed."""
    backup(place, "a")
    opened: list[str] = []
    discard = backups.discard

    def seen(path: str) -> None:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        opened.extend(os.readlink(link) for link in links if os.path.islink(link))
        discard(path)

    monkeypatch.setattr(backups, "discard", seen)
    assert backups.remove(place, "a")
    assert opened
    assert [path for path in opened if path.startswith(os.path.join(place, "a"))] == []


def test_a_crash_of_a_removal_leaves_garbage_and_no_backup(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backup(place, "a")

    def crash(_path: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(backups, "discard", crash)
        with pytest.raises(KeyboardInterrupt):
            backups.remove(place, "a")
    assert names(place) == []
    assert Path(place, "a", "data", "file").exists()
    assert backups.sweep(place) == ("a",)


def test_one_run_at_a_time(place: str) -> None:
    with backups.alone(place), pytest.raises(Busy), backups.alone(place):
        pass
    with backups.alone(place):
        pass


def test_a_pin_says_why(place: str) -> None:
    backup(place, "a")
    backups.pin(place, "a", "before the migration")
    assert [kept.pin for kept in backups.listed(place).backups] == ["before the migration"]
    Path(place, "a", backups.PIN).write_text("{")
    assert [kept.pin for kept in backups.listed(place).backups] == ["its pin cannot be read"]
    backups.unpin(place, "a")
    assert [kept.pin for kept in backups.listed(place).backups] == [None]


def _race(place: str, number: int, together: Barrier, won: multiprocessing.SimpleQueue[int]) -> None:
    together.wait()
    try:
        with backups.alone(place):
            backup(place, "a", id=str(number))
            won.put(number)
    except (Busy, HostFailed):
        pass


def test_of_those_who_publish_at_once_one_wins(place: str) -> None:
    forked = multiprocessing.get_context("fork")
    for _attempt in range(100):
        together, won = forked.Barrier(4), forked.SimpleQueue()
        racers = [forked.Process(target=_race, args=(place, number, together, won)) for number in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        winner = won.get()
        assert won.empty()
        assert [kept.manifest.id for kept in backups.listed(place).backups] == [str(winner)]
        assert backups.remove(place, "a")


def test_what_is_pinned_is_not_removed(place: str) -> None:
    backup(place, "a")
    backups.pin(place, "a", "before the migration")
    assert not backups.remove(place, "a")
    assert names(place) == ["a"]
    backups.unpin(place, "a")
    assert backups.remove(place, "a")
    with pytest.raises(HostFailed):
        backups.pin(place, "a", "too late")
    assert not os.path.lexists(os.path.join(place, "a"))


def test_an_attempt_has_failed_until_it_is_published(place: str) -> None:
    assert not backups.failed(place)
    with backups.begun(place, "a") as path:
        assert backups.failed(place)
        backups.publish(path, manifest())
    assert not backups.failed(place)
    with backups.begun(place, "b"):
        pass
    assert backups.failed(place)
    backup(place, "c", id="2")
    assert not backups.failed(place)


def test_who_wants_to_read_waits_for_who_only_looks(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backup(place, "a")
    looking = contextlib.ExitStack()
    looking.enter_context(backups.unread(place, ["a"]))
    monkeypatch.setattr(backups, "time", Clock(meanwhile=[lambda: None, looking.close]))
    with backups.reading(place, ["a"]):
        assert backups.being_read(place, "a")


def test_who_waits_to_read_gives_up(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backup(place, "a")
    monkeypatch.setattr(backups, "time", Clock())
    with (
        backups.unread(place, ["a"]),
        pytest.raises(HostFailed, match="being removed"),
        backups.reading(place, ["a"]),
    ):
        pass


def test_what_is_read_is_told_and_not_locked(place: str) -> None:
    backup(place, "a")
    backup(place, "b", id="2")
    with backups.reading(place, ["a"]), backups.unread(place, ["a", "b"]) as busy:
        assert busy == ("a",)
        assert backups.being_read(place, "b")
    with backups.unread(place, ["a", "b"]) as busy:
        assert busy == ()


def test_what_a_verification_found_is_kept_beside_a_backup(place: str) -> None:
    backup(place, "one")
    (kept,) = backups.listed(place).backups
    assert (kept.checked_at, kept.problems) == (None, ())
    backups.note_checked(place, "one", ["base/1 is missing"], MIDNIGHT)
    (kept,) = backups.listed(place).backups
    assert (kept.checked_at, kept.problems) == (MIDNIGHT, ("base/1 is missing",))
    Path(place, "one", backups.CHECKED).write_text("{")
    assert backups.listed(place).backups[0].problems == ()
