# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The database roles of the monitoring, each with least privilege."""

from __future__ import annotations

import base64
import hashlib
import hmac
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import Conflict
from ..plan import difference
from ..server.changes import ServerChange, Statements
from ..server.names import AGENT, BACKUP, EXPLAINER, MARK, OPERATOR, OPTIONAL, OWNER, READER
from ..server.session import Session, identifier, listed, statement

READ = """
SELECT r.rolname AS name, r.rolcanlogin AS login, r.rolsuper AS superuser, r.rolcreatedb AS createdb,
       r.rolcreaterole AS createrole, r.rolreplication AS replication, r.rolbypassrls AS bypassrls,
       r.rolconnlimit AS connection_limit, coalesce(r.rolconfig, '{}') AS settings,
       coalesce(shobj_description(r.oid, 'pg_authid'), '') AS comment,
       ARRAY(SELECT DISTINCT g.rolname::text FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY 1) AS member_of,
       ARRAY(SELECT ARRAY[g.rolname::text, pg_get_userbyid(m.grantor)::text] FROM pg_auth_members AS m
             JOIN pg_roles AS g ON g.oid = m.roleid WHERE m.member = r.oid) AS grants,
       {verifier} AS verifier, {held} AS held, {managed} AS managed
FROM pg_roles AS r
WHERE r.rolname = ANY (%s)
"""
VERIFIER = "(SELECT a.rolpassword FROM pg_authid AS a WHERE a.oid = r.oid)"
HELD = "pg_has_role(r.oid, 'USAGE')"
SINCE_16 = (
    "pg_has_role(r.oid, 'USAGE') AND pg_has_role(r.oid, 'SET')",
    "pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')",
)

HOLDINGS = """
SELECT DISTINCT r.rolname AS role, d.datname AS database, s.deptype = 'o' AS owner,
       d.datallowconn AND d.datconnlimit <> -2 AS open
FROM pg_shdepend AS s JOIN pg_roles AS r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass
JOIN pg_database AS d ON d.oid = CASE WHEN s.classid = 'pg_database'::regclass THEN s.objid ELSE s.dbid END
WHERE r.rolname = ANY (%s) ORDER BY 2, 1
"""


@dataclass(frozen=True)
class Role:
    """What a role must be. Settings apply to its sessions; a superuser's settings of a role may go where the
    role's own cannot (lc_messages), so that errors come in one language. ``powers`` are those of POWERS that it has;
    ``open``: what it is a member of, users decide."""

    name: str
    login: bool = False
    member_of: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    connection_limit: int = -1
    powers: tuple[str, ...] = ()
    open: bool = False


PROOF = "lc_messages=C"
"""A setting that only a superuser can give a role: one that has it was not prepared by somebody who may create roles,
and could still be acting as it."""

ROLES = (
    Role(OWNER, settings=(PROOF,)),
    Role(READER, settings=(PROOF,)),
    Role(OPERATOR, settings=(PROOF,)),
    Role(AGENT, True, ("pg_monitor",), (PROOF,), 8),
)
RESERVED = "pg_use_reserved_connections"
"""What lets the agent in where all other connections are taken, if the server has reserved_connections."""
RESERVED_SINCE = 16
NAMES = tuple(role.name for role in ROLES)
PLANNING = Role(EXPLAINER, True, (), (PROOF,), 3, open=True)
"""A separate role, since planning may run functions, which can become any role that the session can become. Its
memberships are those that users have granted it."""
BACKING_UP = Role(BACKUP, True, (), (PROOF,), 4, powers=("replication",))
"""What pg_basebackup logs in as. It reads all data, but only by copying all of it; more connections than one, since
the server may not have noticed yet that a killed one has gone."""
POWERS = ("superuser", "createdb", "createrole", "replication", "bypassrls")


