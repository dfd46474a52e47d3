# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database: roles, database, migrations, objects, configuration, and access to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..converge import read_plan_apply
from ..errors import Conflict, InvalidInput
from ..host import files
from ..instance import passfile
from ..metrics import collectors, thresholds, trial
from ..metrics.collectors import LONGEST_RETENTION, Collector
from ..plan import Change, Plan, changes, difference
from ..server import foreign, guard, majors, managers, ownership
from ..server.changes import ServerChange, Statements
from ..server.changes import apply as carry_out
from ..server.locking import locked
from ..server.names import AGENT, OPERATOR, OPTIONAL, OWNER, READER
from ..server.session import Session, connect, statement
from ..server.target import Target
from ..sources import Sources, below
from . import access, contents, database, hba, migrations, objects, remote, roles
from .access import Access, AccessChange, AccessFiles
from .contents import Contents
from .install import install, without_timeout
from .roles import Administrator, Holding

NEEDED = "roles, a database and access rules cannot be created"
CALLED = ("register_node", "renew_shapes")
"""The functions that changes of the contents call, by their files."""
ON_STANDBY = "standby: the schema is replicated from its primary"


@dataclass(frozen=True)
class Desired:
    """What the ops database must be. By a metric's name, ``retention`` is in days, where it is not retention_days,
    and ``thresholds`` are its warning and critical value, where they are not those of its collector."""

    cluster: str
    node: str
    sources: Sources = field(repr=False)
    database: str = "pgops"
    password: str | None = field(default=None, repr=False)
    retention_days: int = 30
    rollup_days: int = 400
    max_size_mb: int = 10240
    retention: Mapping[str, int] = field(default_factory=dict)
    query_texts: bool = True
    explain: bool = False
    backup: bool = False
    drill_interval_hours: float = 0.0
    thresholds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    extra_collectors: tuple[Collector, ...] = ()
    access: Access | None = None

    @property
    def settings(self) -> dict[str, str]:
        """As pgops.setting holds them."""
        names = ("retention_days", "rollup_days", "max_size_mb", "drill_interval_hours")
        switches = ("query_texts", "backup")
        return {
            **{name: str(getattr(self, name)) for name in names},
            **{name: str(getattr(self, name)).lower() for name in switches},
        }

    @property
    def optional(self) -> tuple[str, ...]:
        """Those roles that it needs and others do not."""
        return tuple(name for name, on in zip(OPTIONAL, (self.explain, self.backup)) if on)

    @property
    def collectors(self) -> list[Collector]:
        """Shipped ones and the user's, which must not take a shipped one's name."""
        shipped = [collectors.parse(text, file) for file, text in below(self.sources, "sql/collectors").items()]
        return collectors.joined(shipped, self.extra_collectors)


@dataclass(frozen=True)
class Current:
    """The present state, read in one go."""

    major: int
    in_recovery: bool
    system_identifier: str
    manager: str = ""
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    holdings: tuple[Holding, ...] = ()
    database: Mapping[str, Any] | None = None
    contents: Contents = field(default_factory=Contents)
    access: AccessFiles | None = None
    hba_rules: tuple[hba.Rule, ...] = ()
    administrator: Administrator = field(default_factory=Administrator)
    left_out: str = ""

    @property
    def patroni(self) -> bool:
        """Whether Patroni manages the server, and may write its access files."""
        return self.manager == managers.PATRONI


# --- reading


def read(
    session: Session, name: str, node: str, with_access: bool, with_contents: bool = True, needed: Sequence[str] = ()
) -> Current:
    """Everything that a plan needs, from the server that ``session`` is on; ``needed`` are those roles of OPTIONAL
    that it needs."""
    found = ownership.ops_database(session, name)
    identity = session.value("SELECT system_identifier::text FROM pg_control_system()")
    current = Current(
        major=session.major,
        in_recovery=session.in_recovery,
        system_identifier=identity,
        manager=managers.manager(session),
        roles=roles.read(session),
        database=found,
        access=access.read(session) if with_access and session.target.local else None,
        hba_rules=hba.read(session) if with_access else (),
        administrator=Administrator(session.user, session.superuser),
    )
    if session.in_recovery or not with_contents:
        return current
    _refuse_others(session, current, needed)
    # A database that is not ours is not read: what a superuser reads there may run its owner's functions.
    if not (ownership.is_ours(found) and current.roles[OWNER]["held"]):
        _refuse_without_template(session, found)
        return current
    with connect(replace(session.target, database=name)) as inside:
        with_tables = contents.installed(inside)
        used = contents.READ if with_tables else ()
        with guard.guarded(inside, used, guard.READING, foreign.refuse_code), ownership.as_owner(inside):
            return replace(current, contents=contents.read(inside, node, with_tables))


