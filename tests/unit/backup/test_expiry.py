# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Expiry in directories: with readers, with others who expire, killed anywhere, and where nothing can be written."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import disks
import keeping
import pytest
from keeping import GENERATION, MIDNIGHT
from worlds import World

from pgops.backup import expiry
from pgops.backup.expiry import Expiry, ExpiryPlan, plan
from pgops.backup.retention import Retention
from pgops.errors import Busy, HostFailed, InvalidInput
from pgops.instance.configuration import Configuration
from pgops.instance.layout import Layout
from pgops.repository import archiver, backups, inventory, wal, windows

GB = 1 << 30
"""So large segments have a directory for each four of them."""
ONLY_AGE = Retention(30, 7, 0, 0)
LATER = MIDNIGHT + timedelta(days=100)
FORKED = multiprocessing.get_context("fork")


def segment(number: int, timeline: int = 1, size: int = GB) -> str:
    return wal.name(timeline, number, size)


def store(repository: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        whole, ending = wal.parted(name)
        path = Path(archiver.place(str(repository), GENERATION, whole) + ending)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def take(repository: Path, name: str, at: int, day: float, parent: str = "", **other: Any) -> None:
    keeping.backup(
        backups.prepared(str(repository), GENERATION),
        name,
        id=f"id-{name}",
        kind="incremental" if parent else "full",
        parent=parent and f"id-{parent}",
        segment_bytes=GB,
        start_lsn=at * GB + 40,
        stop_lsn=at * GB + 300,
        completed_at=MIDNIGHT + timedelta(days=day),
        **other,
    )


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> Path:
    """Twenty segments, and two chains of which the first is old."""
    made = tmp_path / "shop"
    keeping.generation(made)
    (made / "repository.json").write_text('{"cluster": "shop"}')
    (made / GENERATION / archiver.IDENTITY).write_text(f'{{"wal_segment_size": {GB}, "major": 17}}')
    (made / GENERATION / "wal").mkdir()
    store(made, *(f"{segment(number)}{['', '.gz', '.zst', '.lz4'][number % 4]}" for number in range(20)))
    store(made, f"{segment(2)}.00000028.backup", f"{segment(3)}.partial")
    take(made, "a", 2, 0)
    take(made, "b", 5, 1, "a")
    take(made, "c", 11, 90)
    take(made, "d", 13, 95, "c")
    return made


def run(repository: Path, now: datetime = LATER, wanted: Retention = ONLY_AGE, failed: str = "") -> Expiry:
    return Expiry(str(repository), GENERATION, wanted, now, failed)


def place(repository: Path) -> str:
    return backups.folder(str(repository), GENERATION)


def names(repository: Path) -> list[str]:
    return [kept.name for kept in backups.listed(place(repository)).backups]


def segments(repository: Path) -> set[int]:
    return {
        number
        for found in inventory.read(str(repository), GENERATION).runs
        for number in range(found.first, found.last + 1)
    }


def tree(repository: Path) -> set[str]:
    """All paths, but for the lock of who expires."""
    found = {str(path.relative_to(repository)) for path in repository.rglob("*")}
    return found - {f"{GENERATION}/backup/{backups.LOCK}"}


def test_what_expires_is_gone_with_its_wal_and_nothing_else(repository: Path) -> None:
    os.makedirs(os.path.join(place(repository), "killed", "data"))
    store(repository, "00000002.history", content=b"1\t4/C0000028\twhy\n")
    before = tree(repository)
    planned = run(repository).planned()
    done = run(repository).apply()
    assert [expired.kept.name for expired in done.removed] == ["b", "a"] == [one.kept.name for one in planned.removed]
    assert (done.swept, done.wal) == (("killed",), 13)
    assert names(repository) == ["c", "d"]
    assert segments(repository) == set(range(11, 20))
    assert (done.plan.removed, done.plan.wal) == ((), ())
    assert (done.before, done.plan.after) == (planned.before, planned.after)
    gone = {path.partition("/wal/")[2] for path in before - tree(repository) if "/wal/" in path}
    # The directories that are empty go too.
    assert {path for path in gone if "/" not in path} == {"0000000100000000", "0000000100000001"}
    assert (repository / GENERATION / "wal" / "00000002.history").exists()


def test_a_dry_run_does_nothing_and_says_the_same(repository: Path) -> None:
    os.makedirs(os.path.join(place(repository), "killed", "data"))
    settings = configuration(repository, {"minimum_full": 0})
    before = tree(repository)
    imagined = expiry.expire(settings, Layout("main"), True, now=LATER)
    assert tree(repository) == before
    real = expiry.expire(settings, Layout("main"), False, now=LATER)
    assert real.pop("removed") == imagined.pop("removed")
    assert real.pop("retained") == imagined.pop("retained")
    assert real == imagined
    again = expiry.expire(settings, Layout("main"), False, now=LATER)
    assert (again["removed"], again["wal_removed"], again["swept"]) == ([], 0, [])
    assert again["window_before"] == again["window_after"] == real["window_after"]


def configuration(repository: Path, retention: dict[str, Any]) -> Configuration:
    parts = {"backup": {"retention": retention}}
    return Configuration("main", "shop", "db1", repository=str(repository), parts=parts)


def test_what_is_returned(repository: Path) -> None:
    found = expiry.expire(configuration(repository, {"minimum_full": 0}), Layout("main"), False, now=LATER)
    assert found == json.loads(json.dumps(found))
    assert found["removed"][0] == {
        "backup": "id-b",
        "generation": GENERATION,
        "name": "b",
        "kind": "incremental",
        "stored_bytes": 4096,
        "completed_at": "2026-01-03T00:00:00+00:00",
        "reason": "It is older than 7 days, for which others than full ones are kept.",
    }
    assert (found["wal_removed"], found["kept"]) == (13, 2)
    assert found["retained"] == [
        {
            "backup": "id-c",
            "generation": GENERATION,
            "name": "c",
            "kind": "full",
            "reasons": ["age", "chain"],
        },
        {"backup": "id-d", "generation": GENERATION, "name": "d", "kind": "incremental", "reasons": ["age", "last"]},
    ]
    assert found["window_before"] == [
        {
            "generation": GENERATION,
            "timeline": 1,
            "since": "0/8000012C",
            "since_time": "2026-01-02T00:00:00+00:00",
            "until": "5/0",
            "backups": 4,
        }
    ]
    assert [(window["since"], window["backups"]) for window in found["window_after"]] == [("2/C000012C", 2)]
    assert found["floors"] == [{"generation": GENERATION, "timeline": 1, "lsn": "2/C0000000"}]
    assert (found["skipped"], found["swept"], found["notes"], found["errors"]) == ([], [], [], [])


def test_each_generation_expires_by_itself(repository: Path) -> None:
    other = "7412345678901234567-18"
    shutil.copytree(repository / GENERATION, repository / other)
    (repository / other / "backup" / "a" / backups.MANIFEST).write_text("{")
    found = expiry.expire(configuration(repository, {"minimum_full": 0}), Layout("main"), False, now=LATER)
    assert {one["generation"] for one in found["removed"]} == {GENERATION}
    assert [line.partition(": ")[0] for line in found["skipped"]] == [other]
    # What cannot be read is told, and stops no other.
    (repository / other / archiver.IDENTITY).write_text("{}")
    found = expiry.expire(configuration(repository, {}), Layout("main"), False, now=LATER)
    assert len(found["errors"]) == 1
    assert "damaged" in found["errors"][0]


# --- what stops it


def test_no_backup_at_all(repository: Path) -> None:
    shutil.rmtree(place(repository))
    before = tree(repository)
    done = run(repository).apply()
    assert (done.removed, done.wal, done.plan.skipped) == ((), 0, "There is no backup: all WAL is kept.")
    assert tree(repository) == before


def test_after_a_killed_backup_nothing_expires_until_there_is_a_good_one(repository: Path) -> None:
    with backups.begun(place(repository), "e"):
        pass
    done = run(repository).apply()
    assert (done.removed, done.wal, done.plan.skipped) == ((), 0, expiry.UNFINISHED)
    take(repository, "e", 15, 99)
    assert len(run(repository).apply().removed) == 2


def test_one_at_a_time(repository: Path) -> None:
    with backups.alone(place(repository)), pytest.raises(Busy):
        run(repository).apply()
    assert len(names(repository)) == 4


def test_an_absent_mount_is_told(tmp_path: Path) -> None:
    settings = configuration(tmp_path / "absent", {})
    with pytest.raises(HostFailed, match="Is it mounted"):
        expiry.expire(settings, Layout("main"), False)
    (tmp_path / "absent").mkdir()
    with pytest.raises(HostFailed, match="Is it mounted"):
        expiry.expire(settings, Layout("main"), False)
    with pytest.raises(InvalidInput, match="no repository"):
        expiry.expire(replace(settings, repository=""), Layout("main"), False)
    with pytest.raises(HostFailed, match="is the repository mounted"):
        run(tmp_path / "absent").apply()
    assert list((tmp_path / "absent").iterdir()) == []


def test_a_read_only_repository_is_told_and_can_be_asked(repository: Path, tmp_path: Path) -> None:
    with disks.small(tmp_path / "disk") as mounted:
        if not mounted:
            pytest.skip("no file system can be mounted here")
        copy = tmp_path / "disk" / "shop"
        shutil.copytree(repository, copy)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises(HostFailed, match="Read-only file system"):
            run(copy).apply()
        imagined = expiry.expire(configuration(copy, {"minimum_full": 0}), Layout("main"), True, now=LATER)
        assert len(imagined["removed"]) == 2


# --- others at the same time


HOOKS: list[Callable[[str, tuple[Any, ...]], None]] = []


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    for hook in HOOKS:
        hook(event, arguments)


sys.addaudithook(_heard)


@contextlib.contextmanager
def before_removal_of(ending: str, work: Callable[[], object]) -> Iterator[None]:
    """Do something once, just before the first file is removed whose path ends so."""
    left = [work]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.remove" and left and str(arguments[0]).endswith(ending):
            left.pop()()

    HOOKS.append(hook)
    try:
        yield
    finally:
        HOOKS.remove(hook)
    assert not left


def test_what_is_read_stays_with_its_chain_and_wal(repository: Path) -> None:
    with backups.reading(place(repository), ["b"]):
        done = run(repository).apply()
        assert done.removed == ()
    assert names(repository) == ["a", "b", "c", "d"]
    assert segments(repository) == {2, *range(5, 20)}
    done = run(repository).apply()
    assert [expired.kept.name for expired in done.removed] == ["b", "a"]


def test_whoever_begins_to_read_meanwhile_keeps_what_is_read(repository: Path) -> None:
    with contextlib.ExitStack() as held:
        reader = backups.reading(place(repository), ["a"])
        with before_removal_of("b/manifest.json", lambda: held.enter_context(reader)):
            done = run(repository).apply()
        assert [expired.kept.name for expired in done.removed] == ["b"]
    assert names(repository) == ["a", "c", "d"]
    assert segments(repository) == set(range(2, 20))


def test_whoever_pins_meanwhile_keeps_what_is_pinned(repository: Path) -> None:
    with before_removal_of("b/manifest.json", lambda: backups.pin(place(repository), "a", "why")):
        done = run(repository).apply()
    assert [expired.kept.name for expired in done.removed] == ["b"]
    assert names(repository) == ["a", "c", "d"]
    # This run does not ask why it could not be removed, and takes it for one that is being read.
    assert segments(repository) == set(range(2, 20))
    assert run(repository).apply().wal == 9
    assert segments(repository) == {2, *range(11, 20)}


def _read(repository: Path, begin: Any, said: multiprocessing.SimpleQueue[object], ended: Any) -> None:
    """Read a backup, and say what can be restored from it, before the end of the expiry and after it."""
    begin.wait()
    try:
        with backups.reading(place(repository), ["a"]):
            for _time in range(2):
                held = inventory.read(str(repository), GENERATION)
                said.put(windows.reachable(held.listing.by_id()["id-a"].manifest, 1, held).byte)
                ended.wait()
    except HostFailed as error:
        said.put(error)
        said.put(error)


def test_what_a_reader_has_seen_stays_while_it_reads(repository: Path) -> None:
    """The backup is pinned, and needs only its own WAL: until somebody reads it, who may go on from there."""
    backups.pin(place(repository), "a", "why")
    for number in (1, 3, 4, 8, 10):  # what is being deleted when it begins to be read
        copy = repository.parent / f"copy{number}"
        shutil.copytree(repository, copy)
        begin, said, ended = FORKED.Event(), FORKED.SimpleQueue(), FORKED.Event()
        reader = FORKED.Process(target=_read, args=(copy, begin, said, ended))
        reader.start()
        with before_removal_of(next(_stored(copy, number)), begin.set):
            run(copy).apply()
        first = said.get()
        ended.set()
        reader.join()
        assert isinstance(first, int)
        assert said.get() == first


def _stored(repository: Path, number: int) -> Iterator[str]:
    return (path.name for path in (repository / GENERATION / "wal").rglob(f"{segment(number)}*"))


def _expire(repository: Path, together: Any, said: multiprocessing.SimpleQueue[int]) -> None:
    together.wait()
    try:
        said.put(len(run(repository).apply().removed))
    except Busy:
        said.put(0)


def test_several_at_once_do_it_once(repository: Path) -> None:
    expected = repository.parent / "expected"
    shutil.copytree(repository, expected)
    run(expected).apply()
    for attempt in range(20):
        copy = repository.parent / f"copy{attempt}"
        shutil.copytree(repository, copy)
        together, said = FORKED.Barrier(3), FORKED.SimpleQueue()
        racers = [FORKED.Process(target=_expire, args=(copy, together, said)) for _racer in range(3)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert sorted(said.get() for _racer in racers) == [0, 0, 2]
        assert tree(copy) == tree(expected)


def test_an_archiver_that_is_at_work_loses_nothing(repository: Path) -> None:
    """Its directory is not removed under it."""
    folder = repository / GENERATION / "wal" / "0000000100000000"
    temporary = folder / f".~{segment(1)}~{os.uname().nodename}~{os.getpid()}"
    temporary.touch()
    (folder / f".~{segment(2)}~{os.uname().nodename}~999999999").touch()  # of one that was killed
    run(repository).apply()
    assert list(folder.iterdir()) == [temporary]


# --- killed anywhere


CHANGES = ("os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.truncate", "shutil.rmtree")


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do something in a process that is killed just before its change of that number; whether it came so far."""
    process = os.fork()
    if process == 0:
        left = [number]

        def hook(event: str, _arguments: tuple[Any, ...]) -> None:
            if event in CHANGES:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        HOOKS.append(hook)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def check_between(repository: Path, before: inventory.Inventory, planned: ExpiryPlan) -> None:
    """Whatever is there: nothing that is to stay is touched, and nothing that is there lacks anything."""
    there = inventory.read(str(repository), GENERATION)
    assert not there.listing.damaged
    assert [one.kept for one in planned.kept] == [
        kept for kept in there.listing.backups if kept.name in {one.kept.name for one in planned.kept}
    ]
    for kept in there.listing.backups:
        assert Path(place(repository), kept.name, backups.DATA, "file").read_text() == kept.name
    for one in planned.kept:
        reach = windows.reachable(one.kept.manifest, one.kept.manifest.timeline, there).byte
        old = windows.reachable(one.kept.manifest, one.kept.manifest.timeline, before).byte
        assert reach == old if not one.limited else (reach is None) == (old is None)
    # A window that is told is one.
    for window in windows.windows(there, there.listing.backups):
        assert (window.timeline, window.until) in {
            (old.timeline, old.until) for old in planned.before + planned.after
        }


def test_killed_before_any_change_it_leaves_a_repository_and_the_next_run_does_the_rest(repository: Path) -> None:
    os.makedirs(os.path.join(place(repository), "killed", "data"))
    backups.pin(place(repository), "a", "why")
    take(repository, "e", 6, 2)
    before = inventory.read(str(repository), GENERATION)
    planned = run(repository).planned()
    whole = repository.parent / "whole"
    shutil.copytree(repository, whole)
    run(whole).apply()
    number = 0
    while True:
        number += 1
        copy = repository.parent / "copy"
        shutil.copytree(repository, copy)
        killed = killed_at(number, run(copy).apply)
        check_between(copy, before, planned)
        run(copy).apply()
        assert tree(copy) == tree(whole)
        shutil.rmtree(copy)
        if not killed:
            break
    assert number > 25


def test_random_repositories_expire_as_planned_and_nothing_breaks(tmp_path: Path) -> None:
    """Histories with promotions, recoveries and losses, in directories; killed somewhere, then run to the end."""
    chance = random.Random(16)
    kinds = ("write", "write", "backup", "backup", "backup", "promote", "recover", "stray", "lose")
    done = 0
    for number in range(50):
        acts = [(chance.choice(kinds), chance.randrange(41), chance.randrange(201)) for _act in range(30)]
        world = World().live(acts)
        repository = tmp_path / f"{number}"
        world.store(repository)
        wanted = Retention(chance.choice([0, 30]), chance.choice([0, 7]), chance.randrange(3), chance.choice([0, 20]))
        before = inventory.read(str(repository), GENERATION)
        assert before == replace(world.inventory(), listing=before.listing)
        planned = plan(before, wanted, world.now)
        work = run(repository, world.now, wanted)
        done += killed_at(chance.randrange(1, 60), work.apply)
        check_between(repository, before, planned)
        run(repository, world.now, wanted).apply()
        after = inventory.read(str(repository), GENERATION)
        assert list(after.listing.backups) == [one.kept for one in planned.kept]
        assert after.runs == before.without(planned.wal).runs
        assert windows.windows(after, after.listing.backups) == planned.after
        shutil.rmtree(repository)
    assert done > 15
