#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's alert rules."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_alerts
short_description: Alert rules, channels and maintenance windows of an ops database
version_added: 0.1.0
description:
  - Installs the alert rules of this collection and those of O(rules) in the ops database, and removes those that are
    no longer declared. The job C(alerts) of the agent evaluates them each minute.
  - Declares who is told of alerts (O(channels)), and when nobody is (O(silences), O(maintenance)). What is no longer
    declared is removed.
  - Rules that users have written or changed in SQL (C(pgops.alert_rules)) stay as they are; RV(user_rules) names
    them. Channels and silences that they made in SQL stay as well.
  - The addresses of channels are secrets. They are written into a file on the host that only the agent's user can
    read, C(channels.json), and shown nowhere. Channels that somebody else has written into that file stay.
  - On a standby only that file is changed, since all else is replicated. RV(skipped_reason) says so.
author:
  - The pgops.fleet contributors (@pgops)
options:
  state:
    description: >-
      V(absent) removes all rules, channels, silences and addresses but those of users. Alerts end, and their history
      stays.
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
        description: >-
          Names of the channels that are told, of O(channels) or of a user's. Without any, those that have
          O(channels[].default) are.
        type: list
        elements: str
      text:
        description: >-
          What is told, with C({metric_value}), C({threshold_value}) and the labels of the series, such as C({node}).
        type: str
      enabled:
        description: Whether the rule is evaluated.
        type: bool
  channels:
    description: Who is told of alerts. They are the cluster's, and the same for each host that has a hand in it.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the channel, of letters, digits, C(.), C(_) and C(-).
        type: str
        required: true
      kind:
        description:
          - How its O(addresses) are told, by Apprise, or as an Alertmanager.
          - A V(heartbeat) is told no alerts. The job C(watch) calls it each minute in which all is well with itself,
            so that a service notices if the host is gone. Of its other options none has a meaning.
        type: str
        choices: [apprise, alertmanager, heartbeat]
        default: apprise
      default:
        description: Whether it is for rules that name no channel.
        type: bool
        default: true
      severities:
        description: The severities of the alerts that it is for.
        type: list
        elements: str
        choices: [info, warning, critical]
        default: [info, warning, critical]
      labels:
        description: >-
          Labels that an alert must have to be for it, those of its series, C(rule_name), C(severity), C(metric),
          C(cluster) and C(node).
        type: dict
        default: {}
      send_resolved:
        description: Whether it is told that an alert has ended.
        type: bool
        default: true
      group_interval:
        description: The least time between two messages about a rule and a cluster, in seconds or as C(5m).
        type: str
        default: 5m
      repeat_interval:
        description: After what time it is told again of what still fires and nobody has acknowledged.
        type: str
        default: 4h
      fallback:
        description: Name of a channel that is told as well what this one cannot be told.
        type: str
      fallback_after:
        description: After how many failed attempts.
        type: int
        default: 3
      attempts:
        description: After how many failed attempts a message is given up.
        type: int
        default: 12
      enabled:
        description: Whether it is told anything.
        type: bool
        default: true
  addresses:
    description:
      - The addresses of O(channels), as a mapping of their names to mappings of the names of targets to URLs. Each
        target is told by itself.
      - Those of Apprise are its URLs, such as V(mailto://...) and V(slack://...), and are checked where Apprise is
        installed for the Python that Ansible uses; those of an Alertmanager begin with V(http://) or V(https://).
      - Set them on the hosts that send. C(pgops notify --test CHANNEL) tries a channel there.
    type: raw
    default: {}
  silences:
    description: Alerts that nobody is told of, from a time to another one.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, unique among silences and maintenance windows.
        type: str
        required: true
      labels:
        description: >-
          Labels that an alert must have, all of them, those of its series, C(rule_name), C(severity), C(metric),
          C(cluster) and C(node).
        type: dict
        required: true
      starts:
        description: From when on, as C(2026-12-24 18:00) by the clock of the time zone, or with an offset of its own.
        type: str
      ends:
        description: Until when. A silence needs one, and so does a window that does not recur.
        type: str
      time_zone:
        description: Name of a time zone that the server knows (C(pg_timezone_names)).
        type: str
        default: UTC
      comment:
        description: What people read of it; the name unless it is said.
        type: str
  maintenance:
    description:
      - Windows in which alerts are expected and nobody is told of them, once, or again and again with
        O(maintenance[].start_time) and O(maintenance[].duration).
      - What still fires afterwards is told then.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, unique among silences and maintenance windows.
        type: str
        required: true
      labels:
        description: >-
          Labels that an alert must have, all of them, those of its series, C(rule_name), C(severity), C(metric),
          C(cluster) and C(node).
        type: dict
        required: true
      starts:
        description: From when on, as C(2026-12-24 18:00) by the clock of the time zone, or with an offset of its own.
        type: str
      ends:
        description: Until when. A silence needs one, and so does a window that does not recur.
        type: str
      time_zone:
        description: Name of a time zone that the server knows (C(pg_timezone_names)).
        type: str
        default: UTC
      comment:
        description: What people read of it; the name unless it is said.
        type: str
      weekdays:
        description: Days of the week on which it opens, C(mon) to C(sun) or V(1) to V(7); all unless they are said.
        type: list
        elements: str
      days_of_month:
        description: >-
          The days of the month on which it opens, if they are one of the O(maintenance[].weekdays) too; 1 to 7 and
          C(sun) make the first Sunday.
        type: list
        elements: int
      start_time:
        description: >-
          When it opens by the clock of its time zone, also in nights in which that is changed, such as V(22:00).
        type: str
      duration:
        description: For how long it stays open, in seconds or as C(2h), a minute to 7 days.
        type: str
  instance:
    description: Name of the instance whose agent sends to the O(addresses). Without one no file is written.
    type: str
    default: ""
  user:
    description: The operating system's user of the agent.
    type: str
    default: pgops
  prefix:
    description: Directory below which the agent is installed.
    type: path
    default: /
  cluster:
    description: Name of the cluster, for RV(prometheus_rules). Without it they are not made.
    type: str
    default: ""
  capabilities:
    description: >-
      Those that are on of V(backup), V(recovery) (drills) and V(statements). Rules that are shipped for others are
      disabled.
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

- name: Tell people, but not on Sunday mornings
  pgops.fleet.pg_ops_alerts:
    instance: 17-main
    channels:
      - name: desk
      - name: pager
        severities: [critical]
        fallback: desk
    addresses:
      desk:
        mail: "mailtos://{{ vault_mail }}@smtp.example.com?to=dba@example.com"
      pager:
        slack: "slack://{{ vault_slack }}/#db"
    maintenance:
      - name: patches
        labels: {cluster: orders}
        weekdays: [sun]
        start_time: "02:00"
        duration: 2h
        time_zone: Europe/Berlin
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
prometheus_rules:
  description:
    - With O(cluster), all rules that are enabled, those of users too, as a rule file of Prometheus on what
      C(pgops export) writes. Those that Prometheus cannot evaluate are named in a comment.
    - Empty on a standby, since its primary's are the same.
  returned: success
  type: str
  sample: "groups: []"
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
SEVERITIES = ["info", "warning", "critical"]
CHANNEL = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["apprise", "alertmanager", "heartbeat"], "default": "apprise"},
    "default": {"type": "bool", "default": True},
    "severities": {"type": "list", "elements": "str", "choices": SEVERITIES, "default": SEVERITIES},
    "labels": {"type": "dict", "default": {}},
    "send_resolved": {"type": "bool", "default": True},
    "group_interval": {"type": "str", "default": "5m"},
    "repeat_interval": {"type": "str", "default": "4h"},
    "fallback": {"type": "str"},
    "fallback_after": {"type": "int", "default": 3},
    "attempts": {"type": "int", "default": 12},
    "enabled": {"type": "bool", "default": True},
}
SILENCE = {
    "name": {"type": "str", "required": True},
    "labels": {"type": "dict", "required": True},
    "starts": {"type": "str"},
    "ends": {"type": "str"},
    "time_zone": {"type": "str", "default": "UTC"},
    "comment": {"type": "str"},
}
MAINTENANCE = {
    **SILENCE,
    "weekdays": {"type": "list", "elements": "str"},
    "days_of_month": {"type": "list", "elements": "int"},
    "start_time": {"type": "str"},
    "duration": {"type": "str"},
}
SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "database": {"type": "str", "default": "pgops"},
    "remote": {"type": "bool", "default": False},
    "rules": {"type": "list", "elements": "dict", "default": [], "options": RULE},
    "channels": {"type": "list", "elements": "dict", "default": [], "options": CHANNEL},
    "addresses": {"type": "raw", "default": {}, "no_log": True},
    "silences": {"type": "list", "elements": "dict", "default": [], "options": SILENCE},
    "maintenance": {"type": "list", "elements": "dict", "default": [], "options": MAINTENANCE},
    "instance": {"type": "str", "default": ""},
    "user": {"type": "str", "default": "pgops"},
    "prefix": {"type": "path", "default": "/"},
    "cluster": {"type": "str", "default": ""},
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
