# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alerting as it is declared, in the ops database: the rules that are shipped and those of the inventory, channels,
silences and maintenance windows; a user's own stay. And on the host the addresses of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..agent.declared import primary_group
from ..converge import read_plan_apply
from ..errors import Conflict, InvalidInput
from ..host import files
from ..instance.layout import Layout
from ..metrics import collectors
from ..plan import HostChange, Plan, changes, difference
from ..server import foreign, guard, ownership, rows
from ..server.changes import Statements, apply_together
from ..server.locking import locked
from ..server.session import Session, connect, statement
from ..server.target import Target
from ..sources import Sources, below, gather
from . import addresses, prometheus, routing, rules, stored, windows
from .backtest import Backtest, backtests
from .routing import Route
from .rules import Key, Rule
from .windows import Window

NEEDED = "alert rules cannot be changed"
ON_STANDBY = "standby: rules, channels and silences are replicated from its primary"
USERS = "user"
"""The source of rules that users have written, or changed, in SQL."""

TABLES = ("alert_rule", "collector", "metric", "notification_channel", "setting", "silence")

THERE = "SELECT to_regclass('pgops.alert_rule') IS NOT NULL"
METRICS = """
SELECT ARRAY(SELECT m.metric_name FROM pgops.metric AS m UNION SELECT unnest(c.metrics) FROM pgops.collector AS c)
"""
SETTINGS = "SELECT s.name, s.value FROM pgops.setting AS s WHERE s.name = ANY (%s)"
RETENTION, STANDBYS = "alert_retention_days", "expected_standbys"


@dataclass(frozen=True)
class Current:
    """The rules that there are, with their sources; all empty where there is no schema (``exists``). ``settings`` are
    those of alerting, ``windows`` the inventory's silences and maintenance windows."""

    exists: bool = False
    rules: Mapping[Key, Rule] = field(default_factory=dict)
    sources: Mapping[Key, str] = field(default_factory=dict)
    metrics: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    channels: routing.Present = field(default_factory=routing.Present)
    windows: Mapping[str, Window] = field(default_factory=dict)

    def of_user(self, key: Key) -> bool:
        """Whether a rule is one that a user wrote or changed."""
        return self.sources.get(key) == USERS


@dataclass(frozen=True)
class Desired:
    """The rules that shall be there besides those of users, with their sources, ``shipped`` or ``inventory``; the
    settings of alerting, None for those that are not to be set; channels, silences and maintenance windows of the
    inventory."""

    rules: Mapping[Key, Rule] = field(default_factory=dict)
    sources: Mapping[Key, str] = field(default_factory=dict)
    settings: Mapping[str, str | None] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)


# --- planning


def desired(params: Mapping[str, Any]) -> Desired:
    """What a module's arguments ask for.

    Raises InvalidInput.
    """
    if not 1 <= params["retention_days"] <= 36600:
        raise InvalidInput("retention_days must be 1 to 36600.")
    expected = params["expected_standbys"]
    if expected is not None and expected < 0:
        raise InvalidInput("expected_standbys must be 0 or more.")
    if params["state"] == "absent":
        return Desired(settings={RETENTION: None, STANDBYS: None})
    shipped = rules.shipped(params["capabilities"])
    own = rules.declared(params["rules"], shipped)
    return Desired(
        {**shipped, **own},
        {**dict.fromkeys(shipped, "shipped"), **dict.fromkeys(own, "inventory")},
        {RETENTION: str(params["retention_days"]), STANDBYS: None if expected is None else str(expected)},
        routing.declared(params["channels"]),
        windows.declared(params["silences"], params["maintenance"]),
    )


def file(params: Mapping[str, Any], routes: Mapping[str, Route]) -> addresses.Wanted | None:
    """What a module's arguments ask for of the host's file of addresses; None where they name no instance.

    Raises InvalidInput.
    """
    absent = params["state"] == "absent"
    found = {} if absent else addresses.declared(params["addresses"], routes)
    if not params["instance"]:
        if found:
            raise InvalidInput("There are addresses, and no instance whose agent sends to them.", "Set instance.")
        return None
    layout = Layout(params["instance"], params["prefix"])
    if layout.prefix != "/":
        return addresses.Wanted(layout, found)
    return addresses.Wanted(layout, found, params["user"], primary_group(params["user"]))


