# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to change in files, directories and links, and how much of that is shown."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

from pgops.errors import Conflict
from pgops.host import files
from pgops.host.files import Directory, Entry, File, Found, Link

FILE = File("/etc/a", b"one\n", 0o640, "root", "staff")
SECRET = replace(FILE, secret=True)
DIRECTORY = Directory("/etc/d", 0o750, "root", "staff")
LINK = Link("/etc/l", "/srv/x")
THERE = Found("file", 0o640, "root", "staff", b"one\n")


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (FILE, THERE),
        (SECRET, THERE),
        (DIRECTORY, Found("directory", 0o750, "root", "staff")),
        (replace(DIRECTORY, owner=None, group=None), Found("directory", 0o750, "me", "mine")),
        (LINK, Found("link", 0o777, "anybody", "anybody", to="/srv/x")),
        # The owners of who runs this are whatever they are.
        (replace(FILE, owner=None, group=None), replace(THERE, owner="me", group="mine")),
    ],
)
def test_what_is_as_wanted_is_no_change(entry: Entry, found: Found) -> None:
    assert files.plan([entry], {entry.path: found}) == ()


@pytest.mark.parametrize(
    ("entry", "found", "line", "before", "after"),
    [
        (
            FILE,
            None,
            "create file /etc/a",
            None,
            {"mode": "0640", "owner": "root", "group": "staff", "content": "\none\n"},
        ),
        (FILE, replace(THERE, content=b"\xff"), "update file /etc/a", {"content": "\n\\xff"}, {"content": "\none\n"}),
        (FILE, replace(THERE, mode=0o644), "update file /etc/a", {"mode": "0644"}, {"mode": "0640"}),
        (FILE, replace(THERE, owner="eve"), "update file /etc/a", {"owner": "eve"}, {"owner": "root"}),
        (
            replace(FILE, owner=None, group=None),
            None,
            "create file /etc/a",
            None,
            {"mode": "0640", "content": "\none\n"},
        ),
        (
            DIRECTORY,
            None,
            "create directory /etc/d",
            None,
            {"mode": "0750", "owner": "root", "group": "staff"},
        ),
        (
            DIRECTORY,
            Found("directory", 0o755, "root", "root"),
            "update directory /etc/d",
            {"mode": "0755", "group": "root"},
            {"mode": "0750", "group": "staff"},
        ),
        (LINK, None, "create link /etc/l", None, {"to": "/srv/x"}),
        (
            LINK,
            Found("link", 0o777, "root", "root", to="/srv/y"),
            "update link /etc/l",
            {"to": "/srv/y"},
            {"to": "/srv/x"},
        ),
    ],
)
def test_a_change_shows_what_differs(
    entry: Entry, found: Found | None, line: str, before: dict[str, str] | None, after: dict[str, str]
) -> None:
    (change,) = files.plan([entry], {entry.path: found})
    assert (change.line, change.before, change.after) == (line, before, after)
    assert change.entry is entry


def test_of_a_secret_it_is_only_shown_that_it_changes() -> None:
    (new,) = files.plan([SECRET], {})
    assert new.after == {"mode": "0640", "owner": "root", "group": "staff", "content": "(hidden)"}
    (changed,) = files.plan([SECRET], {"/etc/a": replace(THERE, content=b"two\n")})
    assert (changed.before, changed.after) == ({"content": "(hidden)"}, {"content": "another (hidden)"})
    (opened,) = files.plan([SECRET], {"/etc/a": replace(THERE, mode=0o644)})
    assert (opened.before, opened.after) == ({"mode": "0644"}, {"mode": "0640"})


@pytest.mark.parametrize(
    ("entry", "kind", "hint"),
    [
        (FILE, "directory", "Find out who created it"),
        (FILE, "link", "Find out who created it"),
        (FILE, "other", "Find out who created it"),
        (DIRECTORY, "file", "Find out who created it"),
        (DIRECTORY, "link", "Links are not followed"),
        (LINK, "file", "Find out who created it"),
        (LINK, "directory", "Find out who created it"),
    ],
)
def test_what_is_of_another_kind_is_somebody_elses(entry: Entry, kind: str, hint: str) -> None:
    with pytest.raises(Conflict, match=f"{entry.path} is a {kind}, but must be a ") as error:
        files.plan([entry], {entry.path: Found(kind, 0o640, "root", "staff")})
    assert error.value.hint.startswith(hint)


def test_what_is_removed_is_shown_without_its_content() -> None:
    found = {
        "/etc/a": THERE,
        "/etc/d": Found("directory", 0o755, "root", "root"),
        "/etc/l": Found("link", 0o777, "root", "root", to="/srv/x"),
        "/etc/kept": THERE,
        "/etc/none": None,
    }
    removed = files.removal(["/etc/l", "/etc/none", "/etc/never", "/etc/a", "/etc/d"], found)
    assert [change.line for change in removed] == [
        "remove link /etc/l",
        "remove file /etc/a",
        "remove directory /etc/d",
    ]
    assert [change.path for change in removed] == ["/etc/l", "/etc/a", "/etc/d"]
    assert removed[1].before == {"mode": "0640", "owner": "root", "group": "staff", "content": "(hidden)"}
    assert removed[2].before == {"mode": "0755", "owner": "root", "group": "root"}


def test_a_directory_that_is_still_written_to_is_removed(tmp_path: Path) -> None:
    """As by the compiler that a killed run has started."""
    folder = tmp_path / "folder"
    folder.mkdir()
    script = "import sys\nfor n in range(3000): open(f'{sys.argv[1]}/{n % 50}', 'w').close()"
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stderr=subprocess.DEVNULL) as writer:
        until(lambda: any(folder.iterdir()), "written to")
        files.remove(str(folder))
        writer.kill()
    files.remove(str(folder))
    assert not folder.exists()


def test_a_tree_is_flushed_with_all_that_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {str(tmp_path)}
    for folder in ("a", "a/b", "c"):
        (tmp_path / folder).mkdir()
        wanted.add(str(tmp_path / folder))
        for number in range(40):
            (tmp_path / folder / str(number)).write_text("x")
            wanted.add(str(tmp_path / folder / str(number)))
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    files.sync_tree(str(tmp_path))
    assert sorted(seen) == sorted(wanted)


def test_a_file_that_cannot_be_flushed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        (tmp_path / str(number)).write_text("x")

    def fails(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/17"):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        files.sync_tree(str(tmp_path))
