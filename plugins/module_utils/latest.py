# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The newest value of each series, kept by the agent in its state directory for those who ask the host itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .files import File, failure, write

FORMAT = 1
INTERVALS = 3
"""So many intervals a run counts as the present: two may fail before its values vanish."""
SHORTEST = 60
"""In seconds: what a run of the job `collect` could not do, the next one tries a minute later."""


@dataclass(frozen=True)
class Run:
    """What one run of a collector found; ``database`` is '' for one of the instance.

    ``interval`` is in seconds, ``collected_at`` in Unix time. A sample is the series, the JSON text of a mapping with
    ``metric`` and labels as `rounds.samples` makes it, and the value.
    """

    collector: str
    database: str
    interval: float
    collected_at: float
    samples: Sequence[tuple[str, float]]

    def present(self, now: float) -> bool:
        """Whether it is new enough at ``now`` (Unix time). One of the future is none: the clock was set back."""
        return abs(now - self.collected_at) <= INTERVALS * max(self.interval, SHORTEST)


def merged(older: Iterable[Run], newer: Iterable[Run], now: float) -> list[Run]:
    """The newest run for each collector and database, in their order, without those that are too old at ``now``.

    Any of the newer replaces the older, whatever the clock says; also one without samples does.
    """
    kept = {(run.collector, run.database): run for run in older}
    kept.update(((run.collector, run.database), run) for run in sorted(newer, key=lambda run: run.collected_at))
    return [kept[key] for key in sorted(kept) if kept[key].present(now)]


def remember(path: str, runs: Iterable[Run], now: float) -> None:
    """Merge runs into the file at ``path``, which is replaced in one step; one that is not understood is made anew.

    Raises HostFailed where it cannot be read, OSError where it cannot be written.
    """
    write(File(path, text(merged(load(path), runs, now)).encode(), 0o640))


def load(path: str) -> list[Run]:
    """The runs of a file; none where it is not there, or cannot be understood.

    Raises HostFailed.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failure(error, f"{path} cannot be read") from error


def text(runs: Iterable[Run]) -> str:
    """As the file holds it. Python's JSON: a value may be NaN or Infinity."""
    rows = [[run.collector, run.database, run.interval, run.collected_at, list(run.samples)] for run in runs]
    return json.dumps({"format": FORMAT, "runs": rows})


def parse(content: str) -> list[Run]:
    """The runs of a file's text; none where it is not one of ours."""
    try:
        data = json.loads(content)
        return [_run(row) for row in data["runs"]] if data["format"] == FORMAT else []
    except (ValueError, TypeError, KeyError):
        return []


def _run(row: Sequence[Any]) -> Run:
    collector, database, interval, collected_at, samples = row
    pairs = tuple((str(series), float(value)) for series, value in samples)
    return Run(str(collector), str(database), float(interval), float(collected_at), pairs)
