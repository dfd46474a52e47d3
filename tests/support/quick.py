# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shipped alert rules, as quick as they can be, and what fires of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploying import rule
from servers import Server

from pgops.alerting.rules import DEFAULTS

QUICK = {"lasts": "0", "keep_firing_for": "0", "flapping_after": 0}
FIRED = """
SELECT a.rule_name, a.severity_level, a.additional_context FROM pgops.alert_history AS a
WHERE a.alert_status = 'firing'
"""
Fired = list[tuple[str, str, dict[str, str]]]
"""What fires: the rule, its severity, and the labels of the series."""
STATE = """
SELECT DISTINCT a.severity_level FROM pgops.alert_history AS a
WHERE a.rule_name = %s AND a.alert_status = 'firing' AND a.additional_context @> %s::jsonb ORDER BY 1
"""


def declare(server: Server, lowered: Mapping[str, float], **params: Any) -> None:
    """All of them, with other thresholds for some."""
    rules: list[dict[str, Any]] = []
    for one in DEFAULTS:
        if not one.capability or one.capability in params.get("capabilities", ()):
            threshold = {"threshold": lowered[one.name]} if one.name in lowered else {}
            rules.append({"name": one.name, "severity": one.severity, **QUICK, **threshold})
    rule(server, rules=rules, **params)


def firing(server: Server, name: str, labels: str = "{}") -> list[str]:
    """Evaluate all; at which severities a rule fires, for series with some labels."""
    with server.connect("pgops") as session:
        session.execute("SELECT pgops.evaluate_alerts()")
        return [severity for (severity,) in session.execute(STATE.encode(), [name, labels]).fetchall()]


def fired(server: Server) -> Fired:
    """Evaluate all; what fires."""
    with server.connect("pgops") as session:
        session.execute("SELECT pgops.evaluate_alerts()")
        return session.execute(FIRED.encode()).fetchall()
