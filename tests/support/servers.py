"""Real PostgreSQL servers of every supported major version, for tests.

    server = Server.create(17)        initdb in a directory of its own
    with server: ...                  started, and stopped and deleted at the end

Started by root, servers run as `nobody`: PostgreSQL refuses root.
Everything of a server is in one short directory (scratch.py), since a socket's path has at most 107 bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import binaries
import datadirs
import psycopg
import scratch
from psycopg.conninfo import make_conninfo
from waiting import PATIENCE, until

PR_SET_PDEATHSIG = 1
PORTS: set[int] = set()
UP = ("ready", "standby")
HBA = "local all all {method}\nhost all all 127.0.0.1/32 {method}\nlocal replication all {method}\n"
# Data of tests need not survive a power cut, and several servers share one small machine.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %q%u@%d/%a ",
    "max_connections": "50",
    "shared_buffers": "16MB",
    "wal_keep_size": "64MB",
}


def _own_user() -> str:
    return "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


def free_port() -> int:
    """A port that this process has not used yet, and nobody does now. Not one of those that the kernel gives to who
    connects: it would, while the server is stopped."""
    while True:
        port = random.randrange(20_000, 32_768)
        if port in PORTS:
            continue
        PORTS.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Connection(psycopg.Connection):
    """One whose session is gone once it is closed, for all who look at the server then."""

    def close(self) -> None:
        """The server's process keeps its end for as long as it lives."""
        with contextlib.ExitStack() as stack:
            stack.callback(super().close)
            stack.enter_context(contextlib.suppress(OSError, psycopg.Error))
            wire = stack.enter_context(socket.socket(fileno=os.dup(self.fileno())))
            super().close()
            wire.settimeout(5)
            while wire.recv(65536):
                pass


