# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo's alert: somebody keeps a lock, and a webhook on loopback is told of it, and of its end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from server import DemoServer

RULE = "lock_wait"
PATIENCE = 120.0
"""Seconds until it must have been told."""
VARIABLES: dict[str, Any] = {
    # The shipped rule waits for a minute, which nobody who watches a demo likes to.
    "pgops_alert_rules": [{"name": RULE, "severity": "warning", "threshold": 1, "clear_threshold": 1, "lasts": "0"}],
    "pgops_alert_channels": [{"name": "desk", "group_interval": "1s"}],
}
LOCKED = "LOCK TABLE pgbench_branches IN ACCESS EXCLUSIVE MODE"
HOLDER = (
    "FROM pg_locks AS l WHERE l.relation = 'pgbench_branches'::regclass AND l.granted AND l.mode LIKE 'AccessEx%'"
)
TAKEN = f"SELECT count(*) {HOLDER}"
ENDED = f"SELECT count(pg_terminate_backend(l.pid)) {HOLDER}"


class AlarmError(Exception):
    """Nobody was told."""


@dataclass
class Desk:
    """A web server on loopback, which is told of alerts."""

    told: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Desk:
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """The demo shows what it was told."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def variables(self) -> dict[str, Any]:
        """Those of the inventory."""
        address = f"json://127.0.0.1:{self._server.server_port}/"
        return {**VARIABLES, "pgops_alert_addresses": {"desk": {"webhook": address}}}


def alarm(server: DemoServer, desk: Desk, pgops: Callable[..., dict[str, Any]], say: Callable[[str], None]) -> None:
    """Keep a lock that another session waits for, until the webhook is told; give it back, until it is told that too.

    Raises AlarmError.
    """
    holder = server.session(f"BEGIN; {LOCKED}; SELECT pg_sleep(3600)")
    waiter = None
    try:
        _until(lambda: server.ask(TAKEN, *server.options) != "0", "locked")
        waiter = server.session("SELECT count(*) FROM pgbench_branches")
        began = time.monotonic()
        fired = _told(desk, pgops)
        say(f"A session keeps a lock that another waits for. The webhook was told after {_since(began)}:")
        say(f"  {fired}")
    finally:
        server.ask(ENDED, *server.options)
        holder.kill()
        for session in filter(None, (holder, waiter)):
            session.wait()
    began = time.monotonic()
    resolved = _told(desk, pgops)
    say(f"That session was ended. The webhook was told after {_since(began)}:")
    say(f"  {resolved}")


def _told(desk: Desk, pgops: Callable[..., dict[str, Any]]) -> str:
    """Do what the agent's timers do each minute, until something more was told; its title."""
    before = len(desk.told)

    def step() -> bool:
        for words in (("collect",), ("alerts", "--evaluate"), ("notify",)):
            errors = pgops(*words)["errors"]
            if errors:
                raise AlarmError(f"pgops {' '.join(words)}: {errors}")
        return len(desk.told) > before

    _until(step, "told")
    return " ".join(str(desk.told[-1]["title"]).split())


def _until(look: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > until:
            raise AlarmError(f"not {what} within {PATIENCE:.0f} seconds")
        time.sleep(0.5)


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.0f} seconds"
