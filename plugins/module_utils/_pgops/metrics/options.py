# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Monitoring's part of the agent's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..instance.configuration import Configuration


@dataclass(frozen=True)
class Options:
    """``collectors`` maps a collector's name to what differs from its file: interval and timeout in seconds, enabled.
    ``retention`` maps a metric's name to the days that its samples are kept, if not the default. ``time_budget`` is
    how many seconds a collection may take, ``spool_bytes`` limits the file of rounds that could not be delivered."""

    collectors: Mapping[str, Mapping[str, Any]]
    retention: Mapping[str, int]
    time_budget: float
    spool_bytes: int


def options(configuration: Configuration) -> Options:
    """The options of monitoring in the configuration."""
    return Options(**configuration.part("metrics"))
