# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers of tests that pgBackRest backs up, with a bank."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import binaries
import pytest
from archives import Host
from backed import Backed, own
from backing import BANK, Bank
from deploying import deploy
from restoring import Restorer
from servers import Server
from waiting import until

from pgops.backup import expiry
from pgops.errors import Busy
from pgops.host.identity import as_user
from pgops.instance.layout import Layout
from pgops.recovery.restore import Restore
from pgops.repository import backups, catalogue
from pgops.repository import stanza as stanzas
from pgops.repository.stanza import Stanza

MAJOR = 15
"""The newest that pgBackRest of Debian 12 supports."""
TOOLS = f"/usr/lib/postgresql/{MAJOR}/bin"
LONG = 600.0


def program() -> Path:
    """pgBackRest; skips the test where this machine cannot have it."""
    if not os.access(f"{TOOLS}/pg_waldump", os.X_OK):
        pytest.skip(f"{TOOLS} has no pg_waldump, which reads the WAL of PostgreSQL {MAJOR}")
    try:
        return binaries.pgbackrest()
    except binaries.UnavailableError as error:
        pytest.skip(str(error))


class Restorer15(Restorer):
    """Restores with the programs of the server's version, which those of the tests are not."""

    def request(self, directory: Path | None = None, end: str = "promote", **more: Any) -> Restore:
        own = {"bin_directory": TOOLS, "generation": more.pop("generation", "")}
        return replace(super().request(directory, end, **more), **own)


@dataclass
class Kept(Backed):
    """A bank whose backups are in a stanza."""

    @classmethod
    def opened(cls, host: Host, **declared: Any) -> Kept:
        """With archiving into the stanza, and the ops database."""
        made = cls(host, {"engine": "pgbackrest", **declared})
        Path(made.layout.keeping).mkdir(parents=True)
        own(Path(made.layout.keeping), host.server)
        host.apply()
        deploy(host.server, backup=True)
        host.server.psql(BANK)
        return made

    @property
    def layout(self) -> Layout:
        return Layout(self.host.params.get("instance", "main"), str(self.host.prefix))

    @property
    def bank(self) -> Bank:
        return Bank(self.host)

    @cached_property
    def restorer(self) -> Restorer:
        return Restorer15(self.bank, self.host.base)

    @property
    def stanza(self) -> Stanza:
        found = stanzas.of(str(self.host.repository), self.place.parent.name)
        assert found
        return found

    @property
    def place(self) -> Path:
        """The directory of the backups."""
        query = "SELECT system_identifier::text FROM pg_control_system()"
        return self.host.repository / f"{self.server.value(query)}-{MAJOR}" / "backup"

    def archive(self) -> str:
        """Have all WAL in the stanza; the name of the last segment."""
        name = self.host.switch()
        until(lambda: as_user(self.user, lambda: self.stanza.stored(name) is not None), f"{name} archived")
        return name

    def run(self, verb: str, *words: str) -> str:
        """Run pgBackRest as the server's user."""
        return str(as_user(self.user, lambda: self.stanza.run(verb, *words), LONG))

    def busy(self) -> bool:
        """Whether a backup is taken."""
        try:
            with backups.alone(str(self.place)):
                return False
        except Busy:
            return True

    def told(self) -> list[dict[str, Any]]:
        """The backups that pgBackRest has."""
        return list(json.loads(self.run("info", "--output=json"))[0]["backup"])

    def expire(self, dry_run: bool = False, **retention: Any) -> dict[str, Any]:
        """Expire what a retention does not keep, as long after now as ``later`` days."""
        now = datetime.now(timezone.utc) + timedelta(days=retention.pop("later", 0))
        settings = self.configuration(retention=retention)
        return dict(as_user(self.user, lambda: expiry.expire(settings, self.layout, dry_run, now=now), LONG))

    def catalogued(self) -> dict[str, Any]:
        """Update the catalogue."""
        return dict(as_user(self.user, lambda: catalogue.update(self.configuration()), LONG))

    def stored(self, pattern: str) -> Path:
        """A file of the stanza's repository."""
        return sorted((self.host.repository / "pgbackrest").rglob(pattern))[0]


def host(root: Path, server: Server, **params: Any) -> Host:
    """A host whose server archives by pgBackRest."""
    return Host(server, root / "base", root / "prefix", {"engine": "pgbackrest", **params})
