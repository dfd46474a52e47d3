# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers of tests whose backups the library takes, as the user that runs them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from archives import Host
from deploying import deploy
from servers import Server

from pgops.backup import clients, take, verify, work
from pgops.backup import deploy as backing_up
from pgops.host.identity import as_user
from pgops.instance.configuration import Configuration
from pgops.instance.layout import Layout
from pgops.repository import backups
from pgops.repository.backups import Kept, Listing

LONG = 600.0  # seconds that a backup may take as another user


@dataclass
class Backed:
    """A server that archives, and its backups; ``declared`` are options of backups."""

    host: Host
    declared: dict[str, Any] = field(default_factory=dict)

    @property
    def server(self) -> Server:
        return self.host.server

    @classmethod
    def of(cls, host: Host, **declared: Any) -> Backed:
        """With archiving, and the ops database."""
        if host.server.major >= clients.READS_CONTROL_FILE and not host.server.tooled:
            pytest.skip("from 17 on, pg_verifybackup verifies backups of its own version only")
        host.apply()
        deploy(host.server, backup=True)
        made = cls(host, declared)
        Path(made.layout.keeping).mkdir(parents=True)
        own(Path(made.layout.keeping), host.server)
        return made

    @property
    def layout(self) -> Layout:
        return Layout("main", str(self.host.prefix))

    @property
    def user(self) -> int:
        """The uid of the server's user."""
        return pwd.getpwnam(self.server.os_user).pw_uid

    def configuration(self, **declared: Any) -> Configuration:
        """That of the agent."""
        return Configuration(
            "main",
            "shop",
            "db1/main",
            port=self.server.port,
            socket_directory=str(self.server.socket_dir),
            superuser=self.server.superuser,
            repository=str(self.host.repository),
            parts={"backup": {"bin_directory": str(self.server.client_dir), **self.declared, **declared}},
        )

    def configure(self, **declared: Any) -> None:
        """Write the agent's configuration, as pg_ops_agent does."""
        path = Path(self.layout.agent_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.configuration(**declared).text())

    def module(self, action: str, check: bool = False, **params: Any) -> dict[str, Any]:
        """What pg_ops_backup returns; raises what it reports."""
        usual = {"type": "full", "backup": None, "reason": None, "databases": None}
        place = {"instance": "main", "prefix": str(self.host.prefix)}
        return backing_up.converge({**usual, **place, **params, "action": action}, check)

    def take(self, kind: str = "auto", **declared: Any) -> dict[str, Any]:
        """Take a backup; raises what that reports."""
        done: dict[str, Any] = as_user(
            self.user, lambda: take.take(self.configuration(**declared), self.layout, kind), LONG
        )
        return done

    def dump(self, *names: str, **dumps: Any) -> dict[str, Any]:
        """Dump the databases that are declared so and due, or those of some names."""
        declared = {**self.declared.get("dumps", {}), **dumps}
        done: dict[str, Any] = as_user(
            self.user, lambda: work.dump_databases(self.configuration(dumps=declared), names), LONG
        )
        return done

    def verify(self, *names: str, due: bool = False) -> dict[str, Any]:
        """Verify all backups, or some, or what is due."""
        done: dict[str, Any] = as_user(
            self.user, lambda: verify.verify(self.configuration(), self.layout, names, due), LONG
        )
        return done

    @property
    def place(self) -> Path:
        """The directory of the backups."""
        (generation,) = (path for path in self.host.repository.iterdir() if path.is_dir())
        return generation / "backup"

    def directories(self) -> list[Path]:
        """Those of all backups, of any state."""
        return [path for path in self.host.repository.glob("*/backup/*") if path.is_dir()]

    @property
    def listing(self) -> Listing:
        return backups.listed(str(self.place))

    def kept(self, taken: dict[str, Any]) -> Kept:
        """A backup that was taken."""
        return self.listing.by_id()[taken["backup"]]

    def path(self, taken: dict[str, Any]) -> Path:
        """Its directory."""
        return self.place / str(taken["name"])

    def restored(self, taken: dict[str, Any]) -> Server:
        """A stopped server of a plain, full backup, that recovers to its end; it archives nothing."""
        other = Server._place(self.server.major)
        made = self.kept(taken).manifest
        data = self.path(taken) / backups.DATA
        shutil.copytree(data, other.data_dir, symlinks=True)
        for space in made.tablespaces:
            shutil.copytree(self.path(taken) / backups.TABLESPACES / str(space.oid), other.directory / str(space.oid))
            link = other.data_dir / "pg_tblspc" / str(space.oid)
            link.unlink()
            link.symlink_to(other.directory / str(space.oid))
        own(other.directory, other)
        fetch = f"{self.host.program} fetch {self.host.repository} {self.place.parent.name} %f %p"
        settings = {"archive_mode": "off", "restore_command": fetch, "recovery_target": "immediate"}
        other.configure({**other._listening(), **settings, "recovery_target_action": "promote"})
        other.write(other.data_dir / "recovery.signal", "")
        return other


def own(path: Path, server: Server) -> None:
    """Give a directory with all that it has to the server's user."""
    if os.geteuid() == 0:
        owner = pwd.getpwnam(server.os_user)
        for one in [path, *path.rglob("*")]:
            os.chown(one, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def flip(path: Path, at: int = -1) -> None:
    """Change one bit of a file, in its middle unless told otherwise."""
    with path.open("r+b") as file:
        file.seek(at if at >= 0 else path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@contextlib.contextmanager
def put_back(path: Path) -> Iterator[Path]:
    """A file that may be changed or removed inside, and is as before afterwards."""
    before, about = path.read_bytes(), path.stat()
    try:
        yield path
    finally:
        path.write_bytes(before)
        os.chmod(path, about.st_mode)
        os.chown(path, about.st_uid, about.st_gid)
