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
from ..server.ownership import AGENT, OWNER
from ..server.session import Session, connect
from ..server.target import Target

LEFT_OUT = "remote: access rules, server settings, archiving, disks and the job inspect need the instance's own host"
WITHOUT_SUPERUSER = (
    "; lc_messages of the agent's role, and before PostgreSQL 15 rights on the schema public, a superuser"
)

RIGHTS = """
SELECT quote_ident(current_user) AS name, r.rolcreaterole AS createrole, r.rolcreatedb AS createdb,
       pg_has_role('pg_monitor', 'MEMBER WITH ADMIN OPTION') AS gives_monitor
FROM pg_roles AS r WHERE r.rolname = current_user
"""


def left_out(session: Session) -> str:
    """What is not done of a remote instance."""
    return LEFT_OUT + ("" if session.superuser else WITHOUT_SUPERUSER)


def drawn(password: str | None, check_mode: bool) -> str:
    """The agent's password; in check mode one that stands for it, where it is yet to be drawn.

    Raises InvalidInput.
    """
    if password is None and not check_mode:
        raise InvalidInput("The agent has no password for this remote instance.", "Run pg_ops_agent before.")
    return password or secrets.token_urlsafe(32)


def agent_at(target: Target, password: str | None) -> Target:
    """How the agent logs in where an administrator does."""
    binding = "disable" if target.sslmode == "disable" else "require"
    return replace(target, user=AGENT, password=password, channel_binding=binding)


def refused(session: Session, name: str, password: str) -> LoginRefused | None:
    """Why the server does not let the agent into a database as it will come: with the password, bound to TLS unless
    that was declined; None where it does.

    Raises Unreachable.
    """
    try:
        connect(replace(agent_at(session.target, password), database=name)).close()
    except LoginRefused as error:
        return error
    return None


def password_works(session: Session, found: Mapping[str, Any], name: str, password: str | None) -> bool | None:
    """Whether the password is the agent's, by logging in to a database: only a superuser may read what the server
    keeps of it.

    None where it is not asked for.
    """
    if password is None or session.superuser or AGENT not in found:
        return None
    error = refused(session, name, password)
    # Where nobody asked for the password, the run after the agent was let in compares it.
    return error is None or not error.password_used


def warnings(session: Session, name: str, password: str) -> tuple[str, ...]:
    """What keeps the agent from its database, and who has to mend it."""
    error = refused(session, name, password)
    if error is None:
        return ()
    kind = "host" if session.target.sslmode == "disable" else "hostssl"
    address = session.value("SELECT inet_client_addr()::text")
    line = f'{kind} all "{AGENT}" {address} scram-sha-256'
    hint = f"Its server's pg_hba.conf, or what stands for it, has to have a line like: {line}"
    if error.password_used:
        hint = f"It has to be able to connect to {name}, and to find one of its connections free."
    return (f"The agent is not let in: {error.message} {hint}",)


def check_rights(session: Session, found: Mapping[str, Mapping[str, Any]], ops: Mapping[str, Any] | None) -> None:
    """See that an administrator who is no superuser has the rights to make roles and the ops database; ``found`` are
    the roles as read, ``ops`` is the database.

    A managed service has rules of its own, so there the server says what is missing.

    Raises PermissionMissing, which names the statements that give them.
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
    missing = [statement for there, statement in wanted if not there]
    if missing:
        raise PermissionMissing(
            f"Role {name} is no superuser, and lacks rights that the ops database takes.",
            f"Have somebody who may run: {'; '.join(missing)}",
        )
