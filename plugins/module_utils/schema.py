# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database as a whole: roles, database, migrations, objects, what is configured, and access to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import access, collectors, credentials, database, files, migrations, neighbours, objects, roles, rules
from .access import Access, AccessFiles
from .collectors import Collector
from .errors import Busy, Conflict, InvalidInput, PermissionMissing, QueryFailed
from .fingerprints import CATALOGUE
from .plan import Change, Plan, changes, difference
from .server import Session, connect, identifier, statement
from .sources import Sources, below, unpack
from .target import Target
from .version import VERSION

NOT_A_COLUMN = ("42P16", "42P13")
"""invalid_table_definition, invalid_function_definition: CREATE OR REPLACE cannot change that much."""

LOCK = "SELECT pg_advisory_lock(hashtext('pgops.fleet'), 1)"

SCHEMA_RIGHTS = """
SELECT ARRAY(SELECT concat_ws(' ', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
                              a.privilege_type)
             FROM aclexplode(n.nspacl) AS a WHERE a.grantee <> n.nspowner ORDER BY 1) AS rights
FROM pg_namespace AS n WHERE n.nspname = 'pgops'
"""
WANTED_SCHEMA_RIGHTS = [f"{roles.AGENT} USAGE", f"{roles.READER} USAGE"]


@dataclass(frozen=True)
class Desired:
    """What the ops database is to be. ``thresholds`` maps a metric's name to its warning and critical value;
    metrics that are not named keep what they have."""

    cluster: str
    node: str
    sources: Sources = field(repr=False)
    database: str = "pgops"
    password: str | None = field(default=None, repr=False)
    retention_days: int = 30
    thresholds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    extra_collectors: tuple[Collector, ...] = ()
    access: Access | None = None

    @property
    def collectors(self) -> list[Collector]:
        """Shipped ones and the user's, which must not take a shipped one's name."""
        shipped = [collectors.parse(text, file) for file, text in below(self.sources, "sql/collectors").items()]
        return collectors.joined(shipped, self.extra_collectors)


