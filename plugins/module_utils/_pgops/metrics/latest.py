# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The newest value of each series, stored on the host for the export: by the agent in its state directory, and by the
server's user in one that the agent may read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..host.files import File, failure, write

FORMAT = 1
INTERVALS = 3
"""Number of intervals for which a run counts as present: two may fail before its values vanish."""
SHORTEST = 60
"""In seconds: the next run of the job `collect` starts a minute later."""
LARGEST = 64 * 1024 * 1024
"""In bytes: at most this much of another user's file is read."""


@dataclass(frozen=True)
class Run:
    """The values of one run of a collector; ``database`` is '' for one of the instance.

    ``interval`` is in seconds, ``collected_at`` in Unix time. A sample is the series, the JSON text of a mapping with
    ``metric`` and labels as `rounds.samples` makes it, and the value.
    """

    collector: str
    database: str
    interval: float
    collected_at: float
    samples: Sequence[tuple[str, float]]

    def present(self, now: float) -> bool:
        """Whether it is new enough at ``now`` (Unix time). A run in the future is not: the clock was set back."""
        return abs(now - self.collected_at) <= INTERVALS * max(self.interval, SHORTEST)


def merged(older: Iterable[Run], newer: Iterable[Run], now: float) -> list[Run]:
    """The newest run for each collector and database, in their order, without those that are too old at ``now``.

    Each newer run replaces the older one, whatever their times, even if it has no samples.
    """
    kept = {(run.collector, run.database): run for run in older}
    kept.update(((run.collector, run.database), run) for run in sorted(newer, key=lambda run: run.collected_at))
    return [kept[key] for key in sorted(kept) if kept[key].present(now)]


def remember(path: str, runs: Iterable[Run], now: float, mode: int = 0o640) -> None:
    """Merge runs into the file at ``path``, which is replaced in one step; an invalid file is created anew.

    Raises HostFailed if it cannot be read, OSError if it cannot be written.
    """
    write(File(path, text(merged(load(path), runs, now)).encode(), mode))


def present(paths: Iterable[str], now: float) -> list[Run]:
    """The runs of several files, the newest for each collector and database, as merged().

    Raises HostFailed.
    """
    return merged((), (run for path in paths for run in load(path)), now)


def load(path: str) -> list[Run]:
    """The runs of a file; none if it does not exist, or is invalid.

    Raises HostFailed.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failure(error, f"{path} cannot be read") from error


def received(path: str, metrics: Mapping[str, Collection[str]]) -> list[Run]:
    """The runs in a file of another user, who is not trusted: only those of the collectors in ``metrics``, by their
    names, with their metrics. None if the file does not exist, or is invalid.

    Raises HostFailed if it cannot be read, or is a link.
    """
    try:
        with open(path, encoding="utf-8", errors="replace", opener=_opened) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            runs = parse(file.read(LARGEST)) if regular else []
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failure(error, f"{path} cannot be read") from error
    return [run for run in runs if run.collector in metrics and _names(run) <= {*metrics[run.collector]}]


def _opened(path: str, flags: int) -> int:
    """Opened without following a link, and without waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _names(run: Run) -> set[str]:
    """The metrics of a run; '' for an invalid series."""
    return {_metric(series) for series, _value in run.samples}


def _metric(series: str) -> str:
    try:
        labels = json.loads(series)
        return str(labels["metric"]) if isinstance(labels.get("other", {}), dict) else ""
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""


def text(runs: Iterable[Run]) -> str:
    """The text of the file. Python's JSON: a value may be NaN or Infinity."""
    rows = [[run.collector, run.database, run.interval, run.collected_at, list(run.samples)] for run in runs]
    return json.dumps({"format": FORMAT, "runs": rows})


def parse(content: str) -> list[Run]:
    """The runs of a file's text; none if it is not ours."""
    try:
        data = json.loads(content)
        return [_run(row) for row in data["runs"]] if data["format"] == FORMAT else []
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _run(row: Sequence[Any]) -> Run:
    collector, database, interval, collected_at, samples = row
    pairs = tuple((str(series), float(value)) for series, value in samples)
    return Run(str(collector), str(database), float(interval), float(collected_at), pairs)
