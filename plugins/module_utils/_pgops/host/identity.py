# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Acting as another user: work by a child process that has become it for good, and a connection as it.

What another user can change (files, links, programs) root looks at and writes as that user only: then nothing that
the user puts there can have more rights than the user has.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import HostFailed, PgOpsError

PATIENCE = 60.0
"""Seconds that work as another user may take unless the caller says otherwise."""
ENDING = 0.5
"""Seconds in which a process must end after SIGKILL; then it is left to the kernel."""
CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user and group of who listens."""
LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes of the longest answer that is read from such a process."""


@dataclass(frozen=True)
class User:
    """An operating system's user, with all its groups, by their numbers."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def is_root(name: str) -> bool:
    """Whether a user's name is one of root's."""
    try:
        return name == "root" or pwd.getpwnam(name).pw_uid == 0
    except KeyError:
        return False


def user(uid: int) -> User:
    """The user with a uid, for work on a server's behalf.

    Raises HostFailed for root, as whom no server runs, and for a uid without a user.
    """
    if uid == 0:
        raise HostFailed(
            "What belongs to root is not done on a server's behalf: PostgreSQL never runs as root.",
            "Find out why root owns it, and give it to the server's user.",
        )
    try:
        found = pwd.getpwuid(uid)
    except KeyError as error:
        raise HostFailed(f"This host has no user with the uid {uid}.") from error
    return User(found.pw_name, uid, found.pw_gid, tuple(os.getgrouplist(found.pw_name, found.pw_gid)))


def as_user(uid: int, work: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Have a child process, which has become a user for good, do some work; returns its result, which must be JSON.

    Not as root, it is done here: there are no rights to be given up. The errors of the library and OSError are raised
    here as they were there.

    Raises HostFailed if the child does not answer within ``seconds``, and for root as the user.
    """
    if os.geteuid() != 0:
        return work()
    whom = user(uid)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _child(whom, work, writing)
    try:
        os.close(writing)
        answer = _answer(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        end(child)
    return _result(answer, whom, seconds)


def working_as() -> str:
    """In such a child, the name of its user; '' elsewhere."""
    return _WORKING_AS[-1] if _WORKING_AS else ""


_WORKING_AS: list[str] = []


def close_all(but: int) -> None:
    """Keep nothing open that another process may wait for, such as a lock, besides one descriptor."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for other in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, but}:
        with contextlib.suppress(OSError):
            os.close(other)


def become(uid: int) -> None:
    """As root, have this process become a user for good, with all of that user's groups. Otherwise nothing.

    Raises HostFailed, also for root as the user.
    """
    if os.geteuid() == 0:
        _give_up(user(uid))


def _give_up(whom: User) -> None:
    os.setgroups(whom.groups)
    os.setresgid(whom.gid, whom.gid, whom.gid)
    os.setresuid(whom.uid, whom.uid, whom.uid)


def _become(whom: User) -> None:
    """With no way back, and without a terminal that root may be reading from."""
    os.setsid()
    _give_up(whom)
    _WORKING_AS.append(whom.name)
    os.chdir("/")


def end(child: int) -> None:
    """End a child process; one that hangs in the kernel is not waited for."""
    os.kill(child, signal.SIGKILL)
    until = time.monotonic() + ENDING
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.001)


def _child(whom: User, work: Callable[[], Any], answers: int) -> NoReturn:
    try:
        close_all(but=answers)
        _become(whom)
        answer: dict[str, Any]
        try:
            answer = {"result": work()}
        except PgOpsError as error:
            answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        except OSError as error:
            answer = {
                "errno": error.errno,
                "strerror": error.strerror or str(error),
                "path": str(error.filename or ""),
            }
        text = json.dumps(answer).encode() + b"\n"
        while text:
            text = text[os.write(answers, text) :]
    except BaseException as error:  # noqa: BLE001 - it must not go on as a copy of the process that it came from
        with contextlib.suppress(BaseException):
            os.write(answers, json.dumps({"crash": f"{type(error).__name__}: {error}"}).encode() + b"\n")
    finally:
        os._exit(0)


def _answer(reading: int, until: float) -> bytes:
    """A line of the child, or what it wrote of it in time."""
    parts: list[bytes] = []
    size = 0
    while size <= LARGEST_ANSWER and select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        read = os.read(reading, 1 << 20)
        parts.append(read)
        size += len(read)
        if not read or read.endswith(b"\n"):
            break
    return b"".join(parts)


def _result(text: bytes, whom: User, seconds: float) -> Any:
    if not text.endswith(b"\n"):
        raise HostFailed(
            f"Work as user {whom.name} did not end within {seconds:g} seconds, or was stopped.",
            "A file system may hang, or that user's processes may be limited.",
        )
    answer = json.loads(text)
    if "error" in answer:
        kinds = {kind.__name__: kind for kind in _kinds(PgOpsError)}
        raise kinds[answer["error"]](answer["message"], answer["hint"])
    if "errno" in answer:
        raise OSError(answer["errno"], answer["strerror"], answer["path"] or None)
    if "crash" in answer:
        raise HostFailed(f"Work as user {whom.name} failed: {answer['crash']}.")
    return answer["result"]


def _kinds(kind: type[PgOpsError]) -> Iterator[type[PgOpsError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def peer(descriptor: int) -> tuple[int, int]:
    """Process and uid of who listens on the Unix socket at the other end. Raises OSError."""
    with socket.socket(fileno=os.dup(descriptor)) as wire:
        process, uid, _gid = CREDENTIALS.unpack(
            wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
    return process, uid


@contextlib.contextmanager
def acting_as(uid: int | None) -> Iterator[None]:
    """Act as another effective user, and then switch back; None changes nothing. For opening a connection alone: the
    kernel tells the server who did. All else that concerns another user is for `as_user`."""
    if uid is None or uid == os.geteuid():
        yield
        return
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)