@dataclass(frozen=True)
class Contents:
    """What is in the ops database now; all empty where there is no schema yet."""

    exists: bool = False
    rights: tuple[str, ...] = ()
    ledger: tuple[migrations.Migration, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    installed: Mapping[str, str] = field(default_factory=dict)
    catalogue: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    collectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Current:
    """What is there now, as read in one go."""

    major: int
    in_recovery: bool
    system_identifier: str
    manager: str = ""
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    database: Mapping[str, Any] | None = None
    contents: Contents = Contents()
    access: AccessFiles | None = None
    hba_rules: tuple[rules.Rule, ...] = ()

    @property
    def patroni(self) -> bool:
        """Whether Patroni manages the server, and may write its access files."""
        return self.manager == neighbours.PATRONI


# --- reading


@contextlib.contextmanager
def locked(target: Target) -> Iterator[Session]:
    """A superuser's session that keeps other runs on this server out until it ends.

    Raises PermissionMissing, Managed, Busy.
    """
    with connect(replace(target, lock_timeout=30.0)) as session:
        if not session.superuser:
            neighbours.refuse_ops_database(neighbours.manager(session))
            raise PermissionMissing(
                f"Role {session.user} is no superuser; roles, a database and access rules cannot be made with it.",
                "Log in as a superuser: become root or postgres on the host, or set login_user.",
            )
        try:
            session.value(LOCK)
        except QueryFailed as error:
            if error.sqlstate == "55P03":
                raise Busy("Another run of pgops.fleet has been working on this server for 30 seconds.") from error
            raise
        yield session


def read(session: Session, name: str, node: str, with_access: bool) -> Current:
    """Everything that a plan needs, from the server that ``session`` is on."""
    found = database.read(session, name)
    identity = session.value("SELECT system_identifier::text FROM pg_control_system()")
    current = Current(
        major=session.major,
        in_recovery=session.in_recovery,
        system_identifier=identity,
        manager=neighbours.manager(session),
        roles=roles.read(session),
        database=found,
        access=access.read(session) if with_access and session.target.local else None,
        hba_rules=rules.read(session) if with_access else (),
    )
    if found is None or session.in_recovery or found["encoding"] != "UTF8":
        return current
    with connect(replace(session.target, database=name)) as inside:
        return replace(current, contents=_contents(inside, node))


def _contents(session: Session, node: str) -> Contents:
    found = session.row(SCHEMA_RIGHTS)
    if found is None:
        return Contents()
    if session.value("SELECT to_regclass('pgops.migration')") is None:
        return Contents(exists=True, rights=tuple(found["rights"]))
    return Contents(
        exists=True,
        rights=tuple(found["rights"]),
        ledger=tuple(
            migrations.Migration(row["number"], row["name"], row["sha256"])
            for row in session.rows("SELECT number, name, sha256 FROM pgops.migration ORDER BY number")
        ),
        sources=_pairs(session, "SELECT object, sha256 FROM pgops.object_source"),
        installed=fingerprints(session),
        catalogue=_pairs(session, CATALOGUE),
        settings=_pairs(session, "SELECT name, value FROM pgops.setting"),
        metrics=_keyed(
            session,
            "SELECT metric_name, category, unit, kind, direction, warning, critical, help FROM pgops.metric",
        ),
        thresholds=_keyed(session, "SELECT metric_name, warning, critical FROM pgops.threshold"),
        collectors=_keyed(session, "SELECT collector, scope, labels, metrics FROM pgops.collector"),
        node=session.row("SELECT cluster, node FROM pgops.node WHERE node = %s", [node]),
    )


def fingerprints(session: Session) -> dict[str, str]:
    """The objects as they were installed.

    Another major version of the server writes definitions differently: then what is there now is taken for what
    was installed.
    """
    rows = session.rows("SELECT object, sha256, server_major FROM pgops.fingerprint")
    if any(row["server_major"] != session.major for row in rows):
        return _pairs(session, CATALOGUE)
    return {row["object"]: row["sha256"] for row in rows}


def _pairs(session: Session, query: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in (tuple(row.values()) for row in session.rows(query))}


def _keyed(session: Session, query: str) -> dict[str, dict[str, Any]]:
    keyed = {}
    for row in session.rows(query):
        key, *_others = row.values()
        keyed[str(key)] = row
    return keyed


# --- planning


@dataclass(frozen=True)
class SchemaPlan:
    """A plan and its parts, each carried out its own way."""

    roles: tuple[Change, ...] = ()
    database: tuple[Change, ...] = ()
    migrations: tuple[Change, ...] = ()
    objects: tuple[Change, ...] = ()
    contents: tuple[Change, ...] = ()
    access: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped_reason: str = ""

    @property
    def plan(self) -> Plan:
        """As modules report it."""
        return changes(
            self.roles,
            self.database,
            self.migrations,
            self.objects,
            self.contents,
            self.access,
            warnings=self.warnings,
            skipped_reason=self.skipped_reason,
        )


def plan(current: Current, desired: Desired, verifier: Any, networks: Sequence[tuple[str, str]] = ()) -> SchemaPlan:
    """What brings an instance's ops database to what is desired.

    On a standby only the access rules can be other than the primary's. ``verifier`` makes a SCRAM verifier of
    (role, password); ``networks`` are the peers' resolved addresses.
    """
    blocks, warnings = _access(current, desired, networks)
    if current.in_recovery:
        return SchemaPlan(access=blocks, warnings=warnings, skipped_reason="standby: the schema is its primary's")
    wanted = desired.collectors
    functions = [
        objects.collector_function(found) for found in wanted if found.applies(current.major, in_recovery=False)
    ]
    shipped = objects.shipped(below(desired.sources, "sql/objects")) + functions
    contents = current.contents
    stray = [name for name in objects.drifted(contents.installed, contents.catalogue) if name.startswith("table ")]
    if stray:
        warnings += (f"Changed by hand, and left as they are: {', '.join(stray)}.",)
    return SchemaPlan(
        roles=roles.plan(current.roles, desired.password, verifier),
        database=database.plan(current.database, desired.database, current.major),
        migrations=_schema(contents)
        + migrations.plan(contents.ledger, migrations.shipped(below(desired.sources, "sql/migrations"))),
        objects=objects.plan(shipped, contents.sources, contents.installed, contents.catalogue),
        contents=_configured(contents, desired, wanted, current),
        access=blocks,
        warnings=warnings,
    )


def _access(
    current: Current, desired: Desired, networks: Sequence[tuple[str, str]]
) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    if desired.access is None:
        return (), ()
    wanted = access.wanted(desired.access, desired.database, networks)
    if current.access is None:
        missing = [line for line, rule in wanted.items() if not rules.admit(current.hba_rules, rule)]
        asked = f"pg_hba.conf is out of reach over the network; it has to admit the agent: {'; '.join(missing)}"
        return (), (asked,) if missing else ()
    if networks and not current.access.ssl:
        raise Conflict(
            "The nodes of a cluster reach each other over TLS only, and this server has ssl = off.",
            "Set ssl = on with a certificate (Debian's package ssl-cert makes one), or take the peers out.",
        )
    hba, ident = access.lines(desired.access, desired.database, networks)
    made = access.plan(current.access, hba, ident, current.patroni)
    if not current.patroni:
        return made, ()
    return made, access.asked_of_patroni(current.access, current.hba_rules, wanted, access.mappings(desired.access))


def _schema(contents: Contents) -> tuple[Change, ...]:
    created: tuple[Change, ...] = ()
    if not contents.exists:
        step = [statement("CREATE SCHEMA pgops AUTHORIZATION {}", identifier(roles.OWNER))]
        created = (Change("schema pgops", None, {"owner": roles.OWNER}, step),)
    kept = [right for right in contents.rights if not right.startswith("PUBLIC ")]
    steps = [
        statement("REVOKE ALL ON SCHEMA pgops FROM PUBLIC"),
        statement("GRANT USAGE ON SCHEMA pgops TO {}, {}", identifier(roles.AGENT), identifier(roles.READER)),
        statement("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
    ]
    return created + difference(
        "rights on schema pgops",
        {"rights": sorted(contents.rights)},
        {"rights": sorted({*kept, *WANTED_SCHEMA_RIGHTS})},
        steps,
    )


def _configured(
    contents: Contents, desired: Desired, wanted: Sequence[Collector], current: Current
) -> tuple[Change, ...]:
    made: tuple[Change, ...] = ()
    made += difference(
        "setting retention_days",
        contents.settings.get("retention_days"),
        str(desired.retention_days),
        upsert("setting", ["name"], {"name": "retention_days", "value": str(desired.retention_days)}),
    )
    for found in wanted:
        for metric in found.metrics:
            row = metric.definition()
            subject = f"metric {metric.name}"
            made += difference(
                subject, contents.metrics.get(metric.name), row, upsert("metric", ["metric_name"], row)
            )
    made += _thresholds(contents, desired)
    made += _collector_rows(contents, wanted, current.major)
    if contents.node is None or contents.node["cluster"] != desired.cluster:
        step = statement(
            "SELECT pgops.register_node({}, {}, {}, true, '')",
            desired.cluster,
            desired.node,
            current.system_identifier,
        )
        before = {"cluster": contents.node["cluster"]} if contents.node else None
        made += difference(f"node {desired.node}", before, {"cluster": desired.cluster}, step)
    return made


def _thresholds(contents: Contents, desired: Desired) -> tuple[Change, ...]:
    known = {metric.name for found in desired.collectors for metric in found.metrics} | set(contents.metrics)
    unknown = sorted(set(desired.thresholds) - known)
    if unknown:
        raise InvalidInput(
            f"Thresholds are given for metrics that do not exist: {', '.join(unknown)}.",
            "The metrics are listed in docs/monitoring.md.",
        )
    made: tuple[Change, ...] = ()
    for name, values in sorted(desired.thresholds.items()):
        row = {"metric_name": name, "warning": values.get("warning"), "critical": values.get("critical")}
        made += difference(
            f"threshold {name}", contents.thresholds.get(name), row, upsert("threshold", ["metric_name"], row)
        )
    return made


def _collector_rows(contents: Contents, wanted: Sequence[Collector], major: int) -> tuple[Change, ...]:
    rows = {
        found.name: {
            "collector": found.name,
            "scope": found.scope,
            "labels": list(collectors.LABELS),
            "metrics": [metric.name for metric in found.metrics],
        }
        for found in wanted
        if found.applies(major, in_recovery=False)
    }
    made: tuple[Change, ...] = ()
    for name, row in rows.items():
        made += difference(
            f"collector {name}", contents.collectors.get(name), row, upsert("collector", ["collector"], row)
        )
    for name in sorted(set(contents.collectors) - set(rows)):
        step = statement("DELETE FROM pgops.collector WHERE collector = {}", name)
        made += difference(f"collector {name}", contents.collectors[name], None, step)
    return made


def upsert(table: str, key: Sequence[str], row: Mapping[str, Any]) -> Any:
    """The statement that makes a row of a table of ours what it is to be."""
    columns = ", ".join(["{}"] * len(row))
    assigned = ", ".join(["{} = excluded.{}"] * (len(row) - len(key)))
    names = [identifier(column) for column in row]
    pairs = [identifier(column) for column in row if column not in key for _side in (1, 2)]
    return statement(
        f"INSERT INTO pgops.{{}} ({columns}) VALUES ({columns}) "
        f"ON CONFLICT ({', '.join(['{}'] * len(key))}) DO UPDATE SET {assigned}",
        identifier(table),
        *names,
        *row.values(),
        *[identifier(column) for column in key],
        *pairs,
    )


# --- applying


def apply(session: Session, current: Current, desired: Desired, made: SchemaPlan) -> None:
    """Carry a plan out: roles, database, then all inside the database in one transaction, then access."""
    with session.transaction():
        _run(session, made.roles)
    _run(session, made.database)
    if made.migrations or made.objects or made.contents:
        with connect(replace(session.target, database=desired.database, lock_timeout=5.0)) as inside:
            fill(inside, made)
    if made.access and current.access:
        access.apply(session, current.access, [change.step for change in made.access])


def fill(inside: Session, made: SchemaPlan, rehearse: bool = False) -> None:
    """Everything inside the ops database, as the schema's owner, in one transaction; a rehearsal is rolled back."""
    with inside.transaction(rollback=rehearse):
        for change in made.migrations:
            with named(change):
                _migrate(inside, change)
        for change in made.objects:
            with named(change):
                _replace(inside, change.step)
        _as_owner(inside)
        _run(inside, made.contents)
        inside.execute("RESET ROLE")
        _remember(inside)


def _migrate(inside: Session, change: Change) -> None:
    if not isinstance(change.step, migrations.Migration):
        _run(inside, [change])
        return
    _as_owner(inside)
    inside.script(change.step.text)
    inside.execute(
        "INSERT INTO pgops.migration (number, name, sha256, collection_version) VALUES (%s, %s, %s, %s)",
        [change.step.number, change.step.name, change.step.sha256, VERSION],
    )
    inside.execute("RESET ROLE")


def _as_owner(inside: Session) -> None:
    # Whoever the owner's objects belong to must not be a superuser: a function of theirs would run as one.
    inside.execute(statement("SET LOCAL ROLE {}", identifier(roles.OWNER)))


@contextlib.contextmanager
def named(change: Change) -> Iterator[None]:
    """Say in an error which change the server refused."""
    try:
        yield
    except QueryFailed as error:
        raise QueryFailed(f"{change.subject}: {error.message}", error.hint, error.sqlstate) from error


def _replace(inside: Session, found: objects.SchemaObject | str) -> None:
    _as_owner(inside)
    if isinstance(found, str):
        inside.script(objects.drop_statement(found))
        inside.execute("DELETE FROM pgops.object_source WHERE object = %s", [found])
        inside.execute("RESET ROLE")
        return
    try:
        with inside.transaction():
            inside.script(found.text)
    except QueryFailed as error:
        if error.sqlstate not in NOT_A_COLUMN:
            raise
        _recreate(inside, found)
    inside.execute(upsert("object_source", ["object"], {"object": found.identity, "sha256": found.sha256}))
    inside.execute("RESET ROLE")


def _recreate(inside: Session, found: objects.SchemaObject) -> None:
    try:
        inside.script(found.drop)
    except QueryFailed as error:
        if error.sqlstate != "2BP01":
            raise
        raise Conflict(
            f"{found.identity} has a new form, and objects of your own depend on the old one: {error.message}.",
            "Drop them, run this again, and create them anew.",
        ) from error
    inside.script(found.text)


def _remember(inside: Session) -> None:
    inside.execute("DELETE FROM pgops.fingerprint")
    inside.execute(
        "INSERT INTO pgops.fingerprint (object, sha256, server_major) "
        "SELECT found.object, found.sha256, %s FROM (" + CATALOGUE + ") AS found",
        [inside.major],
    )


def _run(session: Session, made: Sequence[Change]) -> None:
    for change in made:
        with named(change):
            for step in change.step if isinstance(change.step, list) else [change.step]:
                session.execute(step)


# --- removal


def removal(current: Current, purge: bool) -> SchemaPlan:
    """What takes the login role and the access rules away, and with ``purge`` the ops database and all roles.

    The owner of the ops database, and the role that its views are granted to, stay as long as it does.
    """
    blocks: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    if current.access:
        blocks = access.plan(current.access, "", "", current.patroni)
        warnings = access.left_to_patroni(current.access) if current.patroni else ()
    if current.in_recovery:
        return SchemaPlan(access=blocks, warnings=warnings, skipped_reason="standby: the schema is its primary's")
    dropped = database.removal(current.database) if purge else ()
    gone = purge or current.database is None
    names = [roles.AGENT, roles.READER, roles.OWNER] if gone else [roles.AGENT]
    return SchemaPlan(roles=roles.removal(current.roles, names), database=dropped, access=blocks, warnings=warnings)


def remove(session: Session, current: Current, name: str, made: SchemaPlan) -> None:
    """Carry a removal out."""
    if made.access and current.access:
        access.apply(session, current.access, [change.step for change in made.access])
    _run(session, made.database)
    if made.roles and not made.database and current.database is not None:
        with connect(replace(session.target, database=name)) as inside:
            inside.execute(statement("DROP OWNED BY {}", identifier(roles.AGENT)))
    with session.transaction():
        _run(session, made.roles)


# --- all of it


def desired(params: Mapping[str, Any]) -> Desired:
    """What a module's arguments ask for.

    Raises InvalidInput.
    """
    if params["retention_days"] < 1:
        raise InvalidInput("retention_days must be 1 or more.")
    return Desired(
        cluster=params["cluster"],
        node=params["node"],
        sources=unpack(params["sources"]),
        database=database.checked(params["database"]),
        password=params["password"] or passfile_password(params["passfile"]),
        retention_days=params["retention_days"],
        thresholds=checked_thresholds(params["thresholds"]),
        extra_collectors=tuple(
            collectors.parse(text, f"collector {place}") for place, text in enumerate(params["collectors"], 1)
        ),
        access=Access(params["os_user"], tuple(params["peers"])),
    )


def passfile_password(path: str | None) -> str | None:
    """The password in a file of libpq's format that pg_ops_agent wrote; None where there is no such file.

    Raises HostFailed.
    """
    present = files.read(path) if path else None
    return credentials.password(present.content.decode()) if present else None


def checked_thresholds(given: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Thresholds as numbers.

    Raises InvalidInput.
    """
    checked: dict[str, dict[str, float | None]] = {}
    for name, values in given.items():
        if not isinstance(values, dict) or set(values) - {"warning", "critical"}:
            raise InvalidInput(f"The thresholds of {name} must be a mapping with 'warning' and 'critical'.")
        try:
            checked[name] = {key: None if value is None else float(value) for key, value in values.items()}
        except (TypeError, ValueError):
            raise InvalidInput(f"The thresholds of {name} must be numbers.") from None
    return checked


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_schema returns."""
    if params["state"] == "absent":
        return _removed(target, params, check_mode)
    wanted = desired(params)
    networks = access.resolve(params["peers"])
    with locked(target) as session:
        current = read(session, wanted.database, wanted.node, with_access=True)
        made = plan(current, wanted, session.scram, networks)
        if not check_mode:
            apply(session, current, wanted, made)
        elif params["rehearse"] and current.contents.exists:
            with connect(replace(target, database=wanted.database, lock_timeout=5.0)) as inside:
                fill(inside, made, rehearse=True)
        return made.plan.result()


def _removed(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    name = database.checked(params["database"])
    with locked(target) as session:
        current = read(session, name, "", with_access=True)
        made = removal(current, params["purge"])
        if not check_mode:
            remove(session, current, name, made)
        return made.plan.result()
