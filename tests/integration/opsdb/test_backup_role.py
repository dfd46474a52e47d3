# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role that copies a server comes and goes with the option, and nobody but the server's user logs in as it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deploying import configured, deploy, withdraw
from psycopg.conninfo import make_conninfo
from servers import Server

from pgops.errors import Conflict, InvalidInput
from pgops.instance import endpoints

ROLE = "SELECT ARRAY[rolcanlogin, rolreplication, rolsuper] FROM pg_roles WHERE rolname = 'pgops_backup'"
ADMITTED = (
    "SELECT array_agg(database[1] || ' ' || type) FROM pg_hba_file_rules WHERE 'pgops_backup' = ANY (user_name)"
)
MAY_WRITE = "SELECT has_function_privilege('pgops_owner', 'pg_create_restore_point(text)', 'EXECUTE')"


@pytest.fixture(name="clean")
def _clean(server: Server) -> Iterator[Server]:
    withdraw(server)
    yield server
    if server.value(ROLE) is not None:
        server.value("DROP OWNED BY pgops_backup")
    withdraw(server)


def changes(server: Server, **params: Any) -> list[str]:
    """What a run says that it changes, as check mode has predicted, and after which there is nothing to change."""
    predicted = deploy(server, check=True, **params)
    done = deploy(server, **params)
    assert predicted == done
    assert deploy(server, **params)["changes"] == []
    return [one.split(" in ")[0] for one in done["changes"]]


@pytest.mark.every_major
def test_the_role_comes_and_goes_with_the_option(clean: Server) -> None:
    deploy(clean)
    assert (clean.value(ROLE), clean.value(ADMITTED), clean.value(MAY_WRITE, "pgops")) == (None, None, False)
    assert changes(clean, backup=True) == [
        "create role pgops_backup",
        "update setting backup",
        "create right of role pgops_owner to write restore points",
        "update block",
        "update block",
    ]
    assert clean.value(ROLE) == [True, True, False]
    assert (clean.value(ADMITTED), clean.value(MAY_WRITE, "pgops")) == (["replication local"], True)
    assert changes(clean) == [
        "remove role pgops_backup",
        "update setting backup",
        "remove right of role pgops_owner to write restore points",
        "update block",
        "update block",
    ]
    assert (clean.value(ROLE), clean.value(ADMITTED), clean.value(MAY_WRITE, "pgops")) == (None, None, False)


@pytest.mark.every_major
def test_a_first_run_has_all_of_it_at_once(clean: Server) -> None:
    assert "create right of role pgops_owner to write restore points" in changes(clean, backup=True)
    assert clean.value(MAY_WRITE, "pgops") is True
    assert "remove role pgops_backup" in deploy(clean, state="absent")["changes"]
    assert (clean.value(ROLE), clean.value(ADMITTED)) == (None, None)


@pytest.mark.every_major
def test_the_servers_user_copies_it_and_nobody_else(clean: Server, tmp_path: Path) -> None:
    deploy(clean, backup=True)
    at = endpoints.backup(configured(clean, tmp_path)[0])
    copy = clean.directory / "copied"
    clean.run(clean.client("pg_basebackup"), "-d", make_conninfo("", **at), "-D", copy, "-X", "none", "-c", "fast")
    assert (copy / "backup_label").exists()
    if os.geteuid() == 0:
        with pytest.raises(psycopg.OperationalError, match="eer authentication failed"):
            psycopg.connect(make_conninfo("", **at, replication="true"))


def test_what_somebody_gave_the_role_is_taken_back(clean: Server) -> None:
    deploy(clean, backup=True)
    clean.psql("ALTER ROLE pgops_backup CREATEDB NOREPLICATION; GRANT pg_write_all_data TO pgops_backup")
    assert changes(clean, backup=True) == ["update role pgops_backup"]
    assert clean.value(ROLE) == [True, True, False]
    assert clean.value("SELECT pg_has_role('pgops_backup', 'pg_write_all_data', 'MEMBER')") is False


def test_a_role_that_holds_rights_stays_without_powers(clean: Server) -> None:
    deploy(clean, backup=True)
    clean.psql("CREATE TABLE held (a integer); GRANT SELECT ON held TO pgops_backup")
    (warning,) = deploy(clean)["warnings"]
    assert "Role pgops_backup is no longer used, but stays without login" in warning
    assert clean.value(ROLE) == [False, False, False]
    clean.psql("DROP TABLE held")
    assert changes(clean) == ["remove role pgops_backup"]


@pytest.mark.parametrize("role", ["pgops_backup", "pgops_operator"])
def test_a_role_of_somebody_else_is_not_adopted(clean: Server, role: str) -> None:
    clean.value(f"CREATE ROLE {role}")
    with pytest.raises(Conflict, match=f"A role {role} exists of which nothing shows that"):
        deploy(clean, backup=True)


def test_who_could_act_as_the_role_stops_the_run(clean: Server) -> None:
    deploy(clean, backup=True)
    clean.psql("CREATE ROLE mallory LOGIN; GRANT pgops_backup TO mallory")
    try:
        with pytest.raises(Conflict, match="mallory is a member of pgops_backup"):
            deploy(clean, backup=True)
        clean.psql("REVOKE pgops_backup FROM mallory; GRANT pgops_operator TO mallory")
        assert not deploy(clean, backup=True)["changed"]
        clean.psql("GRANT pgops_operator TO mallory WITH ADMIN OPTION")
        with pytest.raises(Conflict, match="mallory is a member of pgops_operator with ADMIN OPTION"):
            deploy(clean, backup=True)
    finally:
        clean.psql("DROP ROLE mallory")


def test_remote_instances_are_not_backed_up(clean: Server) -> None:
    with pytest.raises(InvalidInput, match="Remote instances are not backed up"):
        deploy(clean, backup=True, remote=True)
