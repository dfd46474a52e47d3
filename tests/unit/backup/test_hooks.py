# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hooks are root's, or are not run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgops.backup import hooks
from pgops.errors import HostFailed, InvalidInput


def program(folder: Path, text: str = "exit 0", mode: int = 0o755) -> Path:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can make a program of root's")
    return tmp_path


def test_no_hook_is_none() -> None:
    hooks.check("")
    hooks.run("")


def test_one_of_roots_is_run_with_its_words(folder: Path) -> None:
    hooks.run(str(program(folder, f"echo $* > {folder}/said")), "before", "shop", "full")
    assert (folder / "said").read_text() == "before shop full\n"


def test_its_failure_is_told(folder: Path) -> None:
    with pytest.raises(HostFailed, match=r"The hook .*exit code 3: no room"):
        hooks.run(str(program(folder, "echo no room >&2; exit 3")))


def test_the_name_of_a_database_may_be_of_any_bytes(folder: Path) -> None:
    """It reaches the program as it is, and the error of that can be written."""
    name = os.fsdecode(b"caf\xe9")
    with pytest.raises(HostFailed, match=r"The hook .*exit code 3: no room") as caught:
        hooks.run(str(program(folder, f'printf %s "$2" > {folder}/said; echo no room >&2; exit 3')), "before", name)
    assert (folder / "said").read_bytes() == b"caf\xe9"
    assert str(caught.value).encode()


def test_what_fails_afterwards_is_told_and_nothing_more(folder: Path) -> None:
    assert hooks.after("", "shop") == []
    assert hooks.after(str(program(folder, f"echo $* > {folder}/said")), "shop", "dump") == []
    assert (folder / "said").read_text() == "after shop dump\n"
    (error,) = hooks.after(str(program(folder, "exit 3")))
    assert "exit code 3" in error
    (error,) = hooks.after(str(program(folder, mode=0o777)))
    assert "others than root can change" in error


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_one_that_others_can_write_is_not_run(folder: Path, mode: int) -> None:
    with pytest.raises(InvalidInput, match="others than root can change"):
        hooks.check(str(program(folder, mode=mode)))


def test_one_of_another_user_is_not_run(folder: Path) -> None:
    path = program(folder)
    os.chown(path, 65534, 65534)
    with pytest.raises(InvalidInput, match="others than root can change"):
        hooks.check(str(path))


def test_one_in_a_directory_of_another_user_is_not_run(folder: Path) -> None:
    path = program(folder)
    os.chown(folder, 65534, 65534)
    with pytest.raises(InvalidInput, match="others than root can change"):
        hooks.check(str(path))
    link = folder.parent / "link"
    link.symlink_to(path)
    with pytest.raises(InvalidInput, match="others than root can change"):
        hooks.check(str(link))


def test_what_is_no_program_is_not_run(folder: Path) -> None:
    for path in (folder, folder / "absent", program(folder, mode=0o644)):
        with pytest.raises(InvalidInput, match="hook"):
            hooks.check(str(path))
    with pytest.raises(InvalidInput, match="absolute"):
        hooks.check("hook")
