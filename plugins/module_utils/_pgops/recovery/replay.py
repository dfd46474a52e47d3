# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server recovers: it is started, waits at its target, is compared with that, and is promoted. As the server's
user."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import HostFailed, LoginRefused, PgOpsError, Unreachable
from ..host import commands
from ..host.files import user_name
from ..repository import wal
from ..server import databases, discovery
from ..server.databases import Database
from ..server.session import Session, connect
from ..server.target import Target as Login
from . import configuring, targets
from .choice import Choice
from .configuring import Served
from .targets import Target, position

LOG = "pgops-restore.log"
"""In the data directory: what the server says while it recovers."""
LAST_LINES = 12
APPEARING = 20.0
"""Seconds in which a started server must have its lock file."""
STOPPING = 3600
PAUSE, LONGEST_PAUSE = 0.02, 0.2
"""Seconds between two looks at a server: few at first, and more for one that takes long."""
TELLING = 10.0
"""Seconds between two messages about the progress."""
POINT_BYTES = 1024
"""More than the record of a restore point takes, with the head of a page in it."""
STOPPING_AT = re.compile(r"recovery stopping (before|after|at) ")
"""What a server says that has reached its target (PostgreSQL, xlogrecovery.c)."""
TOO_LOW = re.compile(r"(\w+) = \d+ is a lower setting than on the primary server, where its value was (\d+)")
"""What it says that cannot replay the WAL of its original, which had more of something."""

