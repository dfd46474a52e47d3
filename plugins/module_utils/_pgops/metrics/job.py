# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The jobs of monitoring: collect, inspect, maintain and export."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import HostFailed, InvalidInput
from ..host.files import File, apply, exclusive
from ..instance import records
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..sources import LIBRARY, gather
from . import collect as collection
from . import collectors, exposition, latest, partitions, repeat
from .collectors import Collector
from .history import Memory

PATIENCE = 5
"""Seconds that the job which runs for the whole minute waits for another collection."""


def collect(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Run the collectors that are due, once or for a minute."""
    path = os.path.join(layout.state, "collect")
    if not options.repeat:
        return _collected(settings, layout, path, collection.collect)
    memory = Memory(path, PATIENCE)

    def tell(seconds: float, errors: int) -> None:
        if options.scheduled:
            with contextlib.suppress(HostFailed, OSError):  # the end of the run will say it
                records.note(layout, "collect", time.time(), seconds, errors)

    with exclusive(f"{path}.repeat.lock", seconds=0):
        return repeat.collect(settings, layout, installed(layout), memory, limited=True, tell=tell)


def inspect(settings: Configuration, layout: Layout, _options: argparse.Namespace) -> dict[str, Any]:
    """Run the collectors that read all data."""
    return _collected(settings, layout, os.path.join(layout.keeping, "inspect"), collection.inspect)


def _collected(
    settings: Configuration, layout: Layout, path: str, run: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    memory = Memory(path)
    with memory.held() as remembered:
        outcome = run(settings, layout, installed(layout), remembered)
    return {**outcome, "errors": [*outcome["errors"], *memory.errors]}


def maintain(settings: Configuration, _layout: Layout, _options: argparse.Namespace) -> dict[str, Any]:
    """Create and drop partitions, and roll up hours."""
    return partitions.maintain(settings)


def export(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Print the newest values for Prometheus, or write them to a file that all may read."""
    path = layout.exported if options.output == "" else options.output
    if path is not None and not os.path.isabs(path):
        raise InvalidInput(f"--output {path} is not an absolute path.")
    found, now = installed(layout), time.time()
    inspected, warnings = _inspected(layout, found)
    own = latest.present([layout.latest, layout.latest_repeated, layout.latest_queries], now)
    present = [*own, *(run for run in inspected if run.present(now))]
    known = collectors.metrics(found).values()
    text = exposition.exposition(known, present, settings.cluster, settings.node).encode()
    if path is not None:
        apply([File(path, text, 0o644)])
    else:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    return {"samples": sum(len(run.samples) for run in present), "warnings": warnings}


def _inspected(layout: Layout, found: Sequence[Collector]) -> tuple[list[latest.Run], list[str]]:
    """What the server's user has measured, and errors, which do not prevent the export of all other values."""
    known = [collectors.INSPECTION, *(one for one in found if one.rights == "all_data")]
    metrics = {one.name: [metric.name for metric in one.metrics] for one in known}
    try:
        return latest.received(layout.inspected, metrics), []
    except HostFailed as error:
        return [], [str(error)]


def installed(layout: Layout) -> list[Collector]:
    """The collectors that came with the agent, and the user's own; only root may write these files.

    Raises InvalidInput.
    """
    texts = [
        *gather(LIBRARY, (".sql",), "sql/collectors").items(),
        *gather(layout.collectors, (".sql",)).items(),
    ]
    return [collectors.parse(text, path) for path, text in texts]
