# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server whose settings are applied by the library, with all that it records of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers import Server

from pgops.errors import PgOpsError
from pgops.instance.layout import Layout
from pgops.server.target import Target
from pgops.settings import deploy as settings

DEFAULTS: dict[str, Any] = {
    "state": "present",
    "settings": {},
    "lists": "merge",
    "restart": "never",
    "instance": "main",
    "after_primary": False,
}


@dataclass
class Host:
    """A server with the directory in which its original settings are recorded."""

    server: Server
    prefix: Path

    def apply(self, check: bool = False, **params: Any) -> dict[str, Any]:
        """What pg_ops_settings returns; raises what it reports."""
        target = Target(host=str(self.server.socket_dir), port=str(self.server.port), user=self.server.superuser)
        return settings.converge(target, {**DEFAULTS, "prefix": str(self.prefix), **params}, check)

    def set(self, check: bool = False, restart: str = "never", **values: Any) -> dict[str, Any]:
        """Of settings alone."""
        return self.apply(check, settings=values, restart=restart)

    def show(self, name: str) -> object:
        return self.server.value(f"SHOW {name}")

    @property
    def automatic(self) -> list[str]:
        lines = (self.server.data_dir / "postgresql.auto.conf").read_text().splitlines()
        return [line for line in lines if not line.startswith("#")]

    @property
    def kept(self) -> list[str]:
        """The files that are kept for the instance."""
        data = Path(Layout("main", str(self.prefix)).data)
        return sorted(path.name for path in data.iterdir()) if data.exists() else []

    def refused(self, kind: type[PgOpsError], restart: str = "never", **values: Any) -> PgOpsError:
        """The error of settings that cannot be; the server's configuration stays as it is, and it runs."""
        before = self.automatic
        with pytest.raises(kind) as caught:
            self.set(restart=restart, **values)
        assert self.automatic == before
        assert self.server.value("SELECT 1") == 1
        assert caught.value.hint
        return caught.value
