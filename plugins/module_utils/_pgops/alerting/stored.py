# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alert rules as the ops database has them."""

from __future__ import annotations

from ..server.session import Session, identifier, statement
from .rules import Rule

RULES = """
SELECT r.rule_name AS name, r.metric_name AS metric, r.condition_operator AS operator, r.threshold_value AS threshold,
       r.severity_level AS severity, r.clear_threshold, r.evaluation,
       extract(EPOCH FROM r.evaluation_window)::float8 AS "window",
       extract(EPOCH FROM r.minimum_duration)::float8 AS lasts,
       extract(EPOCH FROM r.keep_firing_for)::float8 AS keep_firing_for,
       r.missing_data, r.flapping_after, r.labels, r.notification_channels AS channels,
       coalesce(r.notification_template, '') AS text, r.is_enabled AS enabled, r.source
FROM {} AS r
"""


def rules(session: Session, relation: str) -> list[tuple[str, Rule]]:
    """Each rule with its source, of the table ``alert_rule`` or the view ``alert_rules``, which has the same."""
    found = session.rows(statement(RULES, identifier("pgops", relation)))
    return [(row.pop("source"), Rule(**row)) for row in found]
