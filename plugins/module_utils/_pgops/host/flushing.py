# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files flushed to disk while they are written, so that little is left for the end: many megabytes at once make all
that writes to the same disk wait, such as the commits of a server."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

PAUSE = 1.0
"""Seconds between two rounds, at least."""
SHARE = 20
"""Of the time, a round takes at most one such part: it looks at all files."""
SLACK = 2.0
"""Seconds by which the times of files may lag behind the clock."""


class Flushing:
    """Flushes the files below a directory that are being written, from entering it to leaving it. What is written
    last is left to be flushed, as are names.

    An error of the disk is raised by leaving: who flushes the file once more is no longer told of it.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._error: OSError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Flushing:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error and kind is None:
            raise self._error

    def _work(self) -> None:
        since, pause = time.time(), PAUSE
        while not self._stop.wait(pause):
            began, now = time.monotonic(), time.time()
            try:
                for path in self._written(since - SLACK):
                    self._flush(path)
            except OSError as error:
                self._error = error
                return
            since, pause = now, max(PAUSE, SHARE * (time.monotonic() - began))

    def _written(self, since: float) -> Iterator[str]:
        """The files that were written after a time, in seconds since the epoch."""
        for folder, _folders, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(path).st_mtime > since:
                        yield path

    def _flush(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # it is gone, or a link
            return
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
