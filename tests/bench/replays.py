# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a recovery takes with WAL that is fetched ahead of replay, beside cp from a local directory, and beside the
archive program for each segment."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from archives import Host
from backing import SMALL_SEGMENTS, Bank
from figures import Figures
from restoring import Restorer
from servers import Server

from pgops.recovery import ahead

SEGMENTS = 321
TURNS = 3
MAJOR = 18
"""Of the tools that tests have."""
CASE = f"{SEGMENTS} small segments"


def measure() -> Figures:
    """Seconds from the start of the server to its target, in turn."""
    figures = Figures("replay", "seconds of replaying segments of 1 MB, from the start of the server to the end")
    with _bank() as (bank, restorer):
        ways: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
            "ours": contextlib.nullcontext,
            "peer": lambda: _by(_copying(bank)),
            "the archive program alone": lambda: _by(None),
        }
        for _turn in range(TURNS):
            for who, way in ways.items():
                with way():
                    figures.add(CASE, who, _replayed(restorer))
    figures.promise({CASE: 0.9})
    return figures


@contextlib.contextmanager
def _bank() -> Iterator[tuple[Bank, Restorer]]:
    """A backup, and many segments with little in them."""
    root = Path(tempfile.mkdtemp(prefix="pgops-replay-", dir="/tmp"))
    root.chmod(0o755)
    for name in ("base", "prefix"):
        (root / name).mkdir()
    try:
        with Server.create(MAJOR, initdb=SMALL_SEGMENTS) as server:
            bank = Bank.opened(Host(server, root / "base", root / "prefix"))
            bank.backup()
            with server.connect() as session:
                for _number in range(SEGMENTS):
                    session.execute("SELECT pg_create_restore_point('here')")
                    session.execute("SELECT pg_switch_wal()")
            bank.work()
            bank.archive()
            yield bank, Restorer(bank, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _replayed(restorer: Restorer) -> float:
    found = restorer.restore(latest=True)
    restorer.end(Path(found["directory"]))
    shutil.rmtree(found["directory"])
    return next(float(one["seconds"]) for one in found["phases"] if one["phase"] == "recover")


@contextlib.contextmanager
def _by(command: str | None) -> Iterator[None]:
    """Nothing ahead; another command where there is one."""
    own = ahead.restore_command
    with (
        mock.patch.object(ahead, "THREADS", 0),
        mock.patch.object(ahead, "restore_command", lambda *words: command or own(*words)),
    ):
        yield


def _copying(bank: Bank) -> str:
    (place,) = bank.host.repository.glob("*/wal/0*")
    return f'cp {place}/%f "%p" 2>/dev/null'
