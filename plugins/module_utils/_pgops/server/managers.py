# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Other managers of a server (Patroni, managed services), whose settings must not be changed behind their back."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ..errors import HostFailed, Managed, Unsupported
from ..host.files import contents
from ..host.identity import as_user
from . import postmaster
from .session import Session

PATRONI = "Patroni"
REPMGR = "repmgr"
PG_AUTO_FAILOVER = "pg_auto_failover"
SERVICES = {
    "Amazon RDS": "its DB parameter group",
    "Google Cloud SQL": "its database flags",
    "Azure Database": "its server parameters",
}
"""Managed services, and where each one's settings are set."""

LARGEST_OPTIONS = 1024 * 1024
"""Bytes of the file in which the server writes down how it was started."""

PLAIN = re.compile(r"[1-9][0-9]*[a-zA-Z]*|(?!null\Z)[a-z_]{2,}")

# Only what only a superuser can create counts: any user can choose the name of a session, a database or a role, and a
# role's name may come from a dump of a server that was managed.
#
# The function below pg_stat_activity: the view's joins would cost more than all the rest. It shows the name and role
# of every session to everybody. Those of Patroni are "Patroni heartbeat" and "Patroni restapi", before 4 "Patroni".
#
# Role 10 is the one that initdb created: the service itself, whatever roles its customers have or brought along.
# repmgr and the monitor of pg_auto_failover keep their extensions in databases of their own, not in this one.
READ = """
SELECT
    EXISTS (
        SELECT FROM pg_stat_get_activity(NULL) AS a
        WHERE a.application_name LIKE 'Patroni%'
            AND EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = a.usesysid AND r.rolsuper)
    ) AS patroni,
    EXISTS (SELECT FROM pg_extension WHERE extname = 'repmgr')
    OR EXISTS (
        SELECT FROM pg_database AS d
        INNER JOIN pg_roles AS r ON d.datdba = r.oid
        WHERE d.datname = 'repmgr' AND (r.rolsuper OR r.rolreplication)
    )
    OR seen.libraries ~ '(^|[^a-z_])repmgr([^a-z_]|$)' AS repmgr,
    EXISTS (SELECT FROM pg_extension WHERE extname = 'pgautofailover')
    OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'pgautofailover_replicator' AND rolreplication)
    OR seen.libraries ~ '(^|[^a-z_])pgautofailover([^a-z_]|$)' AS pg_auto_failover,
    CASE pg_get_userbyid(10)
        WHEN 'rdsadmin' THEN 'Amazon RDS'
        WHEN 'cloudsqladmin' THEN 'Google Cloud SQL'
        WHEN 'azuresu' THEN 'Azure Database'
        WHEN 'azure_superuser' THEN 'Azure Database'
    END AS service
FROM (
    SELECT
        CASE WHEN may.see THEN current_setting('shared_preload_libraries') END AS libraries
    FROM (SELECT pg_has_role('pg_read_all_settings', 'USAGE') AS see) AS may
) AS seen
"""


def manager(session: Session) -> str:
    """The manager of the server: Patroni, repmgr, pg_auto_failover, a managed service, or none ('')."""
    return recognised(session.rows(READ)[0], session)


def recognised(row: Mapping[str, Any], session: Session) -> str:
    """The same from a row of READ; the data directory is read if the server is local."""
    if row["patroni"] or started_by_patroni(session):
        return PATRONI
    if row["repmgr"]:
        return REPMGR
    return PG_AUTO_FAILOVER if row["pg_auto_failover"] else row["service"] or ""


def started_by_patroni(session: Session) -> bool:
    """Whether Patroni started the server, also while Patroni itself is down; False where its files are not seen.

    Its copy of the cluster's configuration is not enough: a copy of the data directory has it too, wherever it is
    restored. PostgreSQL writes down how it was started, and Patroni names the cluster on the command line (Patroni,
    postgresql/config.py, CMDLINE_OPTIONS).
    """
    if not session.target.local:
        return False
    try:
        server = postmaster.of(session)
        return bool(as_user(server.owner, lambda: _named_by_patroni(server.data_directory)))
    except (HostFailed, Unsupported, OSError):
        return False


def _named_by_patroni(data_directory: str) -> bool:
    if not os.path.exists(os.path.join(data_directory, "patroni.dynamic.json")):
        return False
    return b'"--cluster_name=' in contents(os.path.join(data_directory, "postmaster.opts"), LARGEST_OPTIONS)


def refuse_settings(owner: str, settings: Mapping[str, str | None]) -> None:
    """Stop if the manager ``owner``, as recognised, controls the server's settings; None takes a setting away.

    Raises Managed, with what to do instead.
    """
    if not settings:
        return
    names = ", ".join(sorted(settings))
    if owner == PATRONI:
        words = [word for name, value in sorted(settings.items()) for word in ("--pg", f"{name}={_in_yaml(value)}")]
        raise Managed(
            f"Patroni manages this server's settings; {names} cannot be set outside of it.",
            f"Set it for the whole cluster: {shlex.join(['patronictl', 'edit-config', *words])}",
        )
    if owner in SERVICES:
        raise Managed(
            f"{owner} manages this server's settings; {names} cannot be set by SQL.",
            f"Set it in {SERVICES[owner]}.",
        )


def _in_yaml(value: str | None) -> str:
    # patronictl reads YAML, where 010 is 8, 1:00 is 60, and spaces at the ends are lost; null removes a key.
    return value if value and PLAIN.fullmatch(value) else json.dumps(value)


def refuse_ops_database(owner: str) -> None:
    """Stop if the manager ``owner``, as recognised, provides no superuser.

    Raises Managed.
    """
    if owner in SERVICES:
        raise Managed(
            f"{owner} has no superuser, so the ops database cannot be created in this way.",
            "Declare it as a remote instance (docs/remote.md), or remove it from the inventory. pg_ops_facts works "
            "on it.",
        )
