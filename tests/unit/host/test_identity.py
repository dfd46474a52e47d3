"""Work as another user gives up root's rights for good, and brings back what it found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgops.errors import Conflict, HostFailed, PgOpsError
from pgops.host import commands, files
from pgops.host.identity import as_user

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def _denied(act: Callable[[], object]) -> bool:
    try:
        act()
    except PermissionError:
        return True
    return False


def _tries() -> list[bool]:
    return [
        _denied(lambda: os.setuid(0)),
        _denied(lambda: os.setresuid(0, 0, 0)),
        _denied(lambda: os.setgroups([0])),
        _denied(lambda: files.contents("/etc/shadow")),
    ]


@as_root
def test_there_is_no_way_back() -> None:
    assert as_user(NOBODY, _tries) == [True] * 4
    assert as_user(NOBODY, lambda: [os.getresuid(), os.getresgid(), os.getgroups()]) == [
        [NOBODY] * 3,
        [NOBODY] * 3,
        [NOBODY],
    ]
    assert os.getresuid() == (0, 0, 0)


@as_root
def test_it_has_neither_terminal_nor_lock_nor_file_of_root_s(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        shared = as_user(NOBODY, lambda: [os.getsid(0) == os.getpid(), _is_open(file.fileno())])
    assert shared == [True, False]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@as_root
@pytest.mark.parametrize("act", [lambda: as_user(0, dict), lambda: commands.run(["true"], owner=0)])
def test_nothing_is_done_as_root_on_a_server_s_behalf(act: Callable[[], Any]) -> None:
    with pytest.raises(HostFailed, match="never runs as root"):
        act()


@as_root
def test_a_user_that_the_host_does_not_have_is_refused() -> None:
    with pytest.raises(HostFailed, match="no user with the uid 4000000000"):
        as_user(4_000_000_000, dict)


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [Conflict("Not this.", "Do that."), FileNotFoundError(2, "No such file", "/there")])
def test_errors_are_those_of_the_work(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        as_user(NOBODY, lambda: _raise(error))
    assert str(caught.value) == str(error)
    assert isinstance(caught.value, PgOpsError) or caught.value.filename == "/there"


@as_root
def test_what_ends_the_work_does_not_end_root() -> None:
    with pytest.raises(HostFailed, match="ZeroDivisionError"):
        as_user(NOBODY, lambda: 1 // 0)
    with pytest.raises(HostFailed, match="or was stopped"):
        as_user(NOBODY, lambda: os._exit(0))


@as_root
def test_work_that_hangs_is_left() -> None:
    reading, writing = os.pipe()
    with pytest.raises(HostFailed, match="did not end within"):
        as_user(NOBODY, lambda: time.sleep(1e6), seconds=0.1)  # noqa: TID251
    os.close(reading)
    os.close(writing)


def test_a_long_answer_comes_back_whole() -> None:
    text = "\udcff\n" * 1_000_000
    assert as_user(NOBODY, lambda: text) == text


# --- programs


@as_root
def test_a_server_s_program_has_nothing_of_root_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/root/lib")
    monkeypatch.setenv("PGPASSWORD", "secret")
    shown = commands.run(
        ["/bin/sh", "-c", "env; id -u; id -G; pwd; ps -o sid= -p $$ | tr -d ' '; echo $$"], owner=NOBODY
    )
    assert "/root" not in shown
    assert "secret" not in shown
    *_environment, uid, groups, place, session, process = shown.split("\n")[:-1]
    assert (uid, groups, place, session) == (str(NOBODY), str(NOBODY), "/", process)


def test_endless_output_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MOST_OUTPUT", 100_000)
    with pytest.raises(HostFailed, match="writes too much"):
        commands.run(["/bin/sh", "-c", "yes"])


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(HostFailed, match="did not finish within"):
        commands.run(["/bin/sh", "-c", "exec sleep 1000000"], timeout=0.1)


def test_what_a_program_says_is_told() -> None:
    assert commands.run(["/bin/sh", "-c", "echo out; exit 3"], accepted=(3,)) == "out\n"
    with pytest.raises(HostFailed, match="exit code 3: worse"):
        commands.run(["/bin/sh", "-c", "echo out; echo worse >&2; exit 3"])
    with pytest.raises(HostFailed, match="was not found"):
        commands.run(["/nowhere/program"])
