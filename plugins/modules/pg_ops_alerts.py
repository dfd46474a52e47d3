#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's alert rules."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_alerts
short_description: Alert rules in the ops database
version_added: 0.1.0
description:
  - Installs the alert rules of this collection and those of O(rules) in the ops database, and removes those that are
    no longer declared. The job C(alerts) of the agent evaluates them each minute.
  - Rules that users have written or changed in SQL (C(pgops.alert_rules)) stay as they are; RV(user_rules) names
    them.
  - On a standby nothing is changed, since the rules are replicated. RV(skipped_reason) says so.
author:
  - The pgops.fleet contributors (@pgops)
options:
  state:
    description: V(absent) removes all rules but those of users. Their alerts end, and their history stays.
    type: str
    choices: [present, absent]
    default: present
  database:
    description: Name of the ops database.
    type: str
    default: pgops
  remote:
    description: Whether the instance is one whose agent is on another host; then no superuser is needed.
    type: bool
    default: false
  rules:
    description:
      - Rules of your own, and changes of those that are shipped.
      - A rule with the name of a shipped one changes what it says of it, at its O(rules[].severity), or without one
        at all severities that there are.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the rule; unique together with its severity.
        type: str
        required: true
      severity:
        description: How severe it is. New rules are V(warning) unless they say otherwise.
        type: str
        choices: [info, warning, critical]
      metric:
        description: Name of the metric, of a shipped or your own collector. New rules need one.
        type: str
      operator:
        description: How the value compares with the threshold where the condition holds. New rules need one.
        type: str
        choices: [">", "<", ">=", "<=", "=", "!="]
      threshold:
        description: What the value is compared with. New rules need one.
        type: float
      clear_threshold:
        description: What the value must fall short of, with the same operator, for the alert to end.
        type: float
      evaluation:
        description:
          - What is compared, of the samples in the window. V(last) is the newest value, V(avg), V(min) and V(max) are
            of all of them.
          - V(rate) is how much a counter grew by a second, V(increase) how much in all.
        type: str
        choices: [last, avg, min, max, rate, increase]
      window:
        description: Length of the window, in seconds or as C(5m), C(2h), C(1d); 5 minutes unless it is said.
        type: str
      lasts:
        description: How long the condition has to hold before the alert fires; a minute unless it is said.
        type: str
      keep_firing_for:
        description: How long the condition must not hold before the alert ends.
        type: str
      missing_data:
        description: What follows where nothing is measured. V(keep) leaves the alert as it is.
        type: str
        choices: [keep, fire, resolve]
      flapping_after:
        description: With so many alerts within an hour one ends only after a quarter of an hour; 0 for never.
        type: int
      labels:
        description: Labels that a series must have, such as C(database).
        type: dict
      channels:
        description: Names of channels.
        type: list
        elements: str
      text:
        description: >-
          What is told, with C({metric_value}), C({threshold_value}) and the labels of the series, such as C({node}).
        type: str
      enabled:
        description: Whether the rule is evaluated.
        type: bool
  capabilities:
    description: Those that are on of V(backup) and V(statements). Rules that are shipped for others are disabled.
    type: list
    elements: str
    default: []
  expected_standbys:
    description: >-
      How many standbys should stream in the cluster, those that stream from a standby among them. Without it no rule
      looks at that.
    type: int
  retention_days:
    description: How many days alerts are kept after they ended.
    type: int
    default: 400
  backtest_days:
    description: >-
      In check mode, each rule that would be created or changed is tried on the samples of so many days, for half a
      minute in all; 0 does not. The diff shows what it would have done.
    type: float
    default: 7
extends_documentation_fragment:
  - pgops.fleet.attributes
  - pgops.fleet.connection
seealso:
  - module: pgops.fleet.pg_ops_schema
"""

EXAMPLES = r"""
- name: Change two of the rules, and add one
  pgops.fleet.pg_ops_alerts:
    rules:
      - {name: connections, severity: warning, threshold: 70}
      - {name: cache_hit_ratio, enabled: false}
      - name: orders_waiting
        metric: orders_waiting        # of a collector in pgops_collectors
        operator: ">"
        threshold: 500
        clear_threshold: 300
        lasts: 10m
        text: "{metric_value} orders wait in {database}."
  become: true
"""

RETURN = r"""
changes:
  description: The changes, made or predicted, in order.
  returned: success
  type: list
  elements: str
  sample: [create alert rule orders_waiting (warning)]
prediction:
  description:
    - The same as data, with the state before and after each change.
    - The diff has one line for each thing that is created or removed, and both states of each change.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(update) or V(remove).
      type: str
    subject:
      description: The thing that is changed, as in RV(changes).
      type: str
    before:
      description: State before the change, text or a mapping; null if it did not exist.
      type: raw
    after:
      description: State after the change, in the same form; null if it no longer exists.
      type: raw
  sample:
    - action: update
      subject: alert rule connections (warning)
      before: {threshold: 80.0, source: shipped}
      after: {threshold: 70.0, source: inventory}
user_rules:
  description: Rules that users have written or changed in SQL, and that this module leaves as they are.
  returned: success
  type: list
  elements: str
  sample: [night_batch (info)]
backtests:
  description: >-
    What each rule that would be created or changed would have done with the samples that are stored. Data that is
    missing counts as the end of an alert.
  returned: success; empty but in check mode
  type: list
  elements: dict
  contains:
    rule:
      description: The rule and its severity.
      type: str
    days:
      description: How many days were looked at.
      type: float
    fired:
      description: How often it would have fired, over all series.
      type: int
    seconds:
      description: How long alerts would have been firing, added up.
      type: float
    series:
      description: The labels of the series for which it would have fired, those with most first.
      type: list
      elements: str
    error:
      description: Why it could not be tried; empty if it was.
      type: str
  sample:
    - {rule: orders_waiting (warning), days: 7, fired: 3, seconds: 840, series: ["db1/17-main, shop"], error: ""}
skipped_reason:
  description: Reason why nothing was changed.
  returned: on a standby
  type: str
predictable:
  description: Whether check mode could know what a run would change.
  returned: success
  type: bool
  sample: true
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: invalid_input
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

RULE = {
    "name": {"type": "str", "required": True},
    "severity": {"type": "str", "choices": ["info", "warning", "critical"]},
    "metric": {"type": "str"},
    "operator": {"type": "str", "choices": [">", "<", ">=", "<=", "=", "!="]},
    "threshold": {"type": "float"},
    "clear_threshold": {"type": "float"},
    "evaluation": {"type": "str", "choices": ["last", "avg", "min", "max", "rate", "increase"]},
    "window": {"type": "str"},
    "lasts": {"type": "str"},
    "keep_firing_for": {"type": "str"},
    "missing_data": {"type": "str", "choices": ["keep", "fire", "resolve"]},
    "flapping_after": {"type": "int"},
    "labels": {"type": "dict"},
    "channels": {"type": "list", "elements": "str"},
    "text": {"type": "str"},
    "enabled": {"type": "bool"},
}
SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "database": {"type": "str", "default": "pgops"},
    "remote": {"type": "bool", "default": False},
    "rules": {"type": "list", "elements": "dict", "default": [], "options": RULE},
    "capabilities": {"type": "list", "elements": "str", "default": []},
    "expected_standbys": {"type": "int"},
    "retention_days": {"type": "int", "default": 400},
    "backtest_days": {"type": "float", "default": 7},
    **arguments.CONNECTION,
}


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
