# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bank, and restores of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import binaries
import pytest
from archives import Host
from backing import SMALL_SEGMENTS, Bank
from restoring import Restorer


@pytest.fixture(name="bank")
def _bank(make: Callable[..., Host]) -> Bank:
    if binaries.majors()[-1] not in binaries.TOOLED:
        pytest.skip("pg_waldump reads the WAL of its own version only")
    return Bank.opened(make(initdb=SMALL_SEGMENTS, settings={"summarize_wal": "on"}))


@pytest.fixture(name="restorers")
def _restorers(root: Path) -> Iterator[Callable[[Bank], Restorer]]:
    """For banks of a test's own."""
    every: list[Restorer] = []

    def made(bank: Bank) -> Restorer:
        every.append(Restorer(bank, root))
        return every[-1]

    yield made
    for restorer in every:
        for data in restorer.made:
            restorer.end(data)


@pytest.fixture(name="restorer")
def _restorer(bank: Bank, restorers: Callable[[Bank], Restorer]) -> Restorer:
    return restorers(bank)
