# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups are verified whatever else is there: without the server, of old generations, and without the programs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from archives import Host
from backed import Backed, flip, own, put_back

from pgops.backup import plain, verify
from pgops.host.identity import as_user
from pgops.repository import backups


def test_backups_of_all_generations_are_verified_without_the_server(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    done = backed.take()
    new = backed.place.parent
    # As pg_upgrade leaves it: a generation that no server writes into any more.
    old = new.parent / f"{new.name.partition('-')[0]}-14"
    shutil.copytree(new, old, symlinks=True)
    identity = json.loads((old / "generation.json").read_text())
    (old / "generation.json").write_text(json.dumps({**identity, "major": 14}))
    own(old, backed.server)
    backed.server.stop()
    found = backed.verify()
    assert (found["verified"], found["errors"]) == (2, [])
    assert any("cannot be asked" in warning for warning in found["warnings"])
    file = old / "backup" / str(done["name"]) / "data" / "PG_VERSION"
    with put_back(file):
        flip(file)
        found = backed.verify()
        assert (found["verified"], list(found["damaged"])) == (1, [done["name"]])
        assert any("PG_VERSION" in error for error in found["errors"])
    assert backed.verify()["errors"] == []


def test_the_agent_verifies_as_pg_verifybackup_does(make: Callable[..., Host]) -> None:
    host = make()
    space = host.server.directory / "space"
    space.mkdir()
    own(space, host.server)
    host.server.psql(f"CREATE TABLESPACE far LOCATION '{space}'")
    host.server.psql("CREATE TABLE item TABLESPACE far AS SELECT 1 AS n")
    backed = Backed.of(host)
    data = backed.path(backed.take()) / "data"
    relation = next(path for path in data.joinpath("pg_tblspc").glob("*/*/*/*") if path.stat().st_size)
    assert plain.problems(str(data)) == []
    for file in (data / "PG_VERSION", data / "global" / "pg_control", relation):
        name = str(file.relative_to(data))
        with put_back(file):
            flip(file)
            assert plain.problems(str(data)) == [f"{name} has another checksum"]
            os.truncate(file, 1)
            assert plain.problems(str(data)) == [
                f"{name} has 1 bytes, and not {_size(data / 'backup_manifest', name)}"
            ]
            file.unlink()
            assert plain.problems(str(data)) == [f"{name} is missing"]
    (data / "stray").write_text("")
    assert plain.problems(str(data)) == ["stray is not listed"]


def _size(manifest: Path, name: str) -> int:
    return int(next(one["Size"] for one in json.loads(manifest.read_text())["Files"] if one.get("Path") == name))


def test_on_schedule_what_is_due_is_verified(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    done = backed.take()

    def due() -> dict[str, object]:
        return dict(as_user(backed.user, lambda: verify.verify(backed.configuration(), backed.layout, due=True), 600))

    assert (due()["verified"], backed.kept(done).checked_at) == (0, None)
    long_ago = datetime.now(timezone.utc) - timedelta(days=6.5)
    backups.note_checked(str(backed.place), str(done["name"]), (), long_ago)
    own(backed.place, backed.server)
    assert due()["verified"] == 1
    # What was damaged may have been mended.
    backups.note_checked(str(backed.place), str(done["name"]), ("torn",), datetime.now(timezone.utc))
    own(backed.place, backed.server)
    assert due()["verified"] == 1
    assert backed.kept(done).problems == ()
