# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tar files of a backup read while pg_basebackup writes them: what waits for the server or the network reads what is
there already, and is done soon after the copying."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from ..errors import PgOpsError
from ..repository import archiver
from . import contents
from .tars import Reading

PAUSE = 0.05
"""Seconds between two looks at what has been written."""
PATIENCE = 1.0
"""Seconds between two looks at all else, at the end."""


class Following:
    """Reads the tar files in a directory as they grow, in a thread of its own, from entering it on."""

    def __init__(self, folder: str, compression: str) -> None:
        self.folder = folder
        self._read = Reading(compression)
        self._sizes: dict[str, int] = {}
        self._complete, self._given_up = threading.Event(), threading.Event()
        self._sound = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._given_up.set()
        self._complete.set()
        self._thread.join()

    def sound(self, look: Callable[[], None]) -> bool:
        """Once all is written: whether it was read as it is there now, and is what its backup_manifest lists. If not,
        that proves nothing: look at the files themselves. ``look`` is called each second.

        Raises InvalidInput for a damaged backup_manifest, HostFailed, and what ``look`` does.
        """
        self._complete.set()
        while self._thread.is_alive():
            self._thread.join(PATIENCE)
            look()
        there = {name: os.path.getsize(os.path.join(self.folder, name)) for name in os.listdir(self.folder)}
        listed = there.pop(contents.NAME, None)
        if not self._sound or listed is None or there != self._sizes:
            return False
        return not contents.problems(os.path.join(self.folder, contents.NAME), self._read.files, self._read.wrong)

    def _work(self) -> None:
        with contextlib.suppress(PgOpsError, OSError, archiver.Failure):
            while not self._given_up.is_set():
                complete = self._complete.is_set()
                name = self._next()
                if name:
                    self._follow(name)
                elif complete:
                    self._sound = True
                    return
                else:
                    self._complete.wait(PAUSE)

    def _next(self) -> str:
        """The tar file that was begun first of those that were not read, '' if there is none."""
        try:
            names = [name for name in os.listdir(self.folder) if self._read.takes(name) and name not in self._sizes]
        except FileNotFoundError:  # pg_basebackup makes it
            return ""
        return min(names, key=self._written, default="")

    def _follow(self, name: str) -> None:
        reading, writing = os.pipe()
        pump = threading.Thread(target=self._pump, args=(name, writing), daemon=True)
        pump.start()
        path = os.path.join(self.folder, name)
        try:
            with contextlib.closing(archiver.decompressed(reading, self._read.compression, path)) as content:
                self._read.tar(path, content)
        finally:
            os.close(reading)  # which ends the other thread
            pump.join()

    def _pump(self, name: str, writing: int) -> None:
        """Write a file into a pipe, until it is complete."""
        size = 0
        with open(writing, "wb", buffering=0) as pipe, contextlib.suppress(OSError):
            for chunk in self._growing(name):
                archiver.write(pipe.fileno(), chunk)
                size += len(chunk)
        self._sizes[name] = size

    def _growing(self, name: str) -> Iterator[bytes]:
        """The content of a file that is being written, until it is complete."""
        with open(os.path.join(self.folder, name), "rb", buffering=0) as file:
            while not self._given_up.is_set():
                complete = self._complete.is_set() or self._superseded(name)
                chunk = file.read(archiver.CHUNK)
                if chunk:
                    yield chunk
                elif complete:
                    return
                else:
                    self._complete.wait(PAUSE)

    def _superseded(self, name: str) -> bool:
        """Whether a later one is being written: pg_basebackup writes one after the other. Where a clock is set back
        this may err, and the size tells."""
        names = [other for other in os.listdir(self.folder) if self._read.takes(other)]
        return any(self._written(other) > self._written(name) for other in names)

    def _written(self, name: str) -> int:
        return os.stat(os.path.join(self.folder, name)).st_mtime_ns
