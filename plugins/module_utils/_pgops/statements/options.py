# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The part of slow queries in the agent's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ..instance.configuration import Configuration


@dataclass(frozen=True)
class Options:
    """``query_texts`` says whether the texts of statements are stored; ``slow_query_ms`` is how many milliseconds an
    execution takes that is noted one by one, negative: none is; ``explain`` whether plans are made of them."""

    query_texts: bool
    slow_query_ms: float
    explain: bool


def options(configuration: Configuration) -> Options:
    """What the configuration says of slow queries."""
    return Options(**configuration.part("statements"))
