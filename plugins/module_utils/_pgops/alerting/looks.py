# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One look at an instance from its host: its server, disks, jobs, and the cluster's other nodes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Any

from ..errors import HostFailed
from ..host import children
from ..instance import endpoints, places, records
from ..instance.configuration import Configuration, Peer
from ..instance.layout import Layout
from ..instance.records import Record
from ..server import disks, greeting
from ..server.greeting import Greeting
from . import duties, ledger
from .courses import Finding
from .ledger import Work

ANSWERS = 5.0
"""Seconds in which a server must answer."""
MEASURES = 3.0
"""Seconds in which disks are measured."""
WORDS = {"wal": "WAL"}
"""What a directory is called that has another name in metrics."""
ALL = 8.0
"""Seconds after which a look is over, whatever hangs."""
FULL, FINE = 98.0, 95.0
"""In %: a file system with so much is full, and is not any more with less than that."""
LEFT_MB = 10 * 1024.0
"""One that has more space left than this is not full, whatever the share."""
FRESH = 200.0
"""Seconds for which a job that runs each minute is taken to work."""
FAILS = 900.0
"""Seconds for which a job must fail, or longer if it runs seldom."""
OF_DATABASE = ("collect", "inspect", "queries")
"""The jobs of which the rule collector_stale of the ops database tells as well."""
SELF = "watch"


@dataclass
class Sight:
    """What was seen, and what could not be looked at."""

    findings: list[Finding] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def look(settings: Configuration, layout: Layout, jobs: dict[str, Work], now: float) -> Sight:
    """Look at everything, for at most ALL seconds and a little. ``jobs`` is what is remembered of them, which is
    brought up to date."""
    sight = Sight()
    works: dict[str, Any] = {
        "server": partial(_greeted, settings.host or _directory(settings), settings.port, settings),
        "disks": partial(_measured, settings, layout),
    }
    works |= {f"peer {name(peer)}": partial(_greeted, peer.host, peer.port, settings) for peer in settings.peers}
    answers = children.answers(works, ALL)
    seen = update(jobs, duties_of(layout), records.known(layout), now)
    covered = database_works(jobs, now)
    server = _answer(answers.get("server"))
    sight.findings += of_server(server)
    if server.word == greeting.UNKNOWN:
        sight.errors.append(f"the server cannot be asked: {server.text}")
    rows, wrong = answers.get("disks", ([], [f"disks were not measured within {ALL:g} s"]))
    sight.errors += wrong
    sight.findings += of_disks(rows)
    ill = server.word != greeting.READY or any(one.wrong for one in of_disks(rows) if "agent" in one.text)
    sight.findings += of_jobs(jobs, seen, now, ill, covered)
    for peer in settings.peers:
        sight.findings.append(of_peer(peer, _answer(answers.get(f"peer {name(peer)}")), covered))
    return sight


def _directory(settings: Configuration) -> str:
    """The directory of the server's socket."""
    return os.path.dirname(endpoints.administrator(settings).socket_path)


def name(peer: Peer) -> str:
    """A peer as it is shown."""
    return f"{peer.host}:{peer.port}"


def _greeted(host: str, port: int, settings: Configuration) -> dict[str, Any]:
    return asdict(greeting.greet(host, port, settings.role, settings.database, ANSWERS))


def _answer(found: Mapping[str, Any] | None) -> Greeting:
    """How a server answered; who does not even let itself be asked in time hangs."""
    return Greeting(**found) if found else Greeting(greeting.SILENT, f"no answer within {ALL:g} s")


def of_server(found: Greeting) -> list[Finding]:
    """What a server's answer says. Pure."""
    known = found.word != greeting.UNKNOWN
    speaks = found.word not in (greeting.ABSENT, greeting.REFUSES, greeting.SILENT, greeting.UNKNOWN)
    down = found.word in (greeting.ABSENT, greeting.REFUSES)
    refused = None if not speaks or found.in_recovery is None else bool(found.refusal)
    return [
        Finding("instance_down", down if known else None, text=found.text),
        Finding("instance_hung", found.word == greeting.SILENT if known else None, text=found.text),
        Finding("connections_exhausted", found.word == greeting.FULL if speaks else None, text=found.text),
        Finding("writes_refused", refused, text=found.refusal or ""),
    ]


