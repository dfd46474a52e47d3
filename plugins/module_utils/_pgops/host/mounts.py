# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The values of statvfs(3) for file systems, read by a process of its own: a call for a network file system whose
server is gone may never return, and then even SIGKILL may not end the process.

This is a program of its own, with few imports, since `disks` starts it each minute:

    mounts SECONDS PLACES      PLACES is JSON: [[path, the same without links or null], ...]

One line of JSON for each answer: the place's number in the list, and its values or the ``error``. A thread of its own
reads each place. Meanwhile the process locks a byte of the file on its standard input, which stands for the path; the
kernel releases that lock when the process has ended. So a path that hangs blocks one process, and not one more every
minute, and no other path.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import threading
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MOUNTS = "/proc/self/mountinfo"
HANGS = "it hangs, and a process from an earlier run still waits for it"


def main() -> None:
    """Read all places, for so many seconds; then end, whatever still hangs."""
    until = time.monotonic() + float(sys.argv[1])
    known = mount_points(_read(MOUNTS))
    threads = []
    for number, (path, real) in enumerate(json.loads(sys.argv[2])):
        obstacle = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if obstacle:
            _print(number, {"error": obstacle})
            continue
        threads.append(threading.Thread(target=_measure, args=(number, path, real, known), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    os._exit(0)


def _lock(path: str, how: int) -> str:
    """Lock or unlock a path for this process; returns the error, '' if there is none."""
    try:
        fcntl.lockf(0, how, 1, zlib.crc32(os.fsencode(path)))
    except OSError as error:
        # Either of them if another process has it, fcntl(2).
        return HANGS if error.errno in (errno.EACCES, errno.EAGAIN) else f"cannot lock: {error.strerror}"
    return ""


def _measure(number: int, path: str, real: str | None, known: Sequence[str]) -> None:
    try:
        found = space(path, real, known)
    except OSError as error:
        found = {"error": error.strerror or str(error)}
    _lock(path, fcntl.LOCK_UN)
    _print(number, found)


def _print(number: int, found: dict[str, Any]) -> None:
    # One call, so that the lines of several threads do not mix.
    os.write(1, f"{json.dumps({'number': number, **found})}\n".encode())


def space(path: str, real: str | None, known: Sequence[str]) -> dict[str, Any]:
    """The file system that a path is on: ``mount``, its mount point; in bytes ``size``, ``used``, and ``free`` for
    users other than root; ``inodes`` and ``free_inodes``, which are 0 if it has no such limit.

    If the path is not accessible, its mount point is found by its name without links, ``real``, if that is known: the
    mount point above it may still be accessible.

    Raises OSError.
    """
    try:
        found = os.statvfs(path)
        mount = mount_point(os.path.realpath(path), known)
    except PermissionError:
        if real is None:
            raise
        mount = mount_point(real, known)
        found = os.statvfs(mount)
    if not found.f_blocks:
        raise OSError(None, "a file system without a size")
    return {
        "mount": mount,
        "size": found.f_blocks * found.f_frsize,
        "used": (found.f_blocks - found.f_bfree) * found.f_frsize,
        "free": found.f_bavail * found.f_frsize,
        "inodes": found.f_files,
        "free_inodes": found.f_ffree,
    }


def mount_point(path: str, known: Sequence[str]) -> str:
    """The longest of the mount points that a path without links is below; '' if none is known."""
    return max((one for one in known if f"{path}/".startswith(f"{one.rstrip('/')}/")), key=len, default="")


def mount_points(text: bytes) -> list[str]:
    """The mount points of /proc/self/mountinfo, proc_pid_mountinfo(5): the fifth word of each line, in which spaces
    and the like are written as octal numbers."""
    return [os.fsdecode(_plain(words[4])) for words in map(bytes.split, text.splitlines()) if len(words) > 4]


def _plain(word: bytes) -> bytes:
    first, *others = word.split(b"\\")
    return first + b"".join(bytes([int(other[:3], 8)]) + other[3:] for other in others)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


if __name__ == "__main__":
    main()
