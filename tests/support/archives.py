# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers that archive into repositories of tests."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import artifact
import psycopg
import pytest
from deploying import target
from servers import Server
from waiting import until

from pgops.errors import PgOpsError
from pgops.instance.layout import Layout
from pgops.repository import deploy as archiving

DEFAULTS: dict[str, Any] = {
    "instance": "main",
    "state": "present",
    "cluster": "shop",
    "mount": None,
    "compression": "none",
    "timeout": 600,
    "replace": False,
    "fetch": True,
    "another_server": False,
    "configure": True,
    "restart": "if_required",
}


@dataclass
class Host:
    """A server, and what archives its WAL; ``base`` is where repositories are."""

    server: Server
    base: Path
    prefix: Path
    params: dict[str, Any] = field(default_factory=dict)
    registered: Path | None = None
    """The data directory that may archive, where it is not the server's."""

    @property
    def repository(self) -> Path:
        return self.base / "shop"

    def apply(self, check: bool = False, **params: Any) -> dict[str, Any]:
        """What pg_ops_archiving returns; raises what it reports."""
        place = {"repository": str(self.repository), "prefix": str(self.prefix)}
        if not check:
            self.install_program()
        return archiving.converge(target(self.server), {**DEFAULTS, **place, **self.params, **params}, check)

    @property
    def program(self) -> Path:
        """The program that archives."""
        return Path(Layout("main", str(self.prefix)).archiver)

    def install_program(self) -> None:
        """What pg_ops_agent does on a host."""
        self.register(self.registered or self.server.data_dir)
        if not self.program.exists():
            self.program.parent.mkdir(parents=True, exist_ok=True)
            source = (artifact.LIBRARY / "repository" / "archiver.py").read_text()
            self.program.write_text(f"#!/usr/bin/python3 -IS\n{source}")
            self.program.chmod(0o755)

    def register(self, data: Path) -> None:
        """Whose WAL the program takes."""
        path = Path(Layout(self.params.get("instance", "main"), str(self.prefix)).registration)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{data}\n{self.repository}\n")

    def refused(self, kind: type[PgOpsError], **params: Any) -> str:
        """The error of an archiving that cannot be; the server's settings stay as they are."""
        before = self.server.value("SHOW archive_mode"), self.server.value("SHOW archive_command")
        with pytest.raises(kind) as caught:
            self.apply(**params)
        assert (self.server.value("SHOW archive_mode"), self.server.value("SHOW archive_command")) == before
        assert caught.value.hint
        return str(caught.value)

    def switch(self) -> str:
        """Finish a segment; its name."""
        self.server.value("SELECT pg_create_restore_point('here')")
        return str(self.server.value("SELECT pg_walfile_name(pg_switch_wal())"))

    def switch_again(self) -> str:
        """The same, once the server takes it: it may be recovering."""
        made: list[str] = []

        def switched() -> bool:
            with contextlib.suppress(psycopg.Error):
                made.append(self.switch())
            return bool(made)

        until(switched, "switched")
        return made[0]

    def wait_for(self, name: str) -> None:
        """Wait until a segment is archived."""

        def arrived() -> bool:
            if name in self.archived():
                return True
            # After three failures the archiver rests for a minute, unless there is something new.
            self.switch_again()
            return False

        until(arrived, f"{name} archived", pause=0.5)

    def archived(self) -> dict[str, Path]:
        """The files in the repository by their names, without those that are still being written."""
        found = (path for path in self.repository.glob("*/wal/**/*") if not path.name.startswith("."))
        return {path.name: path for path in found if path.is_file()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
