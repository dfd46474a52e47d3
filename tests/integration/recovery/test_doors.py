# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module, and the command for people."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from backing import STATE, Bank, own
from restoring import Restorer, pgops

from pgops import cli
from pgops.agent import runner
from pgops.errors import InvalidInput
from pgops.recovery import deploy


@pytest.fixture(name="bank")
def _with_backup(bank: Bank) -> Bank:
    bank.work()
    bank.backup()
    bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    return bank


def test_what_check_mode_predicts_is_done(bank: Bank, restorer: Restorer) -> None:
    moment = bank.moments[3]
    asked = restorer.arguments(restorer.directory(), time=moment.time.isoformat())
    predicted = deploy.converge(asked, True)
    assert not Path(asked["directory"]).exists()
    done = deploy.converge(asked, False)
    assert done["prediction"] == predicted["prediction"]
    assert done["changes"] == [f"restore data directory {asked['directory']}"]
    assert (predicted["reached"], done["reached"]["timeline"]) == (None, 2)
    assert restorer.state(done) == moment.state
    with pytest.raises(InvalidInput, match="Exactly one target"):
        deploy.converge(restorer.arguments(restorer.directory()), True)


def test_in_place_the_server_is_started_again(bank: Bank, restorer: Restorer) -> None:
    moment = bank.moments[3]
    bank.server.stop()
    asked = restorer.arguments(bank.server.data_dir, in_place=True, lsn=moment.lsn, inclusive=False)
    predicted = deploy.converge(asked, True)
    done = deploy.converge(asked, False)
    assert done["prediction"] == predicted["prediction"]
    assert done["prediction"][0]["before"] == {"system_identifier": bank.generation.partition("-")[0]}
    assert done["started"]
    assert bank.server.value(STATE) == moment.state
    assert bank.server.value("SELECT NOT pg_is_in_recovery()")


def test_people_restore_without_anything_but_the_repository(bank: Bank, restorer: Restorer) -> None:
    moment = bank.moments[3]
    directory = restorer.directory()
    words = ("--time", moment.time.isoformat(), "--to", str(directory))
    code, said = pgops(restorer, *words, "--plan")
    assert code == runner.DONE, said
    assert f"Backup:       {bank.taken[0][0]}" in said
    assert said.endswith("Nothing was changed.\n")
    assert not directory.exists()
    code, said = pgops(restorer, *words)
    assert code == runner.DONE, said
    assert f"The server runs: psql -h {directory} -p 5432 postgres" in said
    assert restorer.state({"directory": str(directory), "port": 5432}) == moment.state
    code, said = pgops(restorer, *words)
    assert (code, "is not empty" in said or "A server runs in" in said) == (runner.FAILED, True)


def test_a_terminal_does_not_obey_names_and_paths(bank: Bank, restorer: Restorer, root: Path) -> None:
    evil = "\x1b]0;owned\x07\u202e"
    bank.point(evil)
    bank.archive()
    code, said = pgops(restorer, "--name", "]0;owned", "--to", str(restorer.directory()))
    assert (code, "'\\x1b]0;owned\\x07\\u202e'" in said) == (runner.FAILED, True)
    directory = root / evil
    directory.mkdir()
    own(directory, bank.server)
    code, said = pgops(restorer, "--immediate", "--to", str(directory), "--plan")
    assert (code, "\\x1b]0;owned\\x07\\u202e" in said) == (runner.DONE, True)
    assert not set(evil) & set(said) - set("]0;owned")


def test_programs_read_the_same_as_a_document(bank: Bank, restorer: Restorer) -> None:
    code, said = pgops(restorer, "--latest", "--to", str(restorer.directory()), "--plan", "--json")
    assert (code, json.loads(said)["backup"]["name"]) == (runner.DONE, bank.taken[0][0])
    code, said = pgops(restorer, "--name", "never", "--to", str(restorer.directory()), "--json")
    document = json.loads(said.splitlines()[-1])
    assert (code, document["code"], document["ok"]) == (runner.FAILED, "invalid_input", False)


@pytest.mark.parametrize(
    "words",
    [
        ("--latest",),
        ("--latest", "--to", "/a", "--in-place", "/b"),
        ("--to", "/a"),
        ("--latest", "--immediate", "--to", "/a"),
        ("--latest", "--to", "/a", "--end", "paused"),
        ("--latest", "--to", "/a", "--tablespace", "fast=/b"),
        ("--latest", "--to", "/a", "--port", "many"),
        ("--time", "2026-11-29 15:30", "--to", "/a"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told(words: tuple[str, ...], tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["restore", "--repository", str(tmp_path), *words]) == runner.USAGE
    error = capsys.readouterr().err
    assert error.startswith("pgops restore: ")
    assert len(error.splitlines()) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_becomes_the_servers_user(bank: Bank, restorer: Restorer) -> None:
    directory = restorer.directory()
    place = ("--repository", str(bank.host.repository), "--bin-directory", str(bank.server.client_dir))
    words = ["restore", *place, "--server-bin-directory", str(bank.server.bin_dir), "--immediate", "--to"]

    def restored(directory: Path, *more: str) -> int | None:
        forked = multiprocessing.get_context("fork")
        child = forked.Process(target=lambda: sys.exit(cli.main([*words, str(directory), *more])))
        child.start()
        child.join()
        return child.exitcode

    assert restored(directory) == runner.DONE
    assert (directory.stat().st_uid, (directory / "PG_VERSION").stat().st_uid) == (restorer.owner, restorer.owner)
    # A repository of root's is nobody's, unless somebody is named.
    os.chown(bank.host.repository, 0, -1)
    bank.host.repository.chmod(0o755)
    try:
        assert restored(restorer.directory()) == runner.FAILED
        named = restorer.directory()
        assert restored(named, "--owner", bank.server.os_user) == runner.DONE
        assert (named / "PG_VERSION").stat().st_uid == restorer.owner
        for wrong in ("root", "nobody-of-this-name"):
            assert restored(restorer.directory(), "--owner", wrong) == runner.FAILED
    finally:
        os.chown(bank.host.repository, restorer.owner, -1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_becomes_nobody_whom_the_servers_user_can_name(
    bank: Bank, restorer: Restorer, tmp_path: Path, capsys: Any
) -> None:
    """A link in place of the generation, or of the repository, to what is another user's."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1, 1)
    link = bank.host.base / "link"
    link.symlink_to(theirs)
    words = ["restore", "--repository", str(link), "--generation", "1-18", "--immediate"]
    assert cli.main([*words, "--to", str(restorer.directory())]) == runner.FAILED
    assert "links are not followed" in capsys.readouterr().err
