# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The space on the disks of a server, which SQL does not show: the server names the paths, and the agent, on the same
host, measures their file systems."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import HostFailed
from ..host import mounts
from ..host.files import contents, failure
from ..host.identity import ENDING, as_user, close_all, end
from . import discovery
from .target import Target

MB = 1024 * 1024
STARTING = 2.0
"""Seconds that the process may take in addition to the time limit of its work."""
FINDING = 5.0
"""Seconds in which the server's directories must be found when the agent is deployed."""


@dataclass(frozen=True)
class Host:
    """What the agent knows about its host's disks in addition to the server's paths.

    ``lock`` is the file that prevents a second measurement of a path while an earlier one hangs. ``repository`` is ''
    if there is none. ``real_paths`` are paths of the server without links, as of the agent's deployment.
    """

    lock: str
    repository: str = ""
    real_paths: Mapping[str, str] = field(default_factory=dict)


def measured(
    host: Host, found: Sequence[Mapping[str, Any]], seconds: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the collector `disks`, and messages about what could not be measured.

    ``found`` are the places that the server names: ``disk`` and other labels, and the ``path``. It takes at most
    ``seconds``, and a little for the start of a process.

    Raises HostFailed.
    """
    places = [dict(row) for row in found]
    places += [{"disk": "repository", "path": host.repository}] if host.repository else []
    answers = _answers(host, [str(place["path"]) for place in places], seconds)
    rows, wrong = [], []
    for place, answer in zip(places, answers):
        path = place.pop("path")
        if "error" in answer:
            wrong.append(f"the disk of {path} cannot be measured: {answer['error']}")
        else:
            rows.append({**place, **_row(answer)})
    return rows, wrong


def _row(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Shares as df(1) computes them, without its rounding: space reserved for root is neither used nor free."""
    used_inodes = answer["inodes"] - answer["free_inodes"]
    return {
        "mount": answer["mount"] or None,
        "disk_size_mb": answer["size"] / MB,
        "disk_free_mb": answer["free"] / MB,
        "disk_used_percent": _percent(answer["used"], answer["free"]),
        "disk_inodes_used_percent": _percent(used_inodes, answer["free_inodes"]) if answer["inodes"] else None,
    }


def _percent(used: int, free: int) -> float | None:
    return 100 * used / (used + free) if used + free else None


def _answers(host: Host, paths: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """The answers of `mounts` for each path."""
    asked = json.dumps([[path, host.real_paths.get(path)] for path in paths])
    program = [sys.executable, "-IS", mounts.__file__, str(seconds), asked]
    try:
        process = _started(program, host.lock)
    except OSError as error:
        raise failure(error, "The process that measures disks cannot be started") from error
    output = _output(process, seconds + STARTING)
    failed = process.returncode not in (0, -signal.SIGKILL)
    silence = (
        f"exit code {process.returncode} of {mounts.__file__}" if failed else f"no answer for {seconds:g} seconds"
    )
    answers: list[dict[str, Any]] = [{"error": silence} for _path in paths]
    for line in output.splitlines():
        answer = json.loads(line)
        answers[answer.pop("number")] = answer
    return answers


def _started(program: Sequence[str], lock: str) -> subprocess.Popen[bytes]:
    """In its own session: ending the agent's session must not wait for a process that cannot be ended."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        return subprocess.Popen(  # pylint: disable=ansible-bad-function
            program, stdin=descriptor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    finally:
        os.close(descriptor)


def _output(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The output of a process until it ended or the time limit was reached. One that hangs in the kernel is not
    waited for."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired as late:
        return bytes(late.output or b"")
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDING)
    if process.stdout:
        process.stdout.close()
    # Otherwise Python would go on asking for it.
    process.returncode = -signal.SIGKILL if process.returncode is None else process.returncode


def real_paths(target: Target) -> dict[str, str | None]:
    """The directories of the server behind a local socket without links, by the server's names for them: the data
    directory, pg_wal, and the tablespaces. None for one that was not found in time, since a file system hangs; empty
    if the server is not found.

    Root looks as the server's own user, so that it shows nothing which that user may not see.
    """
    owner = discovery.server_at(os.path.dirname(target.socket_path), int(target.port))
    if owner is None:
        return {}
    lock = f"{target.socket_path}.lock"
    try:
        found: dict[str, str | None] = as_user(owner, lambda: _found(lock), FINDING + STARTING)
    except (HostFailed, OSError):
        return {}
    return found


def _found(lock_file: str) -> dict[str, str | None]:
    try:
        paths = _directories(lock_file)
    except (OSError, ValueError, IndexError):
        return {}
    found = _resolved(paths, FINDING)
    return {path: found.get(path) for path in paths}


def _directories(lock_file: str) -> list[str]:
    """The server's directories, found by the lock file of its socket."""
    text = contents(lock_file, discovery.LARGEST_LOCK, follow=False).decode("utf-8", "surrogateescape")
    data = text.splitlines()[discovery.DATA_DIRECTORY]
    folder = os.path.join(data, "pg_tblspc")
    spaces = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    outside = [os.readlink(path) for path in spaces if os.path.islink(path)]
    return [data, os.path.join(data, "pg_wal"), *outside]


def _resolved(paths: Sequence[str], seconds: float) -> dict[str, str]:
    """Paths without links, as far as they are found within ``seconds``.

    In a separate process, as in `mounts`, but by fork: a module has no file of `mounts`, and the server's user may
    not have access to the Python that runs it.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _resolve(paths, writing)
    os.close(writing)
    output, until = b"", time.monotonic() + seconds
    while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        read = os.read(reading, 65536)
        if not read:
            break
        output += read
    os.close(reading)
    end(child)
    return dict(json.loads(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n"))


def _resolve(paths: Sequence[str], answers: int) -> NoReturn:
    """In the child: a line of JSON for each path."""
    try:
        close_all(but=answers)
        for path in paths:
            os.write(answers, json.dumps([path, os.path.realpath(path)]).encode() + b"\n")
    finally:
        os._exit(0)
