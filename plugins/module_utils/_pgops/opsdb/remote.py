# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An instance on a host without an agent: reached over the network, and if need be without a superuser."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import InvalidInput, LoginRefused, PermissionMissing
from ..server import managers, ownership
from ..server.names import AGENT, OWNER
from ..server.session import Session, connect
from ..server.target import Target

LEFT_OUT = "remote instance: access rules, server settings, archiving, disks and the job inspect are not available"
WITHOUT_SUPERUSER = (
    "; without a superuser also lc_messages of the agent's role, and before PostgreSQL 15 the rights on the schema "
    "public"
)

RIGHTS = """
SELECT quote_ident(current_user) AS name, r.rolcreaterole AS createrole, r.rolcreatedb AS createdb,
       pg_has_role('pg_monitor', 'MEMBER WITH ADMIN OPTION') AS gives_monitor
FROM pg_roles AS r WHERE r.rolname = current_user
"""


def left_out(session: Session) -> str:
    """What is skipped for a remote instance."""
    return LEFT_OUT + ("" if session.superuser else WITHOUT_SUPERUSER)


def agent_password(password: str | None, check_mode: bool) -> str:
    """The agent's password; in check mode a random one if none was generated yet.

    Raises InvalidInput.
    """
    if password is None and not check_mode:
        raise InvalidInput(
            "The agent has no password for this remote instance.", "Run pg_ops_agent first, or set password."
        )
    return password or secrets.token_urlsafe(32)


def agent_at(target: Target, password: str | None) -> Target:
    """How the agent logs in to the server of an administrator's session."""
    binding = "disable" if target.sslmode == "disable" else "require"
    return replace(target, user=AGENT, password=password, channel_binding=binding)


def refused(session: Session, name: str, password: str) -> LoginRefused | None:
    """Why the agent cannot log in to a database as it will: with the password, bound to TLS unless that was
    declined; None if it can.

    Raises Unreachable.
    """
    try:
        connect(replace(agent_at(session.target, password), database=name)).close()
    except LoginRefused as error:
        return error
    return None


def password_works(session: Session, found: Mapping[str, Any], name: str, password: str | None) -> bool | None:
    """Whether the password is the agent's, by logging in to a database: only a superuser may read the verifier that
    the server stores.

    None if there is no need to know.
    """
    if password is None or session.superuser or AGENT not in found:
        return None
    error = refused(session, name, password)
    # If the server did not ask for the password, a later run, in which the agent can log in, compares it.
    return error is None or not error.password_used


def warnings(session: Session, name: str, password: str) -> tuple[str, ...]:
    """Why the agent cannot log in to its database, and what to do."""
    error = refused(session, name, password)
    if error is None:
        return ()
    kind = "host" if session.target.sslmode == "disable" else "hostssl"
    address = session.value("SELECT inet_client_addr()::text")
    line = f'{kind} all "{AGENT}" {address} scram-sha-256'
    hint = f"Add a line like this to the server's pg_hba.conf, or to the service's access rules: {line}"
    if error.password_used:
        hint = f"The role must be allowed to connect to {name}, and have a free connection."
    return (f"The agent cannot log in: {error.message} {hint}",)


def check_rights(session: Session, found: Mapping[str, Mapping[str, Any]], ops: Mapping[str, Any] | None) -> None:
    """Check that an administrator who is not a superuser has the rights to create roles and the ops database;
    ``found`` are the roles as read, ``ops`` is the database.

    A managed service has rules of its own, so there the server reports what is missing.

    Raises PermissionMissing, which names the statements that grant them.
    """
    if session.superuser or session.in_recovery or managers.manager(session) in managers.SERVICES:
        return
    rights = session.rows(RIGHTS)[0]
    name = rights["name"]
    monitors = "pg_monitor" in found.get(AGENT, {}).get("member_of", ())
    foreign = ", ".join(sorted(role for role, one in found.items() if not one["managed"]))
    wanted = (
        (rights["createrole"], f"ALTER ROLE {name} CREATEROLE"),
        (rights["createdb"] or ops, f"ALTER ROLE {name} CREATEDB"),
        (rights["gives_monitor"] or monitors or session.major < 16, f"GRANT pg_monitor TO {name} WITH ADMIN OPTION"),
        (not foreign, f"GRANT {foreign} TO {name} WITH ADMIN OPTION"),
        (foreign or not ownership.is_ours(ops) or found[OWNER]["held"], f"GRANT {OWNER} TO {name}"),
    )
    missing = [statement for held, statement in wanted if not held]
    if missing:
        raise PermissionMissing(
            f"Role {name} is not a superuser and lacks rights that are needed.",
            f"Ask an administrator to run: {'; '.join(missing)}",
        )