def read(session: Session) -> dict[str, dict[str, Any]]:
    """Those of our roles that exist, by name. Only a superuser sees ``verifier``; ``held`` is whether the session's
    user may act as the role, ``managed`` whether it may change it, as far as the role itself shows that."""
    held, managed = SINCE_16 if session.major >= 16 else (HELD, "true")
    query = READ.replace("{held}", held).replace("{managed}", managed)
    query = query.replace("{verifier}", VERIFIER if session.superuser else "NULL::text")
    return {row["name"]: row for row in session.rows(query, [[*NAMES, *OPTIONAL]])}


@dataclass(frozen=True)
class Administrator:
    """Who creates the roles. One who is not a superuser must be a member of the roles to act for them;
    ``password_works`` is whether the agent's password is the declared one, None if that was not tested."""

    name: str = ""
    superuser: bool = True
    password_works: bool | None = None


@dataclass(frozen=True)
class Holding:
    """A role has rights in a database or on it; ``owner``: it owns the database or objects in it; ``open``: the
    database takes connections."""

    role: str
    database: str
    owner: bool
    open: bool = True


def refuse_prepared(
    current: Mapping[str, Mapping[str, Any]], names: Sequence[str], database: Mapping[str, Any] | None
) -> None:
    """Refuse a role that somebody who may create roles could have made, comment and all: it may be used in a session
    that began as it, and own functions that run as it.

    ``database`` is the ops database. Rights on it are those of a role that we let in: by its owner, and of a dropped
    role they are gone. Before roles had PROOF, the agent's had it alone.

    Raises Conflict.
    """
    proven = {name for name in names if name in current and PROOF in current[name]["settings"]}
    if OWNER in proven and database and database["owner"] == OWNER:
        proven |= {name for name in (READER, OPERATOR, AGENT) if f"{name} CONNECT" in database["rights"]}
    if AGENT in proven:
        proven |= {OWNER, READER}
    for name in names:
        if name in current and (current[name]["comment"] != MARK or name not in proven):
            raise _not_ours(name)


def _not_ours(name: str) -> Conflict:
    return Conflict(
        f"A role {name} exists of which nothing shows that pgops.fleet created it as a superuser.",
        f"Get it out of the way: ALTER ROLE {name} RENAME TO {name}_former. Or if you know that nobody else can act "
        f"as it, let pgops.fleet take it over: COMMENT ON ROLE {name} IS '{MARK}'; "
        f"ALTER ROLE {name} SET lc_messages TO 'C';",
    )


def holdings(session: Session) -> tuple[Holding, ...]:
    """The rights of our roles, in all databases."""
    return tuple(Holding(**row) for row in session.rows(HOLDINGS, [[*NAMES, *OPTIONAL]]))


def plan(
    current: Mapping[str, Mapping[str, Any]],
    password: str | None,
    major: int,
    by: Administrator = Administrator(),
    peers: int = 0,
) -> tuple[ServerChange, ...]:
    """What creates or updates the roles. ``peers`` is the number of other nodes whose agents connect.

    Raises Conflict for a role of the same name that we did not create: its rights and its users are not ours to
    change.
    """
    changes: list[ServerChange] = []
    wanted = [_shared(_reserving(role, major), peers) for role in ROLES]
    for role in wanted if by.superuser else map(_modest, wanted, map(current.get, NAMES)):
        found = current.get(role.name)
        changes += _one(role, found, major)
        if not by.superuser:
            changes += _membership(role.name, found, by.name, major)
    if password is not None:
        changes += _password(current.get(AGENT), password, by.password_works)
    return tuple(changes)


def _reserving(role: Role, major: int) -> Role:
    """The agent's role as a member of RESERVED, where that exists."""
    if role.name != AGENT or major < RESERVED_SINCE:
        return role
    return replace(role, member_of=(*role.member_of, RESERVED))


def _shared(role: Role, peers: int) -> Role:
    """A role with connections for other nodes' agents, each of which uses one all the time and at times another."""
    return replace(role, connection_limit=role.connection_limit + 2 * peers) if role.name == AGENT else role


