# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small file that can be replaced on a full disk: two slots of fixed size, written in turns and in place.

A crash while one of them is written leaves the other one, and a checksum says which of them are whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass

HEADER = re.compile(rb"pgops1 (\d{20}) (\d{10}) ([0-9a-f]{64})\n")
LONGEST_HEADER = 7 + 21 + 11 + 65
FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class Slots:
    """The file at ``path``; ``size`` is that of a slot, in bytes. What it holds is numbered, and the highest number
    counts. Its mode is 0600."""

    path: str
    size: int = 256 * 1024

    @property
    def room(self) -> int:
        """Bytes of the longest content."""
        return self.size - LONGEST_HEADER

    def read(self) -> tuple[int, bytes] | None:
        """The newest content that is whole, with its number; None if there is none, or the file is somebody else's.

        Raises OSError where it cannot be read.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | FLAGS)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not self._ours(descriptor):
                return None
            found = [whole for whole in map(_whole, self._halves(file.read(2 * self.size))) if whole]
        return max(found, default=None)

    def write(self, number: int, content: bytes) -> None:
        """Store a content, on disk when this returns; the newest one before stays until then.

        Raises OSError, and ValueError for a content that has no room.
        """
        if len(content) > self.room:
            raise ValueError(f"{len(content)} bytes have no room in {self.path}")
        text = _head(number, content) + content
        try:
            descriptor = os.open(self.path, os.O_RDWR | FLAGS)
        except (FileNotFoundError, IsADirectoryError):
            self._create(text)
            return
        try:
            status = os.fstat(descriptor)
            if not self._ours(descriptor) or status.st_size != 2 * self.size:
                self._create(text)
                return
            os.fchmod(descriptor, 0o600)
            place = self.size * (1 - self._newest(os.pread(descriptor, 2 * self.size, 0)))
            _put(descriptor, text, place)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Remove the file, if it is ours."""
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_uid == os.geteuid():
                os.unlink(self.path)

    def _ours(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()

    def _halves(self, text: bytes) -> list[bytes]:
        return [text[: self.size], text[self.size :]]

    def _newest(self, text: bytes) -> int:
        """Which slot has the newest content."""
        numbers = [whole[0] if whole else -1 for whole in map(_whole, self._halves(text))]
        return int(numbers[1] > numbers[0])

    def _create(self, text: bytes) -> None:
        """A new file with all its space. What is at the path and not ours, or no file, is an error."""
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(self.path)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it belongs to somebody else", self.path)
        temporary = os.path.join(os.path.dirname(self.path), f".{os.path.basename(self.path)}.pgops-new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        try:
            # Written, and not only made so long: a hole would need space later.
            _put(descriptor, text.ljust(2 * self.size, b"\0"), 0)
            os.fsync(descriptor)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)


def _put(descriptor: int, text: bytes, place: int) -> None:
    while text:
        written = os.pwrite(descriptor, text, place)
        text, place = text[written:], place + written


def _head(number: int, content: bytes) -> bytes:
    return b"pgops1 %020d %010d %s\n" % (number, len(content), _sum(number, content))


def _sum(number: int, content: bytes) -> bytes:
    return hashlib.sha256(b"%020d" % number + content).hexdigest().encode()


def _whole(slot: bytes) -> tuple[int, bytes] | None:
    """The content of a slot with its number; None if it was never written, or not to its end."""
    head = HEADER.match(slot)
    if not head:
        return None
    number = int(head.group(1))
    content = slot[head.end() : head.end() + int(head.group(2))]
    return (number, content) if _sum(number, content) == head.group(3) else None