def _measured(settings: Configuration, layout: Layout) -> tuple[list[dict[str, Any]], list[str]]:
    """The file systems of an instance's directories, and what could not be measured."""
    found = {layout.state: "agent"}
    if not settings.host:
        found |= {path: WORDS.get(disk, disk) for path, disk in places.known(layout).items()}
        found |= {path: _disk(path, settings) for path in settings.real_paths}
    asked = [{"disk": disk, "path": path} for path, disk in found.items()]
    for path in ledger.lockable(layout, "disks.lock"):
        with contextlib.suppress(HostFailed, OSError):
            host = disks.Host(path, settings.repository, settings.real_paths)
            return disks.measured(host, asked, MEASURES)
    return [], ["disks cannot be measured: no lock can be written"]


def _disk(path: str, settings: Configuration) -> str:
    """What a path of the server is, in a word."""
    data = settings.data_directory
    return {data: "data", f"{data.rstrip('/')}/pg_wal": WORDS["wal"]}.get(path, "tablespace")


def of_disks(rows: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Which file systems are full, each once. Pure."""
    by_mount: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_mount.setdefault(row["mount"] or row["disk"], []).append(row)
    return [
        Finding("disk_full", _full(found[0]), {"mount": mount}, _filled(mount, found))
        for mount, found in by_mount.items()
    ]


def _full(row: Mapping[str, Any]) -> bool | None:
    space, inodes = row["disk_used_percent"] or 0.0, row["disk_inodes_used_percent"] or 0.0
    if inodes >= FULL or (space >= FULL and row["disk_free_mb"] < LEFT_MB):
        return True
    return False if inodes < FINE and (space < FINE or row["disk_free_mb"] >= LEFT_MB) else None


def _filled(mount: str, rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    used, inodes = rows[0]["disk_used_percent"] or 0.0, rows[0]["disk_inodes_used_percent"] or 0.0
    parts = ", ".join(dict.fromkeys(row["disk"] for row in rows))
    what = f"{used:.1f} % of {rows[0]['disk_size_mb']:.0f} MB" if used >= inodes else f"{inodes:.1f} % of its inodes"
    return f"{mount} ({parts}) is full: {what} are used"


def duties_of(layout: Layout) -> dict[str, float]:
    """For how many seconds each scheduled job may be silent."""
    today = datetime.now(timezone.utc).date()
    found = duties.scheduled(layout)
    return {job: duties.patience(job, calendar, today) for job, calendar in found.items() if job != SELF}


def update(
    jobs: dict[str, Work], patience: Mapping[str, float], known: Mapping[str, Record], now: float
) -> dict[str, float]:
    """Note what the records of the jobs say now; returns ``patience``. How old a record is is told by when it was
    first seen, since the clock that is written in it may be set."""
    for gone in set(jobs) - set(patience):
        del jobs[gone]
    for job in patience:
        record = known.get(job)
        ended, sound = (record.ended, record.sound) if record else (None, None)
        work = jobs.setdefault(job, Work(ended, sound, now, now))
        if ended != work.ended:
            work.ended, work.ended_seen = ended, now
        if sound != work.sound:
            work.sound, work.sound_seen = sound, now
            work.proven = work.proven or (record is not None and not record.errors)
    return dict(patience)


def database_works(jobs: Mapping[str, Work], now: float) -> bool:
    """Whether rules are evaluated and notifications sent, as far as this host knows: then the ops database tells what
    it has rules for."""
    found = [jobs.get(job) for job in ("alerts", "notify")]
    return all(one is not None and one.proven and now - one.sound_seen < FRESH for one in found)


def of_jobs(
    jobs: Mapping[str, Work], patience: Mapping[str, float], now: float, ill: bool, covered: bool
) -> list[Finding]:
    """Which jobs do not run, or fail. Pure. While the server or the agent's disk is ``ill``, nothing is said of them:
    they cannot work. What is ``covered`` by the ops database is left to it."""
    found = []
    for job, most in patience.items():
        work = jobs[job]
        silent, failing = now - work.ended_seen, now - work.sound_seen
        stale = silent > most
        fails = not stale and failing > max(FAILS, most)
        left = ill or (covered and job in OF_DATABASE)
        for rule, wrong, text in (
            ("job_stale", stale, f"{job} has not run for {silent / 60:.0f} minutes"),
            ("job_failing", fails, f"{job} has not run without an error for {failing / 60:.0f} minutes"),
        ):
            found.append(Finding(rule, None if wrong and left else wrong, {"job": job}, text))
    return found


def of_peer(peer: Peer, found: Greeting, covered: bool) -> Finding:
    """Whether a peer is gone. Pure. While the ops database works, it tells that a standby is missing; a peer that
    starts, or is full, has a watch of its own."""
    gone = found.word in (greeting.ABSENT, greeting.SILENT)
    return Finding(
        "peer_down", None if gone and covered else gone, {"peer": name(peer)}, f"{name(peer)}: {found.text}"
    )