STATE = """
SELECT pg_is_in_recovery() AS recovering,
       CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END AS pause,
       pg_last_wal_replay_lsn()::text AS lsn,
       pg_last_xact_replay_timestamp() AS time,
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS timeline
"""
MOST_DATABASES = 50
COLLATIONS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) AS name
FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace
WHERE c.collversion IS DISTINCT FROM pg_collation_actual_version(c.oid) AND c.collversion IS NOT NULL
"""
DATABASE_COLLATION = """
SELECT EXISTS (
    SELECT FROM pg_database
    WHERE datname = current_database() AND datcollversion IS NOT NULL
      AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)
)
"""


def growing() -> Iterator[float]:
    """Pauses that grow with what has passed."""
    pause = PAUSE
    while True:
        yield pause
        pause = min(pause * 1.2, LONGEST_PAUSE)


@dataclass(frozen=True)
class Reached:
    """Where a recovery stopped: the end of the last record that was replayed, and the time of the last transaction
    in it, None if there was none. ``promoted``: it takes writes already."""

    lsn: int
    time: datetime | None = None
    promoted: bool = False


@dataclass(frozen=True)
class Runner:
    """The server of a restored data directory. ``directory`` has its programs; ``configuration`` is its main
    configuration file, '' for the one in the data directory; ``superusers`` are the roles to log in as, of which the
    first that exists is taken. ``say`` gets what a person may want to know meanwhile."""

    served: Served
    directory: str
    superusers: tuple[str, ...]
    configuration: str = ""
    say: Callable[[str], None] = lambda _text: None
    raised: dict[str, str] = field(default_factory=dict)
    """Settings that the original had higher, which it takes to replay its WAL."""

    @property
    def log(self) -> str:
        """The path of its log."""
        return os.path.join(self.served.data, LOG)

    # --- processes

    def start(self, recovering: bool) -> None:
        """Start it; for a recovery, reachable by nobody else. Returns at once.

        Raises HostFailed.
        """
        options = {**configuring.recovery_options(self.served), **self.raised} if recovering else {}
        if self.configuration:
            options["config_file"] = self.configuration
        words = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())
        before = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        self._control("start", "-W", "-s", "-l", self.log, "-o", words)
        until, pauses = time.monotonic() + APPEARING, growing()
        while not self.running() and time.monotonic() < until and "FATAL" not in self.tail(before):
            time.sleep(next(pauses))
        if not self.running():
            if recovering and self._raised():
                self.start(recovering)
                return
            raise self.failed("The server did not start")

    def stop(self) -> None:
        """Stop it, if it runs. Raises HostFailed."""
        if self.running():
            self._control("stop", "-w", "-s", "-m", "fast", "-t", str(STOPPING))

    def running(self) -> bool:
        """Whether it runs."""
        return discovery.postmaster(self.served.data, os.geteuid()) is not None

    def _control(self, verb: str, *options: str) -> None:
        program = os.path.join(self.directory, "pg_ctl")
        commands.run([program, verb, "-D", self.served.data, *options], STOPPING + 60)

    def tail(self, since: int = 0) -> str:
        """The last lines of its log, from a byte on; of those with errors if there are any."""
        with contextlib.suppress(OSError), open(self.log, "rb") as file:
            file.seek(max(since, os.fstat(file.fileno()).st_size - (1 << 16)))
            lines = file.read().decode("utf-8", "replace").splitlines()
            important = [
                line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|HINT|DETAIL|pgops archiver)\b", line)
            ]
            return "\n".join((important or lines)[-LAST_LINES:])
        return ""

    def failed(self, what: str) -> HostFailed:
        """An error with the end of the log."""
        return HostFailed(f"{what}. The server's log ends with:\n{self.tail()}\n", f"All of it is in {self.log}.")

    # --- sessions

    @contextlib.contextmanager
    def session(self, database: str = "postgres", port: int = configuring.PORT, role: str = "") -> Iterator[Session]:
        """A session over the socket in the data directory, as the first superuser that exists, or as a role, which
        finds names as its own sessions do.

        Raises Unreachable and LoginRefused.
        """
        refused: LoginRefused | None = None
        for user in (role,) if role else self.superusers:
            login = Login(
                self.served.data,
                str(port),
                user=user,
                database=database,
                statement_timeout=3600.0,
                as_users=bool(role),
            )
            try:
                opened = connect(login)
                with opened as session:
                    yield session
                return
            except LoginRefused as error:
                refused = error
        raise refused or Unreachable("No role to log in as is known.")

    # --- the recovery

    def reach(self, target: Target, choice: Choice) -> Reached:
        """Wait until the target is reached, and compare what was reached with it.

        Raises HostFailed.
        """
        state = self._waited(target)
        lsn = position(str(state["lsn"])) if state["lsn"] else 0
        reached = Reached(lsn, state["time"], not state["recovering"])
        wrong = missed(target, choice, reached)
        if wrong:
            raise self.failed(f"The recovery stopped, but not at its target: {wrong}")
        return reached

    def _waited(self, target: Target) -> dict[str, Any]:
        told, pauses = time.monotonic(), growing()
        while True:
            state = self._state()
            ended = not self.running() if state is None else not state["recovering"] or state["pause"] == "paused"
            if ended and self._raised():
                self.stop()
                self.start(recovering=True)
                continue
            if ended:
                return self._ended(target, state)
            if state and time.monotonic() > told + TELLING:
                told = time.monotonic()
                self.say(f"replayed up to LSN {state['lsn']}, last commit {state['time']}")
            time.sleep(next(pauses))

    def _ended(self, target: Target, state: dict[str, Any] | None) -> dict[str, Any]:
        """The state in which a recovery ended. Raises HostFailed unless it ended at a target."""
        if state is None:
            raise self.failed("The recovery failed")
        if target.kind == targets.LATEST and not state["recovering"]:
            return state
        # A recovery also pauses for other reasons, and then has nothing to say. One that has reached its target does
        # not pause while nobody could log in, as with more subtransactions than the server has noted.
        if not STOPPING_AT.search(self.text()):
            raise self.failed("The recovery ended before its target")
        return state

    def _raised(self) -> bool:
        """Whether the log asks for settings that are not raised yet; then they are, for the next start."""
        asked = {name: value for name, value in TOO_LOW.findall(self.text()) if self.raised.get(name) != value}
        self.raised.update(asked)
        return bool(asked)

    def text(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError), open(self.log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 20)))
            return file.read().decode("utf-8", "replace")
        return ""

    def _state(self) -> dict[str, Any] | None:
        """What the server says; None while it does not."""
        if not discovery.accepts(self.served.data, os.geteuid()):
            return None
        try:
            with self.session() as session:
                return session.row(STATE)
        except LoginRefused as error:
            raise self.failed(f"No superuser can log in ({', '.join(self.superusers)}): {error.message}") from error
        except PgOpsError:
            return None

    def promote(self) -> int:
        """Have it take writes; its new timeline.

        Raises HostFailed.
        """
        state, pauses = self._state(), growing()
        if state and state["recovering"]:
            # A server that waits at its target looks for a promotion each second only, and is woken by this. It has
            # the same end: a recovery that may go on from its target is over.
            ending = "pg_wal_replay_resume()" if state["pause"] == "paused" else "pg_promote(false)"
            with self.session() as session:
                session.value(f"SELECT {ending}")
        while not state or state["recovering"]:
            if not self.running():
                raise self.failed("The server ended while it was promoted")
            time.sleep(next(pauses))
            state = self._state()
        return int(state["timeline"])

    def wait(self) -> None:
        """Wait until it takes connections. Raises HostFailed."""
        pauses = growing()
        while not discovery.accepts(self.served.data, os.geteuid()):
            if not self.running():
                raise self.failed("The server ended after its recovery")
            time.sleep(next(pauses))

    def collation_warnings(self) -> tuple[str, ...]:
        """What sorts otherwise here than it did on the original: its indexes may be wrong."""
        found: list[str] = []
        with contextlib.suppress(PgOpsError):
            with self.session() as session:
                there = [one for one in databases.present(session) if one.open]
            for one in there[:MOST_DATABASES]:
                found += self._mismatched(one)
        return tuple(found)

    def _mismatched(self, database: Database) -> list[str]:
        with contextlib.suppress(PgOpsError), self.session(database.name) as session:
            names = [str(row["name"]) for row in session.rows(COLLATIONS)]
            if session.value(DATABASE_COLLATION):
                names += [f"the default of database {database.shown}"]
            if names:
                others = f"Database {database.shown}: the versions of collations differ: {', '.join(names[:10])}."
                return [f"{others} Rebuild the indexes that use them, then run ALTER COLLATION ... REFRESH VERSION."]
        return []


def superusers(asked: str) -> tuple[str, ...]:
    """The roles to try: the one that is asked for, or the usual ones."""
    return (asked,) if asked else tuple(dict.fromkeys((user_name(os.geteuid()), "postgres")))


def missed(target: Target, choice: Choice, reached: Reached) -> str:
    """How what was reached differs from the target; '' if it does not. Pure."""
    checks: dict[str, Callable[[], bool]] = {
        targets.TIME: lambda: _until(target, reached),
        targets.LSN: lambda: _beside(target.lsn, target.inclusive, reached),
        targets.XID: lambda: _beside(choice.lsn, target.inclusive, reached),
        targets.NAME: lambda: choice.lsn is None or choice.lsn < reached.lsn <= choice.lsn + POINT_BYTES,
        targets.IMMEDIATE: lambda: reached.lsn >= choice.chain[-1].manifest.stop_lsn,
        targets.LATEST: lambda: reached.lsn > choice.reach.last * choice.reach.line.segment_bytes,
    }
    if checks[target.kind]():
        return ""
    last = targets.written(reached.time) if reached.time else "none"
    wanted = f"{target}{'' if choice.lsn is None else f' at LSN {wal.lsn(choice.lsn)}'}"
    if target.kind == targets.LATEST:
        wanted = f"the end of the WAL, after LSN {wal.lsn(choice.reach.last * choice.reach.line.segment_bytes)}"
    return f"reached was LSN {wal.lsn(reached.lsn)} (last commit {last}), wanted {wanted}"


def _until(target: Target, reached: Reached) -> bool:
    if reached.time is None or target.time is None:
        return True
    return reached.time <= target.time if target.inclusive else reached.time < target.time


def _beside(byte: int | None, inclusive: bool, reached: Reached) -> bool:
    """Whether the record at a byte, or the next one, was the last that was replayed, or the first that was not."""
    return byte is None or (reached.lsn > byte if inclusive else reached.lsn <= byte)


def told(phases: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """The phases with the seconds that each took."""
    return [{"phase": name, "seconds": round(seconds, 3)} for name, seconds in phases]
