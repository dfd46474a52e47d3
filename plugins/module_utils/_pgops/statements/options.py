# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The part of slow queries in the agent's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ..instance.configuration import Configuration


@dataclass(frozen=True)
class Options:
    """``query_texts``: whether the texts of statements are stored; ``slow_query_ms``: executions of so many
    milliseconds or more are recorded, none if negative; ``explain``: whether plans are made of them."""

    query_texts: bool
    slow_query_ms: float
    explain: bool


def options(configuration: Configuration) -> Options:
    """The options of slow queries in the configuration."""
    return Options(**configuration.part("statements"))