def plan(current: Current, wanted: Desired) -> Plan[Statements]:
    """What brings the ops database to what is wanted. A rule that a user has written or changed in SQL stays as it
    is, and so do their channels and silences."""
    return changes(
        _rules(current, wanted),
        routing.plan(current.channels, wanted.routes),
        windows.plan(current.windows, wanted.windows),
        _settings(current.settings, wanted.settings),
        warnings=(*_overruled(current, wanted), *routing.warnings(wanted.routes, current.channels)),
    )


def _rules(current: Current, wanted: Desired) -> tuple[Statements, ...]:
    made: tuple[Statements, ...] = ()
    for key, rule in wanted.rules.items():
        if not current.of_user(key):
            made += _change(current, rule, wanted.sources[key])
    for key in sorted(set(current.rules) - set(wanted.rules)):
        if not current.of_user(key):
            gone = statement("DELETE FROM pgops.alert_rule WHERE rule_name = {} AND severity_level = {}", *key)
            made += (Statements(_subject(key), _shown(current.rules[key], current.sources[key]), None, (gone,)),)
    return made


def _change(current: Current, rule: Rule, source: str) -> tuple[Statements, ...]:
    before = current.rules.get(rule.key)
    row = {**rule.row(), "source": source, "updated_at": statement("now()")}
    written = rows.upsert("alert_rule", ["rule_name", "severity_level"], row)
    shown = _shown(before, current.sources[rule.key]) if before else None
    return difference(Statements(_subject(rule.key), shown, _shown(rule, source), (written,)))


def _shown(rule: Rule, source: str) -> dict[str, Any]:
    return {**rule.shown(), "source": source}


def _subject(key: Key) -> str:
    return f"alert rule {key[0]} ({key[1]})"


def _settings(current: Mapping[str, str], wanted: Mapping[str, str | None]) -> tuple[Statements, ...]:
    made: tuple[Statements, ...] = ()
    for name, value in wanted.items():
        if value is None:
            written = statement("DELETE FROM pgops.setting WHERE name = {}", name)
        else:
            written = rows.upsert("setting", ["name"], {"name": name, "value": value})
        made += difference(Statements(f"setting {name}", current.get(name), value, (written,)))
    return made


def _overruled(current: Current, wanted: Desired) -> tuple[str, ...]:
    """Warnings of rules of the inventory that are not put into place, since a user has changed them."""
    names = [
        f"{name} ({severity})"
        for name, severity in wanted.rules
        if wanted.sources[name, severity] == "inventory" and current.of_user((name, severity))
    ]
    if not names:
        return ()
    told = f"Alert rules of the inventory that a user has changed in SQL stay as they are there: {', '.join(names)}."
    return (f"{told} To have those of the inventory, delete them from pgops.alert_rules and run this again.",)


# --- reading and applying


