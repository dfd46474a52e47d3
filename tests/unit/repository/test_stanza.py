# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration of pgBackRest, and its stanzas as data."""

from __future__ import annotations

import configparser
import shlex
from typing import Any

import pytest

from pgops.errors import HostFailed, InvalidInput
from pgops.repository import pgbackrest, stanza
from pgops.repository.deploy import ours
from pgops.repository.pgbackrest import Declared
from pgops.repository.stanza import Stanza


def declared(**more: Any) -> Declared:
    usual: dict[str, Any] = {
        "name": "orders",
        "program": "/usr/bin/pgbackrest",
        "configuration": "/etc/pgops/15-main/pgbackrest.conf",
        "state": "/var/lib/pgops/15-main/keeping/pgbackrest",
        "data": "/var/lib/postgresql/15/main",
        "socket": "/run/postgresql",
        "port": 5432,
        "superuser": "postgres",
        "path": "/backup/orders/pgbackrest",
        "options": {},
        "secrets": {},
    }
    return Declared(**{**usual, **more})


def read(one: Declared) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read_string(one.text())
    return found


def test_pgbackrest_deletes_nothing_by_itself() -> None:
    found = read(declared(compression="zstd"))["global"]
    assert (found["repo1-retention-full"], found["expire-auto"], found["compress-type"]) == ("9999999", "n", "zst")


def test_options_and_secrets_are_written_and_no_secret_is_shown() -> None:
    one = declared(options={"repo1-type": "s3"}, secrets={"repo1-s3-key-secret": "a=%b#c"})
    assert read(one)["global"]["repo1-s3-key-secret"] == "a=%b#c"
    assert read(one)["orders"]["pg1-path"] == "/var/lib/postgresql/15/main"
    assert "a=%b" not in repr(one)
    assert one.entry("postgres").secret


@pytest.mark.parametrize(
    ("given", "secrets", "why"),
    [
        ({"repo1-cipher-pass": "horse"}, {}, "is a secret"),
        ({}, {"repo1-type": "s3"}, "cannot be set in pgops_pgbackrest_secrets"),
        ({"repo1-retention-full": 1}, {}, "cannot be set"),
        ({"archive-push-queue-max": "1GB"}, {}, "cannot be set"),
        ({"repo2-path": "/else"}, {}, "cannot be set"),
        ({"repo1-host": "elsewhere"}, {}, "cannot be set"),
        ({"cmd": "/tmp/own"}, {}, "cannot be set"),
        ({"pg1-path": "/other"}, {}, "cannot be set"),
        ({"repo1-type": "ftp"}, {}, "repo1-type is ftp"),
        ({"repo1-path": "relative"}, {}, "repo1-path is relative"),
        ({"repo1-path": "/a\n[global]"}, {}, "control characters"),
        ({"repo1-cipher-type": "aes-256-cbc"}, {}, "belong together"),
        ({}, {"repo1-cipher-pass": "horse"}, "belong together"),
        ({"process-max": ""}, {}, "has no value"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], secrets: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        pgbackrest.read_options(given, secrets)
    assert "horse" not in str(caught.value)


def test_options_are_written_as_pgbackrest_reads_them() -> None:
    found = pgbackrest.read_options({"repo1-bundle": True, "repo1-storage-verify-tls": False, "process-max": 4}, {})
    assert found == {"repo1-bundle": "y", "repo1-storage-verify-tls": "n", "process-max": "4"}


def test_commands_survive_the_shell_and_the_servers_per_cent_signs() -> None:
    one = declared(configuration="/etc/100% o'dd/pgbackrest.conf")
    words = shlex.split(one.pushing.replace("%%", "%").partition(" || ")[0])
    assert words[1:] == ["--config=/etc/100% o'dd/pgbackrest.conf", "--stanza=orders", "archive-push", "%p"]
    assert "100%% o" in one.pushing


def test_both_engines_commands_are_ours_and_no_others() -> None:
    configuration, program = "/etc/pgops/15-main/pgbackrest.conf", "/usr/local/lib/pgops/archiver"
    assert ours(declared().pushing, program, configuration)
    assert ours(declared().stanza("1-15").fetching("fetch"), program, configuration)
    assert ours(f"{program} push /backup/orders 1-15 none %p", program, configuration)
    assert ours(declared(configuration="/etc/pgops/16-main/pgbackrest.conf").pushing, program, configuration)
    assert not ours(declared(configuration="/etc/own/16-main/pgbackrest.conf").pushing, program, configuration)
    assert not ours("pgbackrest --stanza=orders archive-push %p", program, configuration)


@pytest.mark.parametrize(
    ("status", "standby", "expected"), [(0, False, 0), (1, False, 7), (1, True, 7), (55, True, 7), (55, False, 126)]
)
def test_what_cannot_be_fetched_ends_a_recovery_but_no_standby(
    tmp_path: Any, status: int, standby: bool, expected: int
) -> None:
    import subprocess

    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexit {status}\n")
    program.chmod(0o755)
    if standby:
        (tmp_path / "standby.signal").touch()
    command = Stanza("orders", "/none", "1-15", str(program)).fetching("sh -c 'exit 7'")
    done = subprocess.run(["sh", "-c", command.replace("%f", "x").replace("%p", "y")], cwd=tmp_path, check=False)
    assert done.returncode == expected


def test_a_stanza_is_known_by_its_file_alone(tmp_path: Any) -> None:
    assert stanza.of(str(tmp_path), "1-15") is None
    (tmp_path / "1-15").mkdir()
    note = tmp_path / "1-15" / stanza.NAME
    note.write_bytes(stanza.document("orders", "/etc/c.conf", "/usr/bin/pgbackrest"))
    found = stanza.of(str(tmp_path), "1-15")
    assert found is not None
    assert (found.name, found.configuration, found.generation) == ("orders", "/etc/c.conf", "1-15")
    note.write_text("{}")
    with pytest.raises(HostFailed, match="damaged"):
        stanza.of(str(tmp_path), "1-15")


def test_the_configuration_has_to_be_readable() -> None:
    with pytest.raises(HostFailed, match="cannot be read"):
        Stanza("orders", "/does/not/exist.conf", "1-15").told()
