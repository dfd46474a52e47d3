# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's command takes backups, as timers call it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archives import Host
from backed import Backed, own

from pgops import cli
from pgops.host.identity import as_user


def ran(backed: Backed, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """A job as the server's user: its exit code, and the lines that it has logged."""
    log = Path(backed.layout.keeping, "agent.log")
    seen = len(log.read_text().splitlines()) if log.exists() else 0
    command = ["--instance", "main", "--prefix", str(backed.host.prefix), *words]

    def run() -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            return cli.main(command)

    code = as_user(backed.user, run, 600)
    lines = log.read_text().splitlines()[seen:]
    return code, [json.loads(line.partition(" ")[2]) for line in lines]


def test_a_job_tells_what_it_is_about_to_do_and_what_it_did(make: Callable[..., Host]) -> None:
    backed = Backed.of(make(), retention={"full_days": 0, "minimum_full": 1})
    path = Path(backed.layout.agent_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(backed.configuration().text())
    own(path.parent, backed.server)
    code, (begins, done) = ran(backed, "backup", "--type", "full")
    assert code == 0
    assert (begins["begins"], begins["kind"], begins["wal_waiting"]) == (True, "full", 0)
    assert begins["expected_bytes"] > 10_000_000
    assert (done["ok"], done["expired"], done["name"]) == (True, [], backed.listing.backups[0].name)
    code, (_begins, again) = ran(backed, "backup")
    assert (code, again["expired"]) == (0, [done["name"]])
    code, (verified,) = ran(backed, "verify")
    assert (code, verified["verified"]) == (0, 1)
    code, (expired,) = ran(backed, "expire", "--dry-run")
    assert (code, expired["removed"]) == (0, [])
    code, (refused,) = ran(backed, "backup", "--type", "logical")
    assert (code, refused["code"]) == (1, "invalid_input")


def test_the_job_dumps_what_is_due(make: Callable[..., Host]) -> None:
    backed = Backed.of(make(), dumps={"databases": ["postgres"]})
    backed.configure()
    own(Path(backed.layout.agent_file).parent, backed.server)
    code, (begins, done) = ran(backed, "dump")
    assert (code, begins["database"], begins["begins"]) == (0, "postgres", True)
    assert ([one["database"] for one in done["dumped"]], done["expired"]) == (["postgres"], [])
    code, (again,) = ran(backed, "dump")
    assert (code, again["dumped"], again["fresh"]) == (0, [], ["postgres"])
    code, (_begins, other) = ran(backed, "dump", "--database", "template1")
    assert (code, [one["database"] for one in other["dumped"]]) == (0, ["template1"])
    code, (verified,) = ran(backed, "verify")
    assert (code, verified["dumps_verified"]) == (0, 2)
    code, (expired,) = ran(backed, "expire", "--dry-run")
    assert (code, expired["dumps_removed"], len(expired["dumps_retained"])) == (0, [], 2)
    code, (missing,) = ran(backed, "dump", "--database", "nowhere")
    assert (code, missing["errors"]) == (1, ["There is no database nowhere to be dumped."])


def test_dumps_are_verified_without_programs(make: Callable[..., Host], root: Path) -> None:
    backed = Backed.of(make(), dumps={"databases": ["postgres"]})
    assert backed.dump()["errors"] == []
    backed.configure(bin_directory=str(root))
    own(Path(backed.layout.agent_file).parent, backed.server)
    code, (done,) = ran(backed, "verify")
    assert (code, done["dumps_verified"], done["errors"]) == (0, 1, [])
