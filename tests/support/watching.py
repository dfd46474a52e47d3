# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's job `watch`, in a process of its own, with a clock that stands still while it sleeps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import artifact
from receivers import Mail, Webhook
from sending import Sender
from servers import Server

DOUBTFUL = "may have been sent before"
MANY = """
import json, sys, time
from pgops.alerting import courses
from pgops.alerting.channels import Channel
from pgops.alerting.choices import Choices
from pgops.alerting.ledger import Clock, Ledger
from pgops.alerting.telling import Telling
from pgops.host.slots import Slots

folder, url = sys.argv[1:]
known = {"am": Channel("am", "alertmanager", {"one": url})}
for number, (cluster, node, rule, labels, ago) in enumerate(json.load(sys.stdin)):
    alert = courses.Alert(rule, labels, "why", 1.0, courses.FIRING, f"id of {node}", fired_at=time.time() - ago)
    book = Ledger((Slots(f"{folder}/{number}", 8192),), alerts=[alert])
    telling = Telling(book, (cluster, node), known, Choices(), Clock())
    telling.run()
    assert (telling.sent, telling.errors) == (1, []), (node, telling.errors)
"""

MAIN = """
import os, sys
from pgops.alerting import ledger, looks
from pgops.cli import main

own, boot, day = ledger.Clock, ledger.Clock.since_boot, ledger.Clock.day
slept = [float(os.environ["WATCH_AHEAD"])]
own.since_boot = lambda self: boot(self) + slept[0]
own.day = lambda self: day(self) + slept[0] + float(os.environ["WATCH_SET"])
own.boot = lambda self: os.environ["WATCH_BOOT"]
own.sleep = lambda self, seconds: slept.append(slept.pop() + seconds)
looks.ANSWERS = float(os.environ["WATCH_ANSWERS"])
ledger.MEMORY = os.environ["WATCH_MEMORY"]
code = main(sys.argv[1:])
sys.stderr.write(f"slept {slept[0]}")
sys.exit(code)
"""


@dataclass
class Watcher(Sender):
    """An agent that watches. ``ahead`` are the seconds by which its clocks are, ``set_by`` those by which somebody
    has set the time of day, and ``boot`` is which boot of its host it is. ``memory`` stands for /dev/shm."""

    job: str = "watch"
    main: str = MAIN
    ahead: float = 0.0
    set_by: float = 0.0
    boot: str = "first"
    answers: float = 5.0
    memory: str = "/nowhere"

    def environment(self) -> dict[str, str]:
        given = {"AHEAD": self.ahead, "SET": self.set_by, "ANSWERS": self.answers}
        words = {name: str(value) for name, value in given.items()} | {"BOOT": self.boot, "MEMORY": self.memory}
        return {f"WATCH_{name}": value for name, value in words.items()}

    def look(self, later: float = 60.0) -> dict[str, Any]:
        """One run, so many seconds after the last one; what it logged, with its exit code as ``exit``."""
        self.ahead += later
        with self.start() as process:
            out, said = process.communicate()
        assert out.startswith("{"), said
        self.ahead = float(said.rpartition("slept ")[2])
        return {**json.loads(out), "exit": process.returncode, "printed": out + said}

    def status(self) -> str:
        """What people are shown."""
        with self.start("--status") as process:
            out, said = process.communicate()
        assert process.returncode == 0, said
        return out

    def scheduled(self, job: str, calendar: str) -> None:
        """A timer, as the schedule writes it."""
        units = Path(self.layout.units)
        units.mkdir(parents=True, exist_ok=True)
        text = f"[Timer]\nOnCalendar={calendar}\n\n[X-Pgops]\nInstance=main\nJob={job}\n"
        (units / f"pgops-main-{job}.timer").write_text(text)

    def ran(self, job: str, at: float, errors: int = 0, sound: float | None = None) -> None:
        """The record of a run."""
        record = {"format": 1, "ended": at, "seconds": 1.0, "errors": errors, "sound": at if sound is None else sound}
        Path(self.layout.state, f"job.{job}.json").write_text(json.dumps(record))


def placed(server: Server) -> dict[str, Any]:
    """Where the server's directories are, as the agent knows them."""
    paths = {str(server.data_dir): str(server.data_dir), f"{server.data_dir}/pg_wal": f"{server.data_dir}/pg_wal"}
    return {"real_paths": paths}


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """All processes of a server are stopped, as by a hypervisor or a debugger."""
    (postmaster,) = [int((server.data_dir / "postmaster.pid").read_text().split()[0])]
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    processes = [postmaster, *map(int, children)]
    for one in processes:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)


@dataclass(frozen=True)
class Seen:
    """What the watch on a host has seen, so many seconds ago."""

    cluster: str
    node: str
    rule: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ago: float = 0.0


def many_tell(folder: Path, alertmanager: str, seen: Iterable[Seen]) -> None:
    """Each host's watch, with a ledger of its own, tells an Alertmanager what it has seen."""
    folder.mkdir()
    command = [sys.executable, "-c", MANY, str(folder), alertmanager]
    environment = {**os.environ, "PYTHONPATH": str(artifact.BUILD / "lib")}
    given = json.dumps([[one.cluster, one.node, one.rule, dict(one.labels), one.ago] for one in seen])
    done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def titles(receiver: Webhook | Mail) -> list[str]:
    """What was received, without the bodies."""
    return [text.partition("\n")[0] for text in receiver.texts()]


def is_told_once(watcher: Watcher, webhook: Webhook, rule: str, mend: Callable[[], object]) -> None:
    """An alert fires in one run, is told, and not again; it ends once the fault is gone."""
    ran = watcher.look()
    assert (ran["firing"], ran["sent"], ran["errors"]) == ([rule], 1, [])
    assert titles(webhook) == [f"[FIRING 1] critical: {rule} on shop (db1/main)"]
    assert (watcher.look()["sent"], watcher.look()["sent"]) == (0, 0)
    mend()
    assert watcher.look()["firing"] == [rule]  # not yet for long enough
    ran = watcher.look()
    assert (ran["firing"], ran["sent"]) == ([], 1)
    assert titles(webhook)[1:] == [f"[RESOLVED 1] critical: {rule} on shop (db1/main)"]
    assert DOUBTFUL not in "".join(webhook.texts())
    assert (watcher.look()["sent"], watcher.status().count(rule)) == (0, 1)
