"""Root is not led elsewhere by the links of another user."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pgops.host import files
from pgops.host.directories import opened, reached
from pgops.host.files import Directory, File, Link

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    """A directory of another user's, beside one of root's."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    return tmp_path


@pytest.mark.parametrize("owner", [0, NOBODY])
def test_a_link_in_a_directory_of_another_s_is_not_followed(place: Path, owner: int) -> None:
    link = place / "theirs/way"
    link.symlink_to(place / "ours")
    os.chown(link, owner, owner, follow_symlinks=False)
    before = os.stat(place / "ours")
    for act in (
        lambda: Directory(str(link), 0o777, "nobody").make(),
        lambda: Directory(str(link / "new"), 0o777, "nobody").make(),
        lambda: File(str(link / "file"), b"text").make(),
        lambda: Link(str(link / "link"), "/etc").make(),
        lambda: files.remove(str(link / "kept")),
        lambda: opened(str(link / "kept")).__enter__(),
    ):
        (place / "ours/kept").touch()
        with pytest.raises(OSError, match="another user can change") as caught:
            act()
        assert caught.value.errno == errno.ELOOP
    assert os.listdir(place / "ours") == ["kept"]
    assert (os.stat(place / "ours").st_mode, os.stat(place / "ours").st_uid) == (before.st_mode, before.st_uid)


def test_nor_is_one_in_a_directory_that_others_may_write(place: Path) -> None:
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o775)
    (shared / "way").symlink_to(place / "ours")
    with pytest.raises(OSError, match="another user can change"), reached(str(shared / "way")):
        pass
    shared.chmod(0o1777)
    with reached(str(shared / "way")) as found:
        assert os.path.samestat(os.fstat(found), os.stat(place / "ours"))


def test_root_s_own_links_are_followed(place: Path) -> None:
    (place / "ours/deep").mkdir()
    (place / "way").symlink_to("ours")
    (place / "whole").symlink_to(place / "way/../way/deep")
    with reached(str(place / "whole")) as found:
        assert os.path.samestat(os.fstat(found), os.stat(place / "ours/deep"))
    File(str(place / "way/file"), b"text", 0o640).make()
    assert (place / "ours/file").read_bytes() == b"text"


def test_links_in_a_circle_end(place: Path) -> None:
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    with pytest.raises(OSError, match="link"), reached(str(place / "one")):
        pass


def test_what_is_opened_is_no_link(place: Path) -> None:
    (place / "theirs/file").symlink_to("/etc/shadow")
    with pytest.raises(OSError, match="symbolic link"), opened(str(place / "theirs/file")):
        pass


@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
def test_what_is_no_file_is_not_read(place: Path, kind: str) -> None:
    path = place / "theirs/file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"not a regular file|has more than"):
        files.contents(str(path))
