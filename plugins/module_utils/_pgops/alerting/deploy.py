# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The alert rules in the ops database: those that are shipped and those of the inventory; a user's own stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..converge import read_plan_apply
from ..errors import Conflict, InvalidInput
from ..plan import Plan, changes, difference
from ..server import foreign, guard, ownership, rows
from ..server.changes import Statements, apply_together
from ..server.locking import locked
from ..server.session import Session, connect, statement
from ..server.target import Target
from . import rules
from .backtest import Backtest, backtests
from .rules import Key, Rule

NEEDED = "alert rules cannot be changed"
ON_STANDBY = "standby: the rules are replicated from its primary"
USERS = "user"
"""The source of rules that users have written, or changed, in SQL."""

TABLES = ("alert_rule", "collector", "metric", "setting")

THERE = "SELECT to_regclass('pgops.alert_rule') IS NOT NULL"
RULES = """
SELECT r.rule_name AS name, r.metric_name AS metric, r.condition_operator AS operator, r.threshold_value AS threshold,
       r.severity_level AS severity, r.clear_threshold, r.evaluation,
       extract(EPOCH FROM r.evaluation_window)::float8 AS "window",
       extract(EPOCH FROM r.minimum_duration)::float8 AS lasts,
       extract(EPOCH FROM r.keep_firing_for)::float8 AS keep_firing_for,
       r.missing_data, r.flapping_after, r.labels, r.notification_channels AS channels,
       coalesce(r.notification_template, '') AS text, r.is_enabled AS enabled, r.source
FROM pgops.alert_rule AS r
"""
METRICS = """
SELECT ARRAY(SELECT m.metric_name FROM pgops.metric AS m UNION SELECT unnest(c.metrics) FROM pgops.collector AS c)
"""
SETTINGS = "SELECT s.name, s.value FROM pgops.setting AS s WHERE s.name = ANY (%s)"
RETENTION, STANDBYS = "alert_retention_days", "expected_standbys"


@dataclass(frozen=True)
class Current:
    """The rules that there are, with their sources; all empty where there is no schema (``exists``). ``settings`` are
    those of alerting."""

    exists: bool = False
    rules: Mapping[Key, Rule] = field(default_factory=dict)
    sources: Mapping[Key, str] = field(default_factory=dict)
    metrics: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)

    def of_user(self, key: Key) -> bool:
        """Whether a rule is one that a user wrote or changed."""
        return self.sources.get(key) == USERS


@dataclass(frozen=True)
class Desired:
    """The rules that shall be there besides those of users, with their sources, ``shipped`` or ``inventory``; and the
    settings of alerting, None for those that are not to be set."""

    rules: Mapping[Key, Rule] = field(default_factory=dict)
    sources: Mapping[Key, str] = field(default_factory=dict)
    settings: Mapping[str, str | None] = field(default_factory=dict)


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
    )


def plan(current: Current, wanted: Desired) -> Plan[Statements]:
    """What brings the rules to what is wanted. A rule that a user has written or changed in SQL stays as it is."""
    made: tuple[Statements, ...] = ()
    for key, rule in wanted.rules.items():
        if not current.of_user(key):
            made += _change(current, rule, wanted.sources[key])
    for key in sorted(set(current.rules) - set(wanted.rules)):
        if not current.of_user(key):
            gone = statement("DELETE FROM pgops.alert_rule WHERE rule_name = {} AND severity_level = {}", *key)
            made += (Statements(_subject(key), _shown(current.rules[key], current.sources[key]), None, (gone,)),)
    return changes(made, _settings(current.settings, wanted.settings), warnings=_overruled(current, wanted))


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
    found = [(row.pop("source"), Rule(**row)) for row in inside.rows(RULES)]
    return Current(
        exists=True,
        rules={rule.key: rule for _source, rule in found},
        sources={rule.key: source for source, rule in found},
        metrics=frozenset(inside.value(METRICS)),
        settings={row["name"]: row["value"] for row in inside.rows(SETTINGS, [[RETENTION, STANDBYS]])},
    )


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_alerts returns.

    Raises InvalidInput, also for rules on metrics that nobody measures.
    """
    name = ownership.checked(params["database"])
    wanted = desired(params)
    found = Current()

    def review(current: Current, _planned: Plan[Statements]) -> None:
        nonlocal found
        found = current
        if current.exists:
            rules.refuse_unknown(wanted.rules, current.metrics)

    with locked(target, NEEDED, superuser=not params["remote"], ops_database=name) as session:
        if session.in_recovery:
            return Plan[Statements](skipped_reason=ON_STANDBY).result(user_rules=[], backtests=[])
        inside = replace(session.target, database=name, lock_timeout=5.0)
        planned = read_plan_apply(
            read=lambda: _read(session, inside, absent=params["state"] == "absent" or check_mode),
            plan=lambda current: plan(current, wanted),
            apply=lambda _current, made: _apply(inside, made),
            check_mode=check_mode,
            review=review,
        )
    tried = _tried(planned, wanted, found, inside, params["backtest_days"]) if check_mode else []
    return _result(planned, found, tried)


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


def _result(planned: Plan[Statements], found: Current, tried: Sequence[Backtest]) -> dict[str, Any]:
    result = planned.result(
        user_rules=[
            f"{name} ({severity})" for name, severity in sorted(found.rules) if found.of_user((name, severity))
        ],
        backtests=[one.data() for one in tried],
    )
    if tried:
        lines = "".join(f"{one.line}\n" for one in tried)
        result["diff"].append({"header": "backtest", "before": "", "after": lines})
    return result