def _refuse_without_template(session: Session, found: Mapping[str, Any] | None) -> None:
    """Raise Conflict if the ops database has to be created, and the server lacks what it is made from."""
    if found is None and not session.value("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'template0')"):
        raise Conflict(
            "The server has no database template0, from which the ops database is made.",
            "Make it anew, if template1 is as it was at first: "
            "CREATE DATABASE template0 TEMPLATE template1 IS_TEMPLATE true ALLOW_CONNECTIONS false;",
        )


def _refuse_others(session: Session, current: Current, needed: Sequence[str]) -> None:
    """Refuse roles that others have prepared, or can act as.

    Who is no superuser has none to lose, and creates the roles without what would show it.

    Raises Conflict.
    """
    if session.superuser:
        roles.refuse_prepared(current.roles, (*roles.NAMES, *needed), current.database)
    foreign.refuse_members(session, (*roles.NAMES, *OPTIONAL), service=current.manager in managers.SERVICES)


# --- planning


@dataclass(frozen=True)
class SchemaPlan:
    """A plan and its parts, each carried out in its own way; ``disowned`` are statements by the databases in which
    they run, and belong to the changes of the roles; ``called`` are the functions that ``contents`` call: they are
    created anew before, though nothing of them changes (server/guard.py). ``tables`` are those that exist."""

    roles: tuple[ServerChange, ...] = ()
    disowned: tuple[tuple[str, Any], ...] = ()
    database: tuple[ServerChange, ...] = ()
    migrations: tuple[ServerChange, ...] = ()
    objects: tuple[ServerChange, ...] = ()
    contents: tuple[Statements, ...] = ()
    rights: tuple[Statements, ...] = ()
    called: tuple[ServerChange, ...] = ()
    tables: tuple[str, ...] = ()
    access: tuple[AccessChange, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped_reason: str = ""

    @property
    def inside(self) -> tuple[ServerChange, ...]:
        """The objects to be created, with those that the contents call."""
        created = {one.subject for one in self.objects}
        return self.objects + tuple(one for one in self.called if self.contents and one.subject not in created)

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        inside = self.migrations + self.objects + self.contents + self.rights
        return changes(
            self.roles + self.database + inside,
            self.access,
            warnings=self.warnings,
            skipped_reason=self.skipped_reason,
        )


def plan(current: Current, desired: Desired, networks: Sequence[tuple[str, str]] = ()) -> SchemaPlan:
    """What brings an instance's ops database to what is desired.

    On a standby only the access rules can differ from the primary's. ``networks`` are the peers' addresses.
    """
    blocks, warnings = _access(current, desired, networks)
    warnings += majors.unknown(current.major)
    optional, kept = _optional(current, desired)
    if current.in_recovery:
        return SchemaPlan(access=blocks, warnings=warnings, skipped_reason=ON_STANDBY)
    wanted = desired.collectors
    functions = [
        objects.collector_function(collector)
        for collector in wanted
        if collector.called_in(desired.database, current.major)
    ]
    steps = migrations.shipped(below(desired.sources, "sql/migrations"))
    shipped = objects.shipped(below(desired.sources, "sql/objects")) + functions
    found = current.contents
    warnings += kept + objects.still_used(shipped, found.sources, found.users)
    ours = {one.identity for one in shipped} | set(found.sources)
    stray = [name for name in objects.drifted(found.installed, found.catalogue) if name not in ours]
    if stray:
        warnings += (f"Changed or added by hand; not touched: {', '.join(stray)}.",)
    return SchemaPlan(
        roles=roles.plan(
            current.roles,
            desired.password,
            current.major,
            current.administrator,
            len(desired.access.peers) if desired.access else 0,
        )
        + optional,
        database=database.plan(current.database, desired.database),
        migrations=contents.schema(found) + migrations.plan(found.ledger, steps),
        objects=objects.plan(shipped, found.sources, found.installed, found.catalogue, found.users),
        contents=contents.plan(
            found,
            contents.Wanted(desired.database, desired.settings, wanted, desired.thresholds, desired.retention),
            current.major,
        )
        + _node(found.node, desired, current.system_identifier)
        + _recorded(found.recorded_by, current.major),
        rights=contents.rights(found, desired.backup) if current.administrator.superuser else (),
        called=objects.anew(shipped, CALLED),
        tables=tuple(migrations.tables(found.ledger, steps)),
        access=blocks,
        warnings=warnings,
        skipped_reason=current.left_out,
    )


def _optional(current: Current, desired: Desired) -> tuple[tuple[ServerChange, ...], tuple[str, ...]]:
    planned: tuple[ServerChange, ...] = ()
    warnings: tuple[str, ...] = ()
    if desired.access is None:  # a remote instance, which never has such roles
        return planned, warnings
    for role, on in ((roles.PLANNING, desired.explain), (roles.BACKING_UP, desired.backup)):
        changed, kept = roles.optional(role, current.roles, on, current.holdings, current.major)
        planned, warnings = planned + changed, warnings + kept
    return planned, warnings


def _access(
    current: Current, desired: Desired, networks: Sequence[tuple[str, str]]
) -> tuple[tuple[AccessChange, ...], tuple[str, ...]]:
    if desired.access is None:
        return (), ()
    admitted = replace(desired.access, keeper=current.access.user if current.access else "")
    wanted = access.wanted(admitted, desired.database, networks)
    if current.access is None:
        missing = [line for line, rule in wanted.items() if not hba.admit(current.hba_rules, rule)]
        lines = "; ".join(missing)
        asked = f"pg_hba.conf cannot be changed over the network. Add the rules for the agent: {lines}"
        return (), (asked,) if missing else ()
    if networks and not current.access.ssl:
        raise Conflict(
            "The nodes of a cluster connect only over TLS, but this server has ssl = off.",
            "Set ssl = on with a certificate (Debian's package ssl-cert creates one), or remove the peers.",
        )
    hba_block, ident_block = access.lines(admitted, desired.database, networks)
    planned = access.plan(current.access, hba_block, ident_block, current.patroni)
    if not current.patroni:
        return planned, ()
    unused = [name for name in OPTIONAL if name not in desired.optional]
    left = access.left_to_patroni(current.access, unused) if unused else ()
    mapping = access.mappings(admitted)
    return planned, access.asked_of_patroni(current.access, current.hba_rules, wanted, mapping) + left


def _node(present: Mapping[str, Any] | None, desired: Desired, system_identifier: str) -> tuple[Statements, ...]:
    if present and present["cluster"] == desired.cluster:
        return ()
    registered = statement(
        "SELECT pgops.register_node({}::text, {}::text, {}::text, true, ''::text)",
        desired.cluster,
        desired.node,
        system_identifier,
    )
    before = {"cluster": present["cluster"]} if present else None
    return (Statements(f"node {desired.node}", before, {"cluster": desired.cluster}, (registered,)),)


def _recorded(by: int | None, major: int) -> tuple[Statements, ...]:
    """After pg_upgrade the fingerprints are recorded again: the new server writes definitions differently.

    It needs no statements of its own: they are recorded at the end of each installation.
    """
    if by is None:
        return ()
    return difference(Statements("fingerprints of the objects", {"PostgreSQL": by}, {"PostgreSQL": major}, ()))


# --- applying


def _validate(session: Session, desired: Desired) -> None:
    """Try the user's collectors; pg_ops_agent reports the warnings.

    Raises InvalidInput.
    """
    if desired.access:
        agent = trial.agent_at(session.target, desired.access.os_user)
    else:
        agent = remote.agent_at(session.target, desired.password)
    trial.validate(session, desired.database, desired.extra_collectors, agent)


def apply(session: Session, desired: Desired, planned: SchemaPlan) -> None:
    """Carry a plan out: roles, database, then all inside the database in one transaction, then access."""
    with session.transaction():
        carry_out(session, planned.roles)
    with without_timeout(session):
        carry_out(session, planned.database)
    if planned.migrations or planned.objects or planned.contents or planned.rights:
        with connect(replace(session.target, database=desired.database, lock_timeout=5.0)) as inside:
            if planned.database:  # they could not be tried before it existed
                _validate(inside, desired)
            install(inside, planned.tables, planned.migrations, planned.inside, planned.contents, planned.rights)
    if planned.access:
        access.apply(session, planned.access)


# --- removal


def removal(current: Current, purge: bool) -> SchemaPlan:
    """What removes the login role and the access rules, and with ``purge`` the ops database and all roles.

    The owner of the ops database, and the role that its views are granted to, stay as long as it does.

    Raises Conflict if a role to be removed owns something elsewhere.
    """
    blocks: tuple[AccessChange, ...] = ()
    warnings: tuple[str, ...] = ()
    if current.access:
        blocks = access.plan(current.access, "", "", current.patroni)
        warnings = access.left_to_patroni(current.access) if current.patroni else ()
    if current.in_recovery:
        return SchemaPlan(access=blocks, warnings=warnings, skipped_reason=ON_STANDBY)
    dropped = database.removal(current.database) if purge else ()
    gone = purge or current.database is None
    logins = [AGENT, *OPTIONAL]
    names = roles.ours(current.roles, [*logins, OPERATOR, READER, OWNER] if gone else logins)
    going = current.database["name"] if dropped and current.database else None
    left = [holding for holding in current.holdings if holding.role in names and holding.database != going]
    roles.refuse_owners(left)
    roles.refuse_closed(left)
    return SchemaPlan(
        roles=roles.removal(current.roles, names),
        disowned=tuple((name, roles.disown(names)) for name in sorted({holding.database for holding in left})),
        database=dropped,
        access=blocks,
        warnings=warnings,
    )


def _review_removal(session: Session, planned: SchemaPlan) -> None:
    """Raises Conflict if taking our rights back in a database would run code of others there."""
    for name, _disowned in planned.disowned:
        with connect(replace(session.target, database=name)) as inside:
            foreign.refuse_event_triggers(inside)


def remove(session: Session, planned: SchemaPlan) -> None:
    """Carry a removal out: access last, so that the agents are not locked out if something else fails."""
    with without_timeout(session):
        carry_out(session, planned.database)
    for name, disowned in planned.disowned:
        with connect(replace(session.target, database=name)) as inside:
            inside.execute(disowned)
    with session.transaction():
        carry_out(session, planned.roles)
    if planned.access:
        access.apply(session, planned.access)


# --- all of it


def desired(params: Mapping[str, Any]) -> Desired:
    """What a module's arguments ask for.

    Raises InvalidInput.
    """
    for name, most in (("retention_days", LONGEST_RETENTION), ("rollup_days", 10 * LONGEST_RETENTION)):
        if not 1 <= params[name] <= most:
            raise InvalidInput(f"{name} must be 1 to {most}.")
    if params["max_size_mb"] < 1:
        raise InvalidInput("max_size_mb must be 1 or more.")
    if params["backup"] and params["remote"]:
        raise InvalidInput("Remote instances are not backed up.", "Set backup to false.")
    if params["explain"] and (params["remote"] or not params["query_texts"]):
        raise InvalidInput(
            "explain needs query_texts, and is not available for remote instances.",
            "Set explain to false, or query_texts to true.",
        )
    return Desired(
        cluster=params["cluster"],
        node=params["node"],
        sources=params["sources"],
        database=ownership.checked(params["database"]),
        password=params["password"] or passfile_password(params["passfile"]),
        retention_days=params["retention_days"],
        rollup_days=params["rollup_days"],
        max_size_mb=params["max_size_mb"],
        retention=collectors.checked_retention(params["metric_retention"]),
        thresholds=thresholds.checked(params["thresholds"]),
        query_texts=params["query_texts"],
        explain=params["explain"],
        backup=params["backup"],
        drill_interval_hours=float(params["drill_interval_hours"]),
        extra_collectors=tuple(
            collectors.parse(text, f"collector {place}") for place, text in enumerate(params["collectors"], 1)
        ),
        access=None if params["remote"] else _admitted(params),
    )


def _admitted(params: Mapping[str, Any]) -> Access:
    return Access(params["os_user"], tuple(params["peers"]), params["explain"], params["backup"])


def passfile_password(path: str | None) -> str | None:
    """The password in a file of libpq's format that pg_ops_agent wrote; None where there is no such file.

    Raises HostFailed.
    """
    present = files.read(path) if path else None
    return passfile.password(present.content.decode()) if present else None


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_schema returns."""
    if params["state"] == "absent":
        return _removed(target, params, check_mode)
    wanted = desired(params)
    if params["remote"]:
        return _converge_remote(target, wanted, params["rehearse"], check_mode)
    networks = access.resolve(params["peers"])
    with locked(target, NEEDED) as session:
        rehearse = bool(params["rehearse"] and check_mode)
        planned = read_plan_apply(
            read=lambda: _read_own(session, wanted),
            plan=lambda current: plan(current, wanted, networks),
            apply=lambda _current, planned: apply(session, wanted, planned),
            check_mode=check_mode,
            review=lambda current, planned: _review(session, current, wanted, planned, rehearse),
        )
    return planned.plan.result()


def _read_own(session: Session, wanted: Desired) -> Current:
    current = read(session, wanted.database, wanted.node, with_access=True, needed=wanted.optional)
    if set(wanted.optional).issuperset(set(OPTIONAL) & set(current.roles)):
        return current
    return replace(current, holdings=roles.holdings(session))


def _review(session: Session, current: Current, wanted: Desired, planned: SchemaPlan, rehearse: bool) -> None:
    """Try the user's collectors, and with ``rehearse`` all changes inside the database."""
    _validate(session, wanted)
    if rehearse and current.contents.exists:
        with connect(replace(session.target, database=wanted.database, lock_timeout=5.0)) as inside:
            parts = (planned.migrations, planned.inside, planned.contents, planned.rights)
            install(inside, planned.tables, *parts, rehearse=True)


def _converge_remote(target: Target, wanted: Desired, rehearse: bool, check_mode: bool) -> dict[str, Any]:
    """The same for an instance whose agent is on this host and connects over the network with a password."""
    if target.local:
        raise InvalidInput(
            "remote needs login_host, a host name or address.", "Set login_host to the instance's host."
        )
    wanted = replace(wanted, password=remote.agent_password(wanted.password, check_mode))
    with locked(target, NEEDED, superuser=False, ops_database=wanted.database) as session:
        planned = read_plan_apply(
            read=lambda: _read_remote(session, wanted),
            plan=lambda current: plan(current, wanted),
            apply=lambda _current, planned: apply(session, wanted, planned),
            check_mode=check_mode,
            review=lambda current, planned: _review(session, current, wanted, planned, rehearse and check_mode),
        )
        if planned.plan and check_mode:
            return planned.plan.result()
        return planned.plan.warned(remote.warnings(session, wanted.database, str(wanted.password))).result()


def _read_remote(session: Session, wanted: Desired) -> Current:
    current = read(session, wanted.database, wanted.node, with_access=False)
    remote.check_rights(session, current.roles, current.database)
    name = wanted.database if ownership.is_ours(current.database) else session.database
    works = remote.password_works(session, current.roles, name, wanted.password)
    by = replace(current.administrator, password_works=works)
    return replace(current, administrator=by, left_out=remote.left_out(session))


def _removed(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    name = ownership.checked(params["database"])
    is_remote = bool(params["remote"])
    with locked(target, NEEDED, superuser=not is_remote) as session:
        planned = read_plan_apply(
            read=lambda: replace(
                read(session, name, "", with_access=not is_remote, with_contents=False),
                holdings=roles.holdings(session),
            ),
            plan=lambda current: removal(current, params["purge"]),
            apply=lambda _current, planned: remove(session, planned),
            check_mode=check_mode,
            review=lambda _current, planned: _review_removal(session, planned),
        )
    return planned.plan.result()
