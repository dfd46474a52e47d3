# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told to be in the repository survives a loss of power: a file is on disk before it has its name, and the
name is before anybody is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keeping import manifest

from pgops.errors import HostFailed
from pgops.repository import archiver, backups, generations

NAME = "000000010000000000000003"
Calls = list[tuple[str, str]]


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is done to files, in order: with the path that it is done to, or that comes of it."""
    seen: Calls = []

    def watched(name: str, of: Callable[..., str]) -> None:
        before = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            path = of(*arguments, **options)
            done = before(*arguments, **options)
            seen.append((name, path))
            return done

        monkeypatch.setattr(os, name, call)

    def located(path: str, place: int | None) -> str:
        return os.path.join(os.readlink(f"/proc/self/fd/{place}"), path) if place is not None else str(path)

    watched("fsync", lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    watched("link", lambda _one, other: str(other))
    watched("mkdir", lambda path, _mode=0o777, dir_fd=None: located(path, dir_fd))
    watched("unlink", lambda path, dir_fd=None: located(path, dir_fd))
    for name in ("rename", "replace"):
        watched(name, lambda _one, other, src_dir_fd=None, dst_dir_fd=None: located(other, dst_dir_fd))  # noqa: ARG005
    return seen


def after(calls: Calls, call: tuple[str, str]) -> Calls:
    return calls[calls.index(call) + 1 :]


@pytest.fixture(name="repository")
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    wal = tmp_path / "shop" / "1-18" / "wal"
    wal.mkdir(parents=True)
    (wal.parent / archiver.IDENTITY).write_text("{}")
    (tmp_path / "00000001.history").write_text("")
    monkeypatch.setattr(archiver, "check_node", lambda *_which: None)
    monkeypatch.setattr(archiver, "check_segment", lambda *_which: None)
    return tmp_path / "shop"


def push(repository: Path) -> Path:
    source = repository.parent / NAME
    source.write_bytes(b"WAL")
    archiver.push(str(repository), "1-18", "none", str(source))
    return repository / "1-18" / "wal" / NAME[:16] / NAME


def test_a_segment_is_on_disk_before_it_is_archived(repository: Path, calls: Calls) -> None:
    target = push(repository)
    folder = target.parent
    linked = calls.index(("link", str(target)))
    synced = [path for call, path in calls[:linked] if call == "fsync"]
    assert any(Path(path).name.startswith(f".~{NAME}") for path in synced)
    assert str(folder.parent) in [path for call, path in after(calls, ("mkdir", str(folder))) if call == "fsync"]
    assert ("fsync", str(folder)) in after(calls, ("link", str(target)))


def test_a_directory_that_a_killed_archiver_made_is_on_disk_before_a_segment_is_archived(
    repository: Path, calls: Calls
) -> None:
    (repository / "1-18" / "wal" / NAME[:16]).mkdir()
    calls.clear()
    target = push(repository)
    assert ("fsync", str(target.parent.parent)) in calls


def test_what_is_there_already_is_on_disk_before_it_is_accepted(repository: Path, calls: Calls) -> None:
    target = push(repository)
    calls.clear()
    push(repository)
    assert {("fsync", str(target)), ("fsync", str(target.parent))} <= set(calls)


def test_a_backup_is_on_disk_before_it_counts_and_gone_before_its_files_are(repository: Path, calls: Calls) -> None:
    place = backups.prepared(str(repository), "1-18")
    assert ("fsync", str(repository / "1-18")) in after(calls, ("mkdir", place))
    with backups.alone(place), backups.begun(place, "a") as path:
        assert ("fsync", place) in after(calls, ("mkdir", path))
        backups.publish(path, manifest())
    named = next(call for call in calls if call[0] in ("rename", "replace") and call[1].endswith("a/manifest.json"))
    assert any(call == "fsync" and "manifest.json" in one for call, one in calls[: calls.index(named)])
    assert ("fsync", path) in after(calls, named)
    calls.clear()
    with backups.alone(place):
        assert backups.remove(place, "a")
    gone = ("unlink", f"{path}/manifest.json")
    assert after(calls, gone)[0] == ("fsync", path)
    assert calls[-1] == ("fsync", place)


@pytest.mark.parametrize("call", ["link", "rename", "fsync", "open"])
def test_a_file_system_that_lacks_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    generations.try_file_system(str(tmp_path))
    assert list(tmp_path.iterdir()) == []

    def fails(*_arguments: Any, **_options: Any) -> None:
        raise OSError(95, "Operation not supported")

    if call == "open":
        monkeypatch.setattr("builtins.open", fails)
    else:
        monkeypatch.setattr(os, call, fails)
    with pytest.raises(HostFailed, match="cannot be used for a repository: Operation not supported"):
        generations.try_file_system(str(tmp_path))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("call", "said"), [("link", "link.. to an existing"), ("rename", "rename.. leaves")])
def test_a_file_system_that_only_pretends_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, said: str
) -> None:
    """As some do over the network: link() replaces what is there, or rename() is a copy."""

    def pretends(one: str, other: str) -> None:
        Path(other).write_bytes(Path(one).read_bytes())

    monkeypatch.setattr(os, call, pretends)
    with pytest.raises(HostFailed, match=said):
        generations.try_file_system(str(tmp_path))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