def _one(role: Role, found: Mapping[str, Any] | None, major: int) -> tuple[Statements, ...]:
    if found is not None and found["comment"] != MARK:
        raise Conflict(
            f"A role {role.name} exists that pgops.fleet did not create.",
            f"Rename or drop it. To let pgops.fleet take it over: COMMENT ON ROLE {role.name} IS '{MARK}'.",
        )
    present = _attributes(found) if found else None
    return difference(Statements(f"role {role.name}", present, _wanted(role), _statements(role, found, major)))


def optional(
    role: Role, current: Mapping[str, Mapping[str, Any]], wanted: bool, held: Sequence[Holding], major: int
) -> tuple[tuple[Statements, ...], tuple[str, ...]]:
    """What creates or drops a role that not every instance has, and warnings.

    If it is no longer wanted, but holds rights (``held``) or memberships of users', these are not ours to drop: it
    only loses its login and its powers.
    """
    found = current.get(role.name)
    memberships = tuple(found["member_of"]) if found and role.open else ()
    if wanted:
        return _one(replace(role, member_of=memberships), found, major), ()
    if found is None or found["comment"] != MARK:
        return (), ()
    places = sorted({holding.database for holding in held if holding.role == role.name})
    if not memberships and not places:
        return removal(current, [role.name]), ()
    having = [f"is a member of {', '.join(memberships)}"] if memberships else []
    having += [f"holds rights in the databases {', '.join(places)}"] if places else []
    warning = (
        f"Role {role.name} is no longer used, but stays without login, since it {' and '.join(having)}. "
        f"Revoke that (REVOKE, DROP OWNED BY); the next run drops the role."
    )
    return _one(replace(role, login=False, powers=(), member_of=memberships), found, major), (warning,)


def _modest(role: Role, found: Mapping[str, Any] | None) -> Role:
    """A role without the settings that only a superuser can set, and without the membership that only one can be sure
    to grant, except those that it already has."""
    settings = tuple(one for one in role.settings if found and one in found["settings"])
    groups = tuple(one for one in role.member_of if one != RESERVED or (found and one in found["member_of"]))
    return replace(role, settings=settings, member_of=groups)


def _membership(name: str, found: Mapping[str, Any] | None, member: str, major: int) -> tuple[Statements, ...]:
    # Since PostgreSQL 16 who creates a role may change it, but not act for it.
    options = " WITH INHERIT TRUE, SET TRUE" if major >= 16 else ""
    granted = statement("GRANT {} TO {}" + options, identifier(name), identifier(member))
    acts = bool(found and found["held"])
    before, after = {f"member of {name}": acts}, {f"member of {name}": True}
    return difference(Statements(f"role {member}", before, after, (granted,)))


def _attributes(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "login": found["login"],
        "connection limit": found["connection_limit"],
        "member of": sorted(found["member_of"]),
        "settings": sorted(found["settings"]),
        "powers": [power for power in POWERS if found[power]],
    }


def _wanted(role: Role) -> dict[str, Any]:
    return {
        "login": role.login,
        "connection limit": role.connection_limit,
        "member of": sorted(role.member_of),
        "settings": sorted(role.settings),
        "powers": list(role.powers),
    }


