"""A real Patroni of one node, for tests: it makes, starts and configures a PostgreSQL 18.

    with Patroni.create_node({"pg_hba": ["local all postgres trust"]}) as node:
        node.value("SELECT 1")
        node.ctl("edit-config", "--pg", "work_mem=8MB", "--force")

Its consensus store is its own (Raft), so nothing else has to run. It has an environment of its own, with a Python
that the server's user may execute: started by root, all of it runs as `nobody`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import binaries
import pythons
import scratch
import servers
from servers import Server
from waiting import PATIENCE, LateError, until

REQUIREMENTS = "patroni[psycopg3,raft]>=4.0,<5\n"
SUPERUSER, PASSWORD = "postgres", "secret"


def directory() -> Path:
    """Its environment, made where it is not there yet.

    Raises:
        UnavailableError: it can't be had on this machine.
    """
    binaries.client("postgres")
    place = binaries.store()
    requirements = place / "requirements-patroni.txt"
    with (place / ".patroni.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not requirements.exists() or requirements.read_text() != REQUIREMENTS:
            requirements.write_text(REQUIREMENTS)
    try:
        pythons.make_venv(place / "patroni", requirements, _python())
    except subprocess.CalledProcessError as error:
        raise binaries.UnavailableError(f"Patroni could not be installed: {error}") from error
    return place / "patroni" / "bin"


def _python() -> Path:
    """The newest Python that the server's user may execute."""
    probe = Server(binaries.BUNDLED, Path("/"), 0)
    for _minor, python in sorted(pythons.installed().items(), reverse=True):
        with contextlib.suppress(RuntimeError, OSError):
            probe.run(python.resolve(), "-I", "-c", "import ssl")
            return python.resolve()  # not a link in a folder that is closed to that user
    raise binaries.UnavailableError(f"no Python here may be executed by {probe.os_user}, as whom Patroni has to run")


def _end_with_parent() -> None:
    """Have the kernel end Patroni, and Patroni its server, when the test process was killed."""
    ctypes.CDLL(None).prctl(servers.PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Patroni(Server):
    """The server that Patroni runs; what `Server` does to a process is Patroni's business here."""

    _patroni: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def create_node(cls, postgresql: Mapping[str, object]) -> Patroni:
        """A node that is not started; `postgresql` is that part of the cluster's configuration, kept in the store."""
        directory()
        place = Path(tempfile.mkdtemp(prefix="patroni-", dir=scratch.root()))
        node = cls(binaries.BUNDLED, place, servers.free_port())
        place.chmod(0o755)
        if os.getuid() == 0:
            shutil.chown(place, node.os_user)
        node.write(node.configuration_file, json.dumps(node._configuration(postgresql)))
        return node

    @property
    def configuration_file(self) -> Path:
        return self.directory / "patroni.yml"  # JSON is YAML

    def _configuration(self, postgresql: Mapping[str, object]) -> dict[str, object]:
        rest, raft = servers.free_port(), servers.free_port()
        account = {"username": SUPERUSER, "password": PASSWORD}
        return {
            "scope": "shop",
            "name": "node1",
            "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
            "raft": {"self_addr": f"127.0.0.1:{raft}", "data_dir": str(self.directory / "raft")},
            "bootstrap": {
                "dcs": {"loop_wait": 1, "ttl": 20, "retry_timeout": 3, "postgresql": dict(postgresql)},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.data_dir),
                "bin_dir": str(binaries.client("postgres").parent),
                "pgpass": str(self.directory / "pgpass"),
                "use_unix_socket": True,
                "authentication": {"superuser": account, "replication": {**account, "username": "replicator"}},
                "parameters": {"unix_socket_directories": str(self.socket_dir), "fsync": "off"},
            },
        }

    # life

    def start(self) -> Patroni:
        """Start Patroni, and wait until its server is a primary."""
        with self.log.open("ab") as log:
            self._patroni = subprocess.Popen(  # type: ignore[call-overload]
                [str(directory() / "patroni"), str(self.configuration_file)],
                cwd=self.directory,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  tests start servers from one thread
                **self._identity(),
            )
        try:
            self.wait_until(self._is_primary, "a primary")
        except RuntimeError as error:
            self.delete()
            raise RuntimeError(f"Patroni: {error}") from None
        return self

    def _is_primary(self) -> bool:
        if self._patroni is None or self._patroni.poll() is not None:
            raise RuntimeError(f"Patroni ended\n{self.log.read_text()[-2000:]}")
        rest = json.loads(self.configuration_file.read_text())["restapi"]["connect_address"]
        connection = http.client.HTTPConnection(rest, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/primary")
            return connection.getresponse().status == 200
        return False

    def wait_until(self, condition: Callable[[], object], state: str) -> None:
        """Wait for what Patroni does by itself in its next rounds.

        Raises:
            RuntimeError: it isn't so in time; with the end of the log.
        """
        try:
            until(condition, state, pause=0.1)
        except LateError as error:
            raise RuntimeError(f"{error}\n{self.log.read_text()[-2000:]}") from None

    def end_patroni(self) -> None:
        """Kill Patroni and leave its server running, as when Patroni crashes."""
        if self._patroni is not None:
            self._patroni.kill()
            self._patroni.wait(PATIENCE)
            self._patroni = None

    def delete(self) -> None:
        """Kill Patroni, stop its server, and delete all they have."""
        self.end_patroni()
        with contextlib.suppress(OSError, ValueError, IndexError):
            postmaster = int((self.data_dir / "postmaster.pid").read_text().splitlines()[0])
            os.kill(postmaster, signal.SIGQUIT)
            self.wait_until(lambda: not servers._lives(Path("/proc") / str(postmaster)), "stopped")
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Patroni:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    # its command

    def ctl(self, *words: str | Path) -> str:
        """Run patronictl; its output."""
        return self.run(directory() / "patronictl", "-c", self.configuration_file, *words)

    def set_list(self, name: str, lines: list[str] | None) -> None:
        """Set a list such as `pg_hba` of the cluster's configuration, as the warnings ask for."""
        wanted = self.write(self.directory / "change.yml", json.dumps({"postgresql": {name: lines}}))
        self.ctl("edit-config", "--apply", wanted, "--force")
