# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What statvfs(3) says of file systems, asked for by a process of its own: a call to a network's file system whose
server is gone may never return, and then even SIGKILL may not end the process.

Stands alone, and imports as little as it can, since `disks` starts it each minute:

    mounts SECONDS PLACES      PLACES is JSON: [[path, the same without links or null], ...]

One line of JSON an answer: the place's number in the list, and what was found or the ``error``. Each place is looked
at by a thread of its own. Meanwhile the process locks a byte of the file on its standard input, which stands for the
path; the kernel takes that lock away when the process is gone for good, so that a path which hangs holds up one
process, and not one more every minute, and no other path.
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
HANGS = "it hangs, and so does an earlier look at it"


def main() -> None:
    """Look at all places, for so many seconds; then end, whatever still hangs."""
    until = time.monotonic() + float(sys.argv[1])
    known = mount_points(_read(MOUNTS))
    threads = []
    for number, (path, real) in enumerate(json.loads(sys.argv[2])):
        obstacle = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if obstacle:
            _tell(number, {"error": obstacle})
            continue
        threads.append(threading.Thread(target=_look, args=(number, path, real, known), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    os._exit(0)


def _lock(path: str, how: int) -> str:
    """Lock a path for this process, or let it go; why that cannot be done, '' where it was."""
    try:
        fcntl.lockf(0, how, 1, zlib.crc32(os.fsencode(path)))
    except OSError as error:
        # Either may be said where another process has it, fcntl(2).
        return HANGS if error.errno in (errno.EACCES, errno.EAGAIN) else f"no lock: {error.strerror}"
    return ""


def _look(number: int, path: str, real: str | None, known: Sequence[str]) -> None:
    try:
        found = space(path, real, known)
    except OSError as error:
        found = {"error": error.strerror or str(error)}
    _lock(path, fcntl.LOCK_UN)
    _tell(number, found)


def _tell(number: int, found: dict[str, Any]) -> None:
    # One call, so that the lines of several threads stay whole.
    os.write(1, f"{json.dumps({'number': number, **found})}\n".encode())


def space(path: str, real: str | None, known: Sequence[str]) -> dict[str, Any]:
    """The file system that a path is on: ``mount``, its mount point; in bytes ``size``, ``used``, and ``free`` for
    others than root; ``inodes`` and ``free_inodes``, which are 0 where it has no such limit.

    Where the path may not be reached, what is mounted there is found by its name without links, ``real``, if that
    is known: the mount point above it may be reached all the same.

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
    """The longest of the mount points that a path without links is below; '' where none is known."""
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
