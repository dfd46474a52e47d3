# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of the last scheduled run of each job: written by who runs it, read by the collection that reports
it.

A file a job. Jobs of the agent keep theirs in the agent's directory, those of the server's user in one of its own
that the agent may read.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass

from ..capabilities import JOBS
from ..host.files import File, write
from .layout import Layout

FORMAT = 1
LARGEST = 4096
"""Bytes that are read of a file which another user wrote."""
EARLIEST, LATEST = 0.0, 4102444800.0
"""Unix times that are believed: of 1970 to 2099."""
MOST_ERRORS = 1_000_000


@dataclass(frozen=True)
class Record:
    """The last run of a job: when it ``ended`` (Unix time), how many ``seconds`` it took and how many ``errors`` it
    had. ``sound`` is when the last run without an error ended; before there was one, when the first one began."""

    ended: float
    seconds: float
    errors: int
    sound: float


def path(layout: Layout, job: str) -> str:
    """Where the record of a job is."""
    folder = layout.inspection if JOBS[job].as_server else layout.state
    return os.path.join(folder, f"job.{job}.json")


def note(layout: Layout, job: str, ended: float, seconds: float, errors: int) -> None:
    """Record a run that has ended.

    Raises HostFailed or OSError, as on a full disk.
    """
    before = read(layout, job)
    sound = ended if not errors else before.sound if before else ended - seconds
    record = {"format": FORMAT, **asdict(Record(ended, seconds, errors, sound))}
    write(File(path(layout, job), json.dumps(record).encode(), 0o644))


def read(layout: Layout, job: str) -> Record | None:
    """The record of a job; None where there is none, or none that can be believed: another user may write it."""
    try:
        with open(path(layout, job), encoding="utf-8", errors="replace", opener=_opened) as file:
            data = json.loads(file.read(LARGEST) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else "")
        if data["format"] != FORMAT:
            return None
        found = Record(float(data["ended"]), float(data["seconds"]), int(data["errors"]), float(data["sound"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    times = (found.ended, found.sound, found.ended - found.seconds)
    believed = all(EARLIEST <= moment <= LATEST for moment in times) and found.seconds >= 0
    return found if believed and 0 <= found.errors <= MOST_ERRORS else None


def _opened(name: str, flags: int) -> int:
    """Neither what a link leads to, nor a pipe that somebody would have to write to first."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def known(layout: Layout) -> dict[str, Record]:
    """The records that there are, by the names of their jobs."""
    found = {job: read(layout, job) for job in JOBS}
    return {job: record for job, record in found.items() if record is not None}
