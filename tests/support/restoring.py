# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restores from the repositories of tests, and the servers that come out of them."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backing import STATE, Bank, own
from servers import Server
from waiting import until

from pgops import cli
from pgops.host.identity import as_user
from pgops.recovery import restore, targets
from pgops.recovery.restore import Restore

DEFAULTS: dict[str, Any] = {
    "generation": "",
    "time": None,
    "lsn": None,
    "name": None,
    "xid": None,
    "immediate": False,
    "latest": False,
    "timeline": None,
    "inclusive": True,
    "end": "promote",
    "in_place": False,
    "start": True,
    "unit": "",
    "tablespace_map": {},
    "port": 0,
    "superuser": "",
    "configuration": None,
    "owner": "",
    "search_directory": None,
    "search_seconds": 0,
    "preload": None,
    "shared_buffers": "",
}


@dataclass
class Restorer:
    """Restores from the repository of a bank into directories below ``root``."""

    bank: Bank
    root: Path
    made: list[Path] = field(default_factory=list)

    @property
    def owner(self) -> int:
        return pwd.getpwnam(self.bank.server.os_user).pw_uid

    def directory(self) -> Path:
        """A new path, whose parent the server's user may write to."""
        parent = self.root / f"r{len(self.made)}"
        parent.mkdir()
        own(parent, self.bank.server)
        self.made.append(parent / "d")
        return self.made[-1]

    def request(self, directory: Path | None = None, end: str = "promote", **more: Any) -> Restore:
        """What is asked for: a target, and other fields of a request."""
        kinds = {*targets.KINDS, "timeline", "inclusive"}
        fields = {name: value for name, value in more.items() if name not in kinds}
        return Restore(
            str(self.bank.host.repository),
            "",
            str(directory or self.directory()),
            targets.parse({name: value for name, value in more.items() if name in kinds}),
            end,
            bin_directory=str(self.bank.server.client_dir),
            server_directory=str(self.bank.server.bin_dir),
            **fields,
        )

    def arguments(self, directory: Path, **asked: Any) -> dict[str, Any]:
        """The arguments of pg_ops_restore."""
        place = {
            "repository": str(self.bank.host.repository),
            "directory": str(directory),
            "bin_directory": str(self.bank.server.client_dir),
            "server_bin_directory": str(self.bank.server.bin_dir),
        }
        return {**DEFAULTS, **place, **asked}

    def plan(self, **asked: Any) -> dict[str, Any]:
        """What a restore would do."""
        request = self.request(**asked)
        return dict(as_user(self.owner, lambda: restore.plan(request).told()))

    def plan_warnings(self, **asked: Any) -> list[str]:
        """What a plan warns of."""
        request = self.request(**asked)
        return list(as_user(self.owner, lambda: list(restore.plan(request).warnings)))

    def restore(self, **asked: Any) -> dict[str, Any]:
        """Restore; what it returns."""
        request = self.request(**asked)
        return dict(as_user(self.owner, lambda: restore.restore(request), 600.0))

    def state(self, result: dict[str, Any]) -> str:
        """The state of the bank on a server that was restored."""
        return str(self.value(result, STATE))

    def value(self, result: dict[str, Any], query: str) -> object:
        """What a server that was restored answers."""
        restored = self.server(Path(result["directory"]), result["port"])
        return restored.value(query)

    def server(self, data: Path, port: int) -> Server:
        """A restored server, to talk to."""
        return _Restored(self.bank.server.major, data.parent, port)

    def end(self, data: Path) -> None:
        """End the server of a directory, if it runs."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            process = int((data / "postmaster.pid").read_text().split()[0])
            if Path(f"/proc/{process}/cwd").readlink() == data:
                os.kill(process, signal.SIGQUIT)
                until(lambda: not Path(f"/proc/{process}").exists(), "ended")


class _Restored(Server):
    @property
    def data_dir(self) -> Path:
        return self.directory / "d"

    @property
    def socket_dir(self) -> Path:
        return self.data_dir


def pgops(restorer: Restorer, *words: str) -> tuple[int, str]:
    """The exit code and the output of the command, as the server's user, who has no configuration of the agent."""
    server = restorer.bank.server
    place = ["--repository", str(restorer.bank.host.repository), "--bin-directory", str(server.client_dir)]
    place += ["--server-bin-directory", str(server.bin_dir)]

    def run() -> list[Any]:
        text = io.StringIO()
        sys.stdout = sys.stderr = text
        return [cli.main(["restore", *place, *words]), text.getvalue()]

    code, output = as_user(restorer.owner, run, 600.0)
    return int(code), str(output)