def _statements(role: Role, found: Mapping[str, Any] | None, major: int) -> tuple[Any, ...]:
    name = identifier(role.name)
    verb = "ALTER" if found else "CREATE"
    login = "LOGIN" if role.login else "NOLOGIN"
    # For an existing role only what changes may be named: the rest needs a superuser.
    named = [power for power in POWERS if not found or found[power] != (power in role.powers)]
    plain = " ".join(("" if power in role.powers else "NO") + power.upper() for power in named)
    statements = [
        statement(f"{verb} ROLE {{}} {plain} INHERIT {login} CONNECTION LIMIT {{}}", name, role.connection_limit),
        statement("COMMENT ON ROLE {} IS {}", name, MARK),
        statement("ALTER ROLE {} RESET ALL", name),
    ]
    for setting in role.settings:
        key, _equals, value = setting.partition("=")
        statements.append(statement("ALTER ROLE {} SET {} TO {}", name, identifier(key), value))
    held = set(found["member_of"]) if found else set()
    for group, grantor in sorted(map(tuple, found["grants"])) if found else ():
        if group not in role.member_of:
            # since PostgreSQL 16 a membership is revoked by whoever granted it, or in their name
            by = [identifier(grantor)] if major >= 16 else []
            revoke = "REVOKE {} FROM {}" + " GRANTED BY {}" * len(by)
            statements.append(statement(revoke, identifier(group), name, *by))
    missing = [identifier(group) for group in role.member_of if group not in held]
    if missing:
        statements.append(statement("GRANT {} TO {}", listed(missing), name))
    return tuple(statements)


@dataclass(frozen=True)
class RolePassword(ServerChange):
    """Set the password of the agent's role."""

    password: str = field(repr=False, compare=False)

    def apply(self, session: Session) -> None:
        """The server is sent a verifier only."""
        verifier = session.scram(AGENT, self.password)
        session.execute(statement("ALTER ROLE {} PASSWORD {}", identifier(AGENT), verifier))


def _password(found: Mapping[str, Any] | None, password: str, works: bool | None) -> tuple[RolePassword, ...]:
    present = found["verifier"] if found else None
    if works or (present and scram_matches(present, password)):
        return ()
    before = "another (hidden)" if present or works is False else None
    return (RolePassword(f"password of role {AGENT}", before, "as declared (hidden)", password),)


def scram_matches(verifier: str, password: str) -> bool:
    """Whether a password is the one of a SCRAM-SHA-256 verifier, as stored in pg_authid.

    Source: RFC 5802, section 3; PostgreSQL, src/common/scram-common.c, for the format.
    """
    try:
        method, parameters, keys = verifier.split("$", 2)
        iterations, salt = parameters.split(":")
        stored_key, _server_key = keys.split(":")
        rounds, salt_bytes = int(iterations), base64.b64decode(salt, validate=True)
    except ValueError:
        return False
    if method != "SCRAM-SHA-256":
        return False
    prepared = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", prepared, salt_bytes, rounds)
    client_key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    return hmac.compare_digest(base64.b64encode(hashlib.sha256(client_key).digest()).decode(), stored_key)


def ours(current: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Those of the names that are roles which we created."""
    return [name for name in names if name in current and current[name]["comment"] == MARK]


def removal(current: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> tuple[Statements, ...]:
    """What removes roles of ours."""
    return tuple(
        Statements(f"role {name}", _attributes(current[name]), None, (statement("DROP ROLE {}", identifier(name)),))
        for name in names
    )


def refuse_owners(left: Sequence[Holding]) -> None:
    """Raise Conflict if a role to be removed owns objects: these are not ours to drop."""
    owned = sorted({f"{holding.role} in database {holding.database}" for holding in left if holding.owner})
    if owned:
        raise Conflict(
            f"The roles to be removed own objects: {', '.join(owned)}.",
            "If that is the ops database, set its name (pgops_database). Otherwise change the owner of the objects, "
            "or drop them.",
        )


def refuse_closed(left: Sequence[Holding]) -> None:
    """Raise Conflict if a role to be removed has rights in a database where they cannot be taken back."""
    closed = sorted({holding.database for holding in left if not holding.open})
    if closed:
        raise Conflict(
            f"The roles to be removed have rights in databases that take no connections: {', '.join(closed)}.",
            "Allow connections for the removal (ALTER DATABASE ... ALLOW_CONNECTIONS true), or drop the database.",
        )


def disown(names: Sequence[str]) -> Any:
    """The statement that revokes all rights in a database from roles that own nothing there."""
    return statement("DROP OWNED BY {}", listed([identifier(name) for name in names]))
