"""A pytest plugin for mutation tests: a test that is about to change the host is skipped before it does.

What changed code does, nobody has meant: where `in` has become `not in`, a function that ends the processes of a job
ends all others. So while tests are collected and run, they start no program, end no process, connect to nothing, and
write only below the directory that the environment variable PGOPS_SANDBOX names. Python's audit events tell what is
about to happen; Skipped is no Exception, so that no code takes it for a failure of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

SANDBOX = os.path.realpath(os.environ["PGOPS_SANDBOX"])
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NEVER = {
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen"),
    *("os.kill", "os.killpg", "signal.pthread_kill"),
    *("socket.bind", "socket.connect", "socket.sendmsg", "socket.sendto"),
}
CHANGES = {
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.removexattr": ((0, None),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.setxattr": ((0, None),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
}
"""By the event that changes a file, the places of its paths among the arguments, and of the directories (dir_fd) that
these are in."""

running = False
"""Whether tests are collected or run: before and after that pytest and mutmut are about their own business."""


def inside(path: Any, directory: int = -1) -> bool:
    """Whether a path is below SANDBOX, or of a file that has been opened; its directory may be a link."""
    if isinstance(path, int):
        return True
    base = os.readlink(f"/proc/self/fd/{directory}") if directory >= 0 else os.getcwd()
    folder, name = os.path.split(os.path.join(base, os.fsdecode(path)))
    whole = os.path.normpath(os.path.join(os.path.realpath(folder), name))
    return whole == os.devnull or whole.startswith(f"{SANDBOX}{os.sep}")


def harmless(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether what is about to happen stays in the sandbox."""
    if event in NEVER:
        return False
    if event == "open":
        path, mode, flags = arguments
        # os.open() does not tell in which directory a relative path is.
        told = mode is not None or isinstance(path, int) or os.path.isabs(path)
        return not (flags or 0) & WRITING or (told and inside(path))
    return all(
        inside(arguments[place], -1 if directory is None else arguments[directory])
        for place, directory in CHANGES.get(event, ())
    )


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook."""
    if running and not harmless(event, arguments):
        pytest.skip(f"would change the host: {event}")


def watched() -> Iterator[None]:
    """Watch all that a hook of pytest does."""
    global running  # noqa: PLW0603 - an audit hook can't be taken off again
    running = True
    try:
        return (yield)
    finally:
        running = False


pytest_collection = pytest_runtestloop = pytest.hookimpl(wrapper=True)(watched)
sys.addaudithook(watch)
