# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alerts on the terminal: what fires, what became of one, and who looks after it."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from .. import terminal
from ..errors import InvalidInput
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..metrics import collectors
from ..metrics.job import installed
from ..server.session import Session, connect
from . import prometheus, stored

COLUMNS = """
SELECT a.alert_id::text AS alert, a.severity_level AS severity, a.rule_name AS rule, a.alert_status AS status, a.node,
       a.additional_context - 'node' AS labels, a.metric_name AS metric, a.metric_value AS value,
       a.condition_operator AS operator, a.threshold_value AS threshold, a.started_at::timestamptz(0) AS started_at,
       a.fired_at::timestamptz(0) AS fired_at, a.ended_at::timestamptz(0) AS ended_at, a.reason, a.flapping,
       a.acknowledged_by, a.acknowledged_at::timestamptz(0) AS acknowledged_at, a.acknowledgement
FROM pgops.alert_history AS a
"""
OPEN = f"""{COLUMNS}
WHERE (a.ended_at IS NULL AND a.fired_at IS NOT NULL)
   OR (%s AND (a.ended_at IS NULL OR (a.fired_at IS NOT NULL AND a.ended_at > now() - interval '1 day')))
ORDER BY a.ended_at IS NOT NULL, a.fired_at IS NULL, a.severity_level = 'critical' DESC,
    a.severity_level = 'warning' DESC, a.started_at, a.alert_id
LIMIT 1000
"""
ONE = f"{COLUMNS} WHERE a.alert_id = %s"
TRANSITIONS = """
SELECT t.changed_at::timestamptz(0) AS changed_at, t.from_status, t.to_status, t.metric_value
FROM pgops.alert_transitions AS t WHERE t.alert_id = %s ORDER BY t.changed_at
"""
ACKNOWLEDGE = "SELECT pgops.acknowledge_alert_as(%s, %s, %s)"
STATUS = "SELECT extract(EPOCH FROM s.age)::float8 AS age, s.rules_enabled FROM pgops.alerting_status AS s"
EXPECTED = "SELECT s.expected_standbys FROM pgops.alerting_status AS s"

LATE = 180
"""Seconds after which it is said that rules are not evaluated."""


def show(settings: Configuration, options: argparse.Namespace) -> dict[str, Any]:
    """Print the alerts that fire, or one; or acknowledge one. What is printed takes the place of the log's line.

    Raises InvalidInput for an alert that there is not, and on a standby, where none can be acknowledged.
    """
    chosen = options.history if options.acknowledge is None else options.acknowledge
    alert = _identified(chosen) if chosen is not None else ""
    with connect(endpoints.agent(settings, "alerts")) as session:
        if options.acknowledge:
            lines = _acknowledged(session, alert, options.note)
        elif alert:
            lines = history(_one(session, alert), session.rows(TRANSITIONS, [alert]))
        else:
            lines = [*listing(session.rows(OPEN, [options.all])), *unevaluated(session)]
    terminal.say(sys.stdout, *lines)
    return {"printed": True, "errors": []}


def for_prometheus(settings: Configuration, layout: Layout) -> dict[str, Any]:
    """Print the cluster's rules as a rule file of Prometheus; a standby has them as well."""
    metrics = collectors.metrics(installed(layout))
    with connect(endpoints.agent(settings, "alerts")) as session:
        found = [rule for _source, rule in stored.rules(session, "alert_rules")]
        expected = session.value(EXPECTED)
    sys.stdout.write(prometheus.rule_file(found, prometheus.Known(settings.cluster, metrics, expected)))
    sys.stdout.flush()
    return {"printed": True, "errors": []}


def _identified(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidInput(f"'{text}' does not identify an alert.", "`pgops alerts` shows their UUIDs.") from None


def _one(session: Session, alert: str) -> dict[str, Any]:
    found = session.row(ONE, [alert])
    if found is None:
        raise InvalidInput(f"There is no alert {alert}.", "`pgops alerts --all` shows those of the last day.")
    return found


def _acknowledged(session: Session, alert: str, note: str | None) -> list[str]:
    if session.in_recovery:
        raise InvalidInput("This server is a standby.", "Acknowledge alerts on the primary.")
    first = session.value(ACKNOWLEDGE, [alert, person(), note or None])
    found = _one(session, alert)
    if first:
        return [f"{found['rule']} is acknowledged by {found['acknowledged_by']} until it ends."]
    return [f"{found['acknowledged_by']} has acknowledged {found['rule']} already, at {found['acknowledged_at']}."]


def person() -> str:
    """Who sits at the terminal, also behind sudo."""
    try:
        uid = os.stat(sys.stdin.fileno()).st_uid if sys.stdin.isatty() else os.getuid()
        return os.environ.get("SUDO_USER") or pwd.getpwuid(uid).pw_name
    except (KeyError, OSError, ValueError):
        return str(os.getuid())


def unevaluated(session: Session) -> list[str]:
    """What a list without alerts must not hide."""
    found = session.rows(STATUS)[0]
    if not found["rules_enabled"]:
        return ["No rule is enabled: set pgops_alerting to true and run site.yml (docs/alerts.md)."]
    if found["age"] is None:
        return ["Rules have never been evaluated: the job alerts has to run on the primary."]
    if found["age"] > LATE:
        return [f"Rules were last evaluated {found['age']:.0f} s ago: see the log of the job alerts on the primary."]
    return []


def listing(alerts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each alert. Pure."""
    if not alerts:
        return ["No alert fires."]
    return [
        f"{one['alert']}  {one['severity']:<8}  {one['status']:<10}  {one['fired_at'] or one['started_at']}  "
        f"{subject(one)}  {condition(one)}{_marks(one)}"
        for one in alerts
    ]


def history(alert: Mapping[str, Any], transitions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is known of an alert, and all that became of it. Pure."""
    lines = [f"{alert['severity']} {subject(alert)}", f"{alert['metric']}: {condition(alert)}{_marks(alert)}"]
    if alert["acknowledgement"]:
        lines.append(f"note of {alert['acknowledged_by']}: {alert['acknowledgement']}")
    for one in transitions:
        value = "" if one["metric_value"] is None else f"  {one['metric_value']:g}"
        lines.append(f"{one['changed_at']}  {one['from_status']} -> {one['to_status']}{value}")
    if alert["reason"]:
        lines.append(alert["reason"])
    return lines


def subject(alert: Mapping[str, Any]) -> str:
    """The rule, the node, and the other labels."""
    labels = ", ".join(f"{name} {value}" for name, value in sorted(alert["labels"].items()))
    return f"{alert['rule']} on {alert['node']}" + (f" ({labels})" if labels else "")


def condition(alert: Mapping[str, Any]) -> str:
    """The value when it fired, and what it is compared with."""
    value = "unknown" if alert["value"] is None else f"{alert['value']:g}"
    return f"{value} {alert['operator']} {alert['threshold']:g}"


def _marks(alert: Mapping[str, Any]) -> str:
    marks = ["flapping"] if alert["flapping"] else []
    marks += [f"acknowledged by {alert['acknowledged_by']}"] if alert["acknowledged_by"] else []
    return f"  [{', '.join(marks)}]" if marks else ""