def read(inside: Session) -> Current:
    """The present state, from a session in the ops database."""
    found = stored.rules(inside, "alert_rule")
    return Current(
        exists=True,
        rules={rule.key: rule for _source, rule in found},
        sources={rule.key: source for source, rule in found},
        metrics=frozenset(inside.value(METRICS)),
        settings={row["name"]: row["value"] for row in inside.rows(SETTINGS, [[RETENTION, STANDBYS]])},
        channels=routing.Present.of(inside.rows(routing.CHANNELS)),
        windows=windows.present(inside.rows(windows.SILENCES)),
    )


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_alerts returns.

    Raises InvalidInput, also for rules on metrics that nobody measures, and for names that stand for nothing.
    """
    wanted = desired(params)
    host = file(params, wanted.routes)
    # Looked at before anything is changed.
    if host and _on_host(host, check_mode=True):
        if not check_mode:  # a run that is predicted may install the agent
            addresses.refuse_without_agent(host)
        addresses.refuse_unknown_services(host.channels)
    planned, found, tried = _in_database(target, params, wanted, check_mode)
    written = "" if planned.skipped_reason else _for_prometheus(params, found, wanted)
    return _result(planned + _on_host(host, check_mode), found, tried, written)


def _in_database(
    target: Target, params: Mapping[str, Any], wanted: Desired, check_mode: bool
) -> tuple[Plan[Statements], Current, Sequence[Backtest]]:
    """The plan for the ops database, what was there, and what new rules would have done."""
    name = ownership.checked(params["database"])
    found = Current()

    def review(current: Current, _planned: Plan[Statements]) -> None:
        nonlocal found
        found = current
        _refuse_unknown(current, wanted)

    with locked(target, NEEDED, superuser=not params["remote"], ops_database=name) as session:
        if session.in_recovery:
            return Plan[Statements](skipped_reason=ON_STANDBY), found, []
        wanted = replace(wanted, windows=windows.resolved(session, wanted.windows))
        inside = replace(session.target, database=name, lock_timeout=5.0)
        planned = read_plan_apply(
            read=lambda: _read(session, inside, absent=params["state"] == "absent" or check_mode),
            plan=lambda current: plan(current, wanted),
            apply=lambda _current, made: _apply(inside, made),
            check_mode=check_mode,
            review=review,
        )
    return planned, found, _tried(planned, wanted, found, inside, params["backtest_days"]) if check_mode else []


def _refuse_unknown(current: Current, wanted: Desired) -> None:
    """Refuse names that stand for nothing. What is not there yet cannot be known: metrics without a schema."""
    named = {rule.name: rule.channels for rule in wanted.rules.values() if rule.channels}
    routing.refuse_unknown(wanted.routes, current.channels.users, named)
    if current.exists:
        rules.refuse_unknown(wanted.rules, current.metrics)
        names = {name for name, _severity in {**current.rules, **wanted.rules}}
        windows.refuse_unknown(wanted.windows, names, current.metrics)


def _on_host(wanted: addresses.Wanted | None, check_mode: bool) -> Plan[HostChange]:
    """The plan for the file of addresses, which is carried out after that for the ops database: until then messages
    wait. The file is the host's, also of a standby's."""
    if wanted is None:
        return Plan()
    return read_plan_apply(
        read=lambda: addresses.read(wanted),
        plan=lambda present: changes(addresses.plan(wanted, present), warnings=addresses.overruled(wanted, present)),
        apply=lambda _present, made: _carry_out(made),
        check_mode=check_mode,
        lock=lambda: files.exclusive(wanted.layout.lock, seconds=60),
    )


def _carry_out(made: Plan[HostChange]) -> None:
    for change in made:
        change.apply()


def _read(session: Session, inside: Target, absent: bool) -> Current:
    """The present state; in check mode a database that does not exist is one that the run is about to make."""
    if ownership.is_ours(ownership.ops_database(session, inside.database)):
        with connect(inside) as found:
            if found.value(THERE):
                with guard.guarded(found, TABLES, guard.READING, foreign.refuse_code), ownership.as_owner(found):
                    return read(found)
    if absent:
        return Current()
    raise Conflict(
        f"Database {inside.database} has no table of alert rules.",
        "Run pg_ops_schema (the role pgops_monitoring) first.",
    )


def _apply(inside: Target, made: Plan[Statements]) -> None:
    with (
        connect(inside) as session,
        guard.guarded(session, TABLES, guard.WRITING, foreign.refuse_code),
        ownership.as_owner(session),
    ):
        apply_together(session, made.changes)


def _tried(
    planned: Plan[Statements], wanted: Desired, found: Current, inside: Target, days: float
) -> Sequence[Backtest]:
    """What those rules would have done lately that a run would create or change."""
    if not days or not found.exists:
        return []
    touched = {change.subject for change in planned if change.after is not None}
    return backtests(inside, [rule for key, rule in wanted.rules.items() if _subject(key) in touched], days)


def _for_prometheus(params: Mapping[str, Any], found: Current, wanted: Desired) -> str:
    """The rule file of Prometheus, as the run leaves the rules; '' where the cluster is not named."""
    if not params["cluster"] or params["state"] == "absent":
        return ""
    users = {key: rule for key, rule in found.rules.items() if found.of_user(key)}
    own = Layout(params["instance"], params["prefix"]).collectors if params["instance"] else ""
    expected = params["expected_standbys"]
    known = prometheus.Known(params["cluster"], _metrics(params["sources"], own), expected)
    return prometheus.rule_file({**wanted.rules, **users}.values(), known)


def _metrics(sources: Sources, folder: str) -> dict[str, collectors.Metric]:
    """What the collection's collectors yield, and those that are installed in a directory."""
    texts = {**below(sources, "sql/collectors"), **(gather(folder, (".sql",)) if folder else {})}
    return collectors.metrics([collectors.parse(text, path) for path, text in texts.items()])


def _result(planned: Plan[Any], found: Current, tried: Sequence[Backtest], written: str) -> dict[str, Any]:
    result = planned.result(
        user_rules=[
            f"{name} ({severity})" for name, severity in sorted(found.rules) if found.of_user((name, severity))
        ],
        backtests=[one.data() for one in tried],
        prometheus_rules=written,
    )
    if tried:
        lines = "".join(f"{one.line}\n" for one in tried)
        result["diff"].append({"header": "backtest", "before": "", "after": lines})
    return result
