# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watch remembers, which is its outbox as well: its alerts, whom it has told of them, and what it saw of the
jobs. It is kept in a file that can be written on a full disk, or else in memory that outlives the run."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import HostFailed
from ..host.files import exclusive
from ..host.slots import Slots
from ..instance.layout import Layout
from . import courses
from .courses import RESOLVED, Alert

FORMAT = 1
SIZE = 512 * 1024
"""Bytes of a slot."""
MEMORY = "/dev/shm"  # noqa: S108 - what is there and not ours is refused
BOOT = "/proc/sys/kernel/random/boot_id"


class Clock:
    """Time, as the watch uses it."""

    def since_boot(self) -> float:
        """Seconds since the host was booted, those in which it slept too; nobody can set this clock."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def day(self) -> float:
        """The time of day (Unix), to be shown."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def boot(self) -> str:
        """Which boot of the host this is."""
        try:
            with open(BOOT, encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""


@dataclass
class Address:
    """What is known of an address: how often it ``failed`` since it last worked, and until when it is left alone;
    ``begun`` is the message whose sending has begun and not ended, ``doubtful`` whether one may have arrived that is
    not known to have."""

    failed: int = 0
    due: float = 0.0
    begun: str = ""
    doubtful: bool = False
    error: str = ""


@dataclass
class Work:
    """What was seen of a job: when its last run ended and the last sound one did, as its record says, and when that
    was first seen. ``proven``: it had a sound run since the host was booted."""

    ended: float | None
    sound: float | None
    ended_seen: float
    sound_seen: float
    proven: bool = False


@dataclass
class Ledger:
    """``places`` are where it can be kept, the best one first. ``kept`` is False once it cannot be kept anywhere.
    ``looked`` is when the last look was, by time of day; ``lost`` counts alerts that nobody was told of."""

    places: tuple[Slots, ...]
    boot: str = ""
    number: int = 0
    alerts: list[Alert] = field(default_factory=list)
    addresses: dict[str, Address] = field(default_factory=dict)
    jobs: dict[str, Work] = field(default_factory=dict)
    looked: float | None = None
    beat: float | None = None
    lost: int = 0
    kept: bool = True

    def load(self) -> list[str]:
        """Read what is kept; what is wrong with it. Damaged, it begins anew."""
        wrong, found = [], []
        for place in self.places:
            try:
                found += [one for one in [place.read()] if one]
            except OSError as error:
                wrong.append(f"{place.path} cannot be read: {error.strerror}")
        for number, content in sorted(found, reverse=True):
            self.number = max(self.number, number)
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                self._take(json.loads(content))
                return wrong
        if found or any(os.path.lexists(place.path) for place in self.places):
            wrong.append("what the watch remembered cannot be read: it begins anew, and may tell again what it told")
        return wrong

    def _take(self, data: Mapping[str, Any]) -> None:
        if data["format"] != FORMAT:
            raise ValueError("of another version")
        alerts = [courses.loaded(one) for one in data["alerts"]]
        addresses = {name: Address(**one) for name, one in data["addresses"].items()}
        jobs = {name: Work(**one) for name, one in data["jobs"].items()}
        looked, beat, lost, boot = data["looked"], data["beat"], int(data["lost"]), str(data["boot"])
        self.alerts, self.addresses, self.jobs = alerts, addresses, jobs
        self.looked, self.beat, self.lost, self.boot = looked, beat, lost, boot

    def wake(self, boot: str, now: float) -> None:
        """After another boot all times since the last one mean nothing. What was being sent when a run ended may have
        arrived."""
        if self.boot != boot:
            self.alerts = courses.rebooted(self.alerts, now)
            self.jobs = {}
            for address in self.addresses.values():
                address.due = now
            self.boot = boot
        for address in self.addresses.values():
            if address.begun:
                address.begun, address.doubtful = "", True

    def save(self) -> bool:
        """Keep it, at the first place that can; whether one could."""
        content = self._content()
        self.number += 1
        self.kept = any(self._written(place, content) for place in self.places)
        if self.kept and self.places[0].path == self._newest():
            for place in self.places[1:]:
                place.forget()
        return self.kept

    def _content(self) -> bytes:
        while True:
            content = json.dumps(self._document()).encode()
            ended = [one for one in self.alerts if one.state == RESOLVED]
            if len(content) <= min(place.room for place in self.places) or not self.alerts:
                return content
            self.alerts.remove(ended[-1] if ended else self.alerts[-1])
            self.lost += 1

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "boot": self.boot,
            "alerts": [one.document() for one in self.alerts],
            "addresses": {name: asdict(one) for name, one in self.addresses.items()},
            "jobs": {name: asdict(one) for name, one in self.jobs.items()},
            "looked": self.looked,
            "beat": self.beat,
            "lost": self.lost,
        }

    def _written(self, place: Slots, content: bytes) -> bool:
        try:
            place.write(self.number, content)
        except OSError:
            return False
        return True

    def _newest(self) -> str:
        """Where the newest content is."""
        for place in self.places:
            with contextlib.suppress(OSError):
                found = place.read()
                if found and found[0] == self.number:
                    return place.path
        return ""


def opened(layout: Layout) -> Ledger:
    """The ledger of an instance, not yet loaded."""
    return Ledger((Slots(os.path.join(layout.state, "watch.ledger"), SIZE), Slots(_memory(layout, "ledger"), SIZE)))


def _memory(layout: Layout, name: str) -> str:
    """A file's path in memory: of this instance, prefix and user."""
    prefix = zlib.crc32(os.fsencode(layout.prefix))
    return os.path.join(MEMORY, f"pgops-{os.geteuid()}-{prefix:08x}-{layout.instance}.watch.{name}")


@contextlib.contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep other runs out, also where the disk of the lock cannot be written.

    Raises Busy.
    """
    with contextlib.ExitStack() as stack:
        for path in lockable(layout, "lock"):
            with contextlib.suppress(HostFailed):
                stack.enter_context(exclusive(path, seconds=0))
                break
        yield


def lockable(layout: Layout, name: str) -> tuple[str, str]:
    """Where a lock can be, the usual place first."""
    return os.path.join(layout.state, f"watch.{name}"), _memory(layout, name)
