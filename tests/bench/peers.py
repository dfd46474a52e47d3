# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups and restores beside those of pgBackRest and Barman, of the same server, in turn."""

from __future__ import annotations

import contestants
from contestants import GZIP, NONE, ZSTD, Barman, Contestant
from figures import Figures

ROWS = 2_000_000
"""About 260 MB, with an index."""
TURNS = 3
CODECS = (NONE, GZIP, ZSTD)
COUNT = "SELECT count(*) FROM item"
PARALLEL = "2 processes", "2 of rsync"
"""Contestants whose backups are copied by more than ours are: what they gain is told, and not promised."""


def measure() -> Figures:
    """Seconds, in turn: who begins changes with each turn."""
    figures = Figures(
        "peers", "seconds of a full backup until it counts, and of a restore until the copy takes writes"
    )
    with contestants.cluster(ROWS) as made:
        all_of = contestants.all_of(made)
        for turn in range(TURNS):
            for codec in CODECS:
                taking = [one for one in all_of if codec == NONE or not (isinstance(one, Barman) and one.jobs > 1)]
                _turn(taking[turn:] + taking[:turn], codec, figures)
    figures.promise(dict.fromkeys(filter(_promised, figures.values), 1.0))
    return figures


def _promised(case: str) -> bool:
    """Whether ours must not be slower."""
    return case.startswith("restore") or not case.endswith(PARALLEL)


def _turn(taking: list[Contestant], codec: str, figures: Figures) -> None:
    """One backup and one restore of each."""
    found = {}
    for one in taking:
        found[one.name] = (one.backup_seconds(codec), one.restore_seconds(ROWS, COUNT))
        one.forget()
    ours = found.pop("ours")
    for name, theirs in found.items():
        for what, mine, their in zip(("backup", "restore"), ours, theirs):
            figures.add(f"{what}, {codec}, beside {name}", "ours", mine)
            figures.add(f"{what}, {codec}, beside {name}", "peer", their)
