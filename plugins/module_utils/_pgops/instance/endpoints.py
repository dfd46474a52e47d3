# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the jobs of an instance log in: to its server, and to the cluster's other nodes. Pure,
except for which socket exists, and who runs this."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from ..server import pins
from ..server.names import BACKUP, EXPLAINER
from ..server.target import Target
from .configuration import Configuration, Peer

UNREACHABLE = 5
"""Seconds after which a node that does not answer is given up."""


def agent(configuration: Configuration, job: str) -> Target:
    """The instance as the agent's role, in the ops database, which a standby has as well: by its socket, or of a
    remote instance over the network. ``job`` is what the server's views and log show."""
    remote: dict[str, Any] = {}
    if configuration.host:
        remote = {"passfile": configuration.passfile, **encryption(configuration)}
    return Target(
        host=configuration.host or configuration.socket_directory,
        port=str(configuration.port),
        user=configuration.role,
        database=configuration.database,
        application_name=f"pgops {job}",
        lock_timeout=0.1,
        **remote,
    )


def superuser(configuration: Configuration, job: str) -> Target:
    """The local server as its superuser, in the ops database."""
    return Target(
        host=configuration.socket_directory,
        port=str(configuration.port),
        user=configuration.superuser,
        database=configuration.database,
        application_name=f"pgops {job}",
    )


def administrator(configuration: Configuration) -> Target:
    """The local server as its superuser, in the database that every server has: there may be no ops database yet."""
    return Target(
        host=configuration.socket_directory,
        port=str(configuration.port),
        user=configuration.superuser,
        application_name="pgops deploy",
    )


def reader(configuration: Configuration, job: str) -> Target:
    """The local server as its superuser, who becomes a role that reads all data and writes none."""
    return replace(superuser(configuration, job), role="pg_read_all_data", lock_timeout=0.1)


def planner(configuration: Configuration, database: str, seconds: float) -> Target:
    """The local server as the role that plans statements, in one of its databases; a plan may take so long."""
    return Target(
        host=configuration.socket_directory,
        port=str(configuration.port),
        user=EXPLAINER,
        database=database,
        application_name="pgops explain",
        connect_timeout=UNREACHABLE,
        statement_timeout=seconds,
        lock_timeout=0.1,
        as_users=True,
    )


def backup(configuration: Configuration) -> dict[str, str]:
    """How pg_basebackup logs in to the local server, as parameters of libpq by their names: for replication, as the
    role that backs it up."""
    return {
        "host": os.path.dirname(administrator(configuration).socket_path),
        "port": str(configuration.port),
        "user": BACKUP,
        "dbname": "replication",
        "application_name": "pgops backup",
        # A session for replication has no defaults of roles and databases, but those of the server.
        "options": pins.spelled({"idle_session_timeout": "0", "statement_timeout": "0"}),
    }


def backed_up(configuration: Configuration) -> Target:
    """The local server as its superuser, for what a backup has to know of it: it need not have an ops database."""
    return replace(administrator(configuration), application_name="pgops backup", statement_timeout=600.0)


def primary(configuration: Configuration, passfile: str, job: str) -> Target:
    """Whichever of the cluster's other nodes takes writes now."""
    return Target(
        host=",".join(peer.host for peer in configuration.peers),
        port=",".join(str(peer.port) for peer in configuration.peers),
        user=configuration.role,
        database=configuration.database,
        passfile=passfile,
        **encryption(configuration),
        target_session_attrs="read-write",
        application_name=f"pgops {job}",
        connect_timeout=UNREACHABLE,
    )


def node(configuration: Configuration, passfile: str, peer: Peer, job: str) -> Target:
    """One of the cluster's other nodes, whatever it is now."""
    return replace(
        primary(configuration, passfile, job), host=peer.host, port=str(peer.port), target_session_attrs="any"
    )


def encryption(configuration: Configuration) -> dict[str, Any]:
    """How connections over the network are protected, as arguments of Target.

    Channel binding proves the password to both sides over TLS, so that a server with a self-signed certificate cannot
    be impersonated. Where a CA is given, its signature decides as well.
    """
    plain = configuration.ssl_mode == "disable"
    return {
        "sslmode": configuration.ssl_mode,
        "sslrootcert": configuration.ca_cert,
        "channel_binding": "disable" if plain else "require",
    }