def _lives(process: Path) -> bool:
    """Whether a process, a directory in /proc, runs: a zombie that nobody has reaped does not."""
    with contextlib.suppress(OSError):
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _die_with_parent() -> None:
    """Have the kernel stop a server whose test process was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


@dataclass
class Server:
    """One server. It may be stopped and started again; `delete` ends it for good."""

    major: int
    directory: Path  # data/, log, certificates and the sockets
    port: int
    superuser: str = "postgres"
    os_user: str = field(default_factory=_own_user)
    arguments: tuple[str, ...] = ()  # of postgres, on its command line
    environment: Mapping[str, str] = field(default_factory=dict)  # of postgres, besides this process's own
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def socket_dir(self) -> Path:
        return self.directory

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def logged(self, since: int = 0) -> str:
        """What the server logged from a number of bytes on. Each database logs in its own encoding."""
        return self.log.read_bytes()[since:].decode(errors="replace")

    @property
    def bin_dir(self) -> Path:
        return binaries.directory(self.major)

    @property
    def client_dir(self) -> Path:
        """The client programs to use on it; they may be of a newer version."""
        return self.client("psql").parent

    def client(self, tool: str) -> Path:
        """A client program to use on it."""
        return binaries.client(tool, self.major)

    @property
    def tooled(self) -> bool:
        """Whether the client programs are of its own version."""
        return self.major in binaries.TOOLED

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @classmethod
    def create(
        cls,
        major: int,
        *,
        settings: Mapping[str, str] | None = None,
        locale: str = "C",
        encoding: str = "UTF8",
        auth: str = "trust",
        initdb: tuple[str, ...] = (),
    ) -> Server:
        """Make a new, stopped server as initdb makes it; `initdb` holds more options for it.

        `auth` is the method for all connections in pg_hba.conf; `settings` go to postgresql.conf.
        """
        server = cls._place(major)
        options = ["--username", server.superuser, "--locale", locale, "--encoding", encoding, "--no-sync", *initdb]
        program = server.bin_dir / "initdb"
        datadirs.fill(server.data_dir, major, options, lambda place: server.run(program, "-D", place, *options))
        server.configure({**SETTINGS, **server._listening(), **(settings or {})})
        server.write_hba(HBA.format(method=auth))
        return server

    @classmethod
    def _place(cls, major: int) -> Server:
        cls(major, Path(), 0).bin_dir.exists()  # fetched first: a machine that has none leaves nothing behind
        server = cls(major, Path(tempfile.mkdtemp(prefix=f"pg{major}-", dir=scratch.root())), free_port())
        server.directory.chmod(0o755)
        if os.getuid() == 0:
            shutil.chown(server.directory, server.os_user)
        return server

    def _listening(self) -> dict[str, str]:
        return {"port": str(self.port), "unix_socket_directories": str(self.socket_dir)}

    # running programs as the server's owner

    def _identity(self) -> dict[str, object]:
        if os.getuid() != 0:
            return {}
        user = pwd.getpwnam(self.os_user)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run a program as the server's owner; its output.

        Raises:
            RuntimeError: it failed; with its output.
        """
        result = subprocess.run(  # type: ignore[call-overload]
            [str(word) for word in command],
            cwd=self.directory,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self._identity(),
        )
        if result.returncode:
            raise RuntimeError(f"{command[0]} failed with {result.returncode}:\n{result.stdout}")
        return str(result.stdout)

    def write(self, path: Path, text: str, mode: int = 0o600) -> Path:
        """Write a file that belongs to the server's owner."""
        path.write_text(text)
        path.chmod(mode)
        if os.getuid() == 0:
            owner = pwd.getpwnam(self.os_user)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        return path

    # configuration

    def configure(self, settings: Mapping[str, str]) -> None:
        """Append settings to postgresql.conf; reload or restart is the caller's."""
        quoted = {name: value.replace("'", "''") for name, value in settings.items()}
        with (self.data_dir / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in quoted.items())

    def write_hba(self, text: str) -> None:
        self.write(self.data_dir / "pg_hba.conf", text)

    def enable_tls(self) -> Path:
        """Give the server a certificate for localhost and 127.0.0.1; the file of its CA. Needs a reload."""
        import trustme

        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        chain = "".join(blob.bytes().decode() for blob in certificate.cert_chain_pems)
        self.write(self.directory / "server.crt", chain)
        self.write(self.directory / "server.key", certificate.private_key_pem.bytes().decode())
        files = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
        self.configure({name: str(self.directory / file) for name, file in files.items()})
        self.configure({"ssl": "on"})
        return self.write(self.directory / "ca.crt", authority.cert_pem.bytes().decode(), 0o644)

    def reload(self) -> None:
        """Have the server read its files again, and wait until it has."""
        with self.connect() as connection:
            before = connection.execute("SELECT pg_conf_load_time()").fetchone()
            connection.execute("SELECT pg_reload_conf()")
        until(lambda: self.value("SELECT pg_conf_load_time()") != (before or [None])[0], "reloaded")

    # life

    def start(self) -> Server:
        """Start and wait until it takes connections.

        Raises:
            RuntimeError: it ended, or isn't up in time; with the end of its log.
        """
        if not self.log.exists():
            self.write(self.log, "")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # type: ignore[call-overload]
                [str(self.bin_dir / "postgres"), "-D", str(self.data_dir), *self.arguments],
                cwd=self.directory,
                env={**os.environ, "LC_ALL": "C", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  tests start servers from one thread
                **self._identity(),
            )
        try:
            until(self._is_up, "up")
        except RuntimeError as error:
            self.kill()
            raise RuntimeError(f"PostgreSQL {self.major}: {error}\n{self.logged()[-4000:]}") from None
        return self

    def _is_up(self) -> bool:
        if not self.running:
            raise RuntimeError("the server ended")
        status = self.data_dir / "postmaster.pid"
        with contextlib.suppress(OSError, IndexError):
            lines = status.read_text().splitlines()  # a crash leaves an old one behind
            return lines[0] == str(self._process and self._process.pid) and lines[7].strip() in UP
        return False

    def stop(self, mode: str = "fast") -> None:
        """Stop it, `smart`, `fast` or `immediate`; nothing where it isn't running."""
        how = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        if self._process is not None:
            if self.running:
                self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None
        self._end_successor(how)

    def _end_successor(self, how: int) -> None:
        """End a server that something else than this test has started in the data directory."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            process = int((self.data_dir / "postmaster.pid").read_text().split()[0])
            if Path(f"/proc/{process}/cwd").readlink() == self.data_dir:
                os.kill(process, how)
                until(lambda: not _lives(Path(f"/proc/{process}")), "ended")

    def kill(self) -> None:
        """End it as a power cut does: SIGKILL for every process."""
        if self._process is not None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            alive = [Path("/proc") / pid for pid in children.read_text().split()] if self.running else []
            self._process.kill()
            for child in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child.name), signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None
            until(lambda: not any(_lives(child) for child in alive), "ended")

    def delete(self) -> None:
        """Stop it and delete all it has."""
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    # standbys

    def standby(self, settings: Mapping[str, str] | None = None) -> Server:
        """Make a new, stopped streaming standby of this running server."""
        other = Server._place(self.major)
        source = make_conninfo(self.dsn(""), application_name=other.directory.name)
        options = ["--checkpoint=fast", "--no-sync", "--wal-method=stream"]
        other.run(self.client("pg_basebackup"), "-d", source, "-D", other.data_dir, *options)
        # Not --write-recovery-conf: the newest client writes connection parameters that older servers don't know.
        other.write(other.data_dir / "standby.signal", "")
        other.configure({"primary_conninfo": source, **other._listening(), **(settings or {})})
        return other

    def promote(self) -> None:
        """Promote a standby and wait until it takes writes."""
        self.value("SELECT pg_promote()")

    # talking to it

    def dsn(self, dbname: str = "postgres", **parameters: str | int) -> str:
        """A connection string over the Unix socket as the superuser; `parameters` add to it or overrule."""
        own: dict[str, str | int] = {"host": str(self.socket_dir), "port": self.port, "user": self.superuser}
        merged = {**own, "dbname": dbname, "connect_timeout": 10, **parameters}
        return make_conninfo("", **{name: value for name, value in merged.items() if value != ""})

    def tcp(self, dbname: str = "postgres", **parameters: str | int) -> str:
        """A connection string over TCP."""
        return self.dsn(dbname, **{"host": "127.0.0.1", **parameters})

    def connect(self, dbname: str = "postgres", **parameters: str | int) -> psycopg.Connection:
        """A connection in autocommit mode; to be used in a `with`."""
        return Connection.connect(self.dsn(dbname, **parameters), autocommit=True)

    def value(self, query: str, dbname: str = "postgres") -> object:
        """The first column of the first row of a statement, as the superuser; None without rows."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(query.encode())
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def age(self) -> float:
        """For how many seconds it has run: nothing in it is older."""
        return float(str(self.value("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())")))

    def psql(self, script: str, dbname: str = "postgres") -> str:
        """Run a script of several statements with psql, stopping at the first error; its unaligned output."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(dbname)]
        return self.run(self.client("psql"), *options, "-c", script).strip()

    @contextlib.contextmanager
    def stopped(self, kind: str) -> Iterator[None]:
        """Without what a process of the server does by itself: `archiver`."""
        pid = int(str(self.value(f"SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}'")))
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):  # the server may have been killed meanwhile
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        """A new database for the length of a `with`; `options` follow CREATE DATABASE; its name."""
        name = f"test_{secrets.token_hex(4)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} {options}".encode())
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
