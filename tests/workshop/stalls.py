"""Run a command on a machine that stands still now and then.

    python tests/workshop/stalls.py --seed 7 python -m pytest tests/integration

Every 4 seconds the command and all processes that it has started are frozen for 1.2 to 2 seconds, as where a
virtual machine or its disk makes a pause. Whatever breaks then takes slowness for failure.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
STOPPED = "TtZX"  # states of /proc/*/stat: what is stopped already is somebody else's to continue
PAUSE = 0.05


@dataclass(frozen=True)
class Stalls:
    """How long a machine stands still, and how often, in seconds."""

    shortest: float
    longest: float
    every: float


def below(root: int) -> set[int]:
    """The processes that a process has started, and that these have, but for those that are stopped."""
    children: dict[int, list[int]] = {}
    stopped: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            process = int(path.parent.name)
            children.setdefault(int(parent), []).append(process)
            if state in STOPPED:
                stopped.add(process)
    return set(_descendants(children, root)) - stopped


def _descendants(children: dict[int, list[int]], root: int) -> Iterator[int]:
    for child in children.get(root, ()):
        yield child
        yield from _descendants(children, child)


@contextlib.contextmanager
def frozen(root: int) -> Iterator[None]:
    """All that runs below a process stands still for the length of a `with`."""
    halted: list[int] = []
    try:
        # Whoever was not yet stopped may have started another. What waits for a disk stops once it has it.
        while running := below(root) - set(halted):
            for process in running:
                halted.append(process)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in reversed(halted):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def run(command: list[str], stalls: Stalls, chance: random.Random) -> int:
    """Run a command with such stalls; its exit status."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what loses its parent stays below this process
    child = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda *_received: os.kill(child, signal.SIGTERM))
    due = time.monotonic() + stalls.every
    while (status := _status(child)) is None:
        if time.monotonic() >= due:
            with frozen(os.getpid()):
                time.sleep(chance.uniform(stalls.shortest, stalls.longest))
            due += stalls.every
        time.sleep(PAUSE)
    return status


def _status(child: int) -> int | None:
    """The exit status of the command once it has ended; other processes that have are reaped."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if not ended:
            return None
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the lengths of the stalls")
    parser.add_argument("--shortest", type=float, default=1.2, metavar="SECONDS")
    parser.add_argument("--longest", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--every", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    print(f"stalls of seed {asked.seed}", flush=True)
    status = run(asked.command, Stalls(asked.shortest, asked.longest, asked.every), random.Random(asked.seed))
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
