# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The commands of the runbook, as it has them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import artifact
import pytest
from backing import STATE, Bank, own
from restoring import Restorer, pgops

from pgops.agent import runner

TEXT = (artifact.ROOT / "docs" / "recovery.md").read_text()
LONGEST = 5
"""Commands to a running server."""


def commands(heading: str) -> list[list[str]]:
    """The words of each command below a heading, in its first block."""
    part = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [shlex.split(line) for line in part.split("```")[1].strip().splitlines()]


HEADINGS = ("The data is wrong, and the server still runs", "The server itself has to go back", "The host is lost")


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_commands_lead_to_a_running_server(bank: Bank, restorer: Restorer, heading: str) -> None:
    bank.work()
    bank.backup()
    moment = bank.work()
    bank.archive()
    last = bank.work()
    bank.archive()
    directory = restorer.directory()
    places = {
        "/srv/restored": str(directory),
        "/var/lib/postgresql/17/main": str(bank.server.data_dir),
        "/backup/orders": str(bank.host.repository),
        "2026-11-29 15:29:00+01:00": moment.time.isoformat(),
    }
    steps = commands(heading)
    assert 1 < len(steps) <= LONGEST
    for program, *words in steps:
        given = [places.get(word, word) for word in words]
        if program == "install":
            directory.mkdir(0o700)
            own(directory, bank.server)
        elif program == "systemctl":
            getattr(bank.server, given[0])()
        elif program == "pgops":
            assert given.pop(0) == "restore"
            code, said = pgops(restorer, *given)
            assert code == runner.DONE, said
            assert ("Nothing was changed." in said) == ("--plan" in given)
        else:
            assert (program, *given[:3]) == ("sudo", "-u", "postgres", "psql")
            del given[:3]
            query = ["-X", "-A", "-t", "-U", bank.server.superuser, "-c", STATE]
            assert bank.server.run(bank.server.client("psql"), *given, *query).strip() in (moment.state, last.state)
    if "systemctl" in [step[0] for step in steps]:
        assert bank.server.value(STATE) == moment.state


def test_every_option_of_the_runbook_is_one() -> None:
    from pgops.capabilities import COMMANDS

    lines = re.findall(r"pgops (restore[a-z-]*)([^\n]*)", TEXT)
    assert {name for name, _words in lines} == {name for name in COMMANDS if name.startswith("restore")}
    for name, words in lines:
        assert {*re.findall(r"--[a-z-]+", words)} <= {flag.name for flag in COMMANDS[name].flags}
    known = {flag.name for command in COMMANDS.values() for flag in command.flags}
    assert {*re.findall(r"`(--[a-z-]+)", TEXT)} <= known
    assert Path(artifact.ROOT / "docs" / "archiving.md").exists()
