# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""As whom jobs log in, and how a connection that leaves the host is protected."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgops.instance import endpoints
from pgops.instance.configuration import Configuration, Peer
from pgops.server.target import Target

HERE = Configuration(
    *("main", "shop", "db1/main"),
    port=5433,
    socket_directory="/run/postgresql",
    database="ops",
    superuser="postgres",
    peers=(Peer("db2"), Peer("10.0.0.3", 5434)),
)
REMOTE = replace(
    HERE, host="db9.example", passfile="/etc/pgops/main/pgpass", ssl_mode="verify-full", ca_cert="/ca.pem"
)


def local() -> list[Target]:
    """The ways in that do not leave the host."""
    return [
        endpoints.agent(HERE, "collect"),
        endpoints.superuser(HERE, "catalogue"),
        endpoints.administrator(HERE),
        endpoints.reader(HERE, "inspect"),
        endpoints.planner(HERE, "shop", 3.0),
    ]


def test_jobs_log_in_over_the_socket_and_need_no_password() -> None:
    assert {(one.host, one.port, one.local) for one in local()} == {("/run/postgresql", "5433", True)}
    assert {(one.password, one.passfile) for one in local()} == {(None, "")}


def test_each_job_has_no_more_rights_than_it_needs() -> None:
    assert [(one.user, one.role, one.database) for one in local()] == [
        ("pgops", "", "ops"),
        ("postgres", "", "ops"),
        ("postgres", "", "postgres"),  # there may be no ops database yet
        ("postgres", "pg_read_all_data", "ops"),
        ("pgops_explain", "", "shop"),
    ]


def test_a_server_is_copied_as_a_role_of_its_own_over_its_socket() -> None:
    assert endpoints.backup(HERE) == {
        "host": "/run/postgresql",
        "port": "5433",
        "user": "pgops_backup",
        "dbname": "replication",
        "application_name": "pgops backup",
        "options": "-c idle_session_timeout=0 -c statement_timeout=0",
    }


def test_the_servers_views_and_log_show_which_job_it_is() -> None:
    assert [one.application_name for one in local()] == [
        *("pgops collect", "pgops catalogue", "pgops deploy", "pgops inspect", "pgops explain")
    ]
    assert endpoints.primary(HERE, "/pgpass", "export").application_name == "pgops export"


def test_who_only_looks_does_not_wait_for_locks() -> None:
    collect, _catalogue, _deploy, inspect, explain = local()
    assert {one.lock_timeout for one in (collect, inspect, explain)} == {0.1}
    assert (explain.statement_timeout, explain.connect_timeout) == (3.0, endpoints.UNREACHABLE)


def test_a_remote_instance_is_reached_by_password_and_tls() -> None:
    assert endpoints.agent(REMOTE, "collect") == Target(
        host="db9.example",
        port="5433",
        user="pgops",
        database="ops",
        passfile="/etc/pgops/main/pgpass",
        sslmode="verify-full",
        sslrootcert="/ca.pem",
        channel_binding="require",
        application_name="pgops collect",
        lock_timeout=0.1,
    )


def test_the_primary_is_whichever_of_the_other_nodes_takes_writes() -> None:
    assert endpoints.primary(HERE, "/pgpass", "collect") == Target(
        host="db2,10.0.0.3",
        port="5432,5434",
        user="pgops",
        database="ops",
        passfile="/pgpass",
        sslmode="require",
        channel_binding="require",
        target_session_attrs="read-write",
        application_name="pgops collect",
        connect_timeout=endpoints.UNREACHABLE,
    )


@pytest.mark.parametrize(
    ("mode", "binding"), [("disable", "disable"), ("require", "require"), ("verify-ca", "require")]
)
def test_a_server_has_to_know_the_password_unless_there_is_no_tls(mode: str, binding: str) -> None:
    for found in (replace(HERE, ssl_mode=mode), replace(REMOTE, ssl_mode=mode)):
        assert endpoints.encryption(found)["channel_binding"] == binding
        assert endpoints.encryption(found)["sslmode"] == mode
