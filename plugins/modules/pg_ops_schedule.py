#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's jobs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_schedule
short_description: Schedule the recurring jobs of a host's instances
version_added: 0.1.0
description:
  - Schedules the complete set of the recurring jobs of instances, each a command of the agent C(pgops), started by
    systemd's timers or by cron. A job of an instance that is not in its O(instances[].jobs) is stopped and removed.
  - Every job has a time limit and, if declared, a delay that is the host's own and the same each time, so that
    the hosts of a fleet do not start at once.
  - Calendars are checked on the host before anything is written.
  - Units and files of other instances and of others are left alone.
  - Needs no connection to the server, except by the agent, with O(instances[].delivers_to).
author:
  - The pgops.fleet contributors (@pgops)
options:
  state:
    description:
      - V(present) makes the jobs those of O(instances).
      - V(absent) stops and removes all jobs of O(instances), whichever backend started them.
    type: str
    choices: [present, absent]
    default: present
  backend:
    description:
      - What starts the jobs. The jobs of the other backend are removed.
      - V(systemd) makes a service and a timer for each job, C(pgops-INSTANCE-JOB), and confines the job; what it
        prints goes to the journal. A run that still goes on is not started a second time.
      - V(cron) makes one file in C(/etc/cron.d); what a job prints goes to syslog.
      - V(none) leaves it to something else, for instance of a container, to start the commands in RV(jobs).
    type: str
    choices: [systemd, cron, none]
    default: systemd
  instances:
    description: The instances whose jobs are scheduled. Those of other instances stay as they are.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the instance; it stands in the names of units and files.
        type: str
        required: true
      delivers_to:
        description:
          - For a standby, the other nodes of its cluster as C(host:port), one of which takes its samples. If there
            are none, or addresses of this host itself, a warning says so.
          - The agent then collects once, and the module fails if nothing arrives, unless that has been proven for
            the agent's configuration as it is. Nothing is collected in check mode.
        type: list
        elements: str
      jobs:
        description: All recurring jobs of the instance; none removes all.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the job, of a-z, 0-9 and C(-).
            type: str
            required: true
          arguments:
            description: The subcommand of C(pgops) and its arguments. Never put a secret here.
            type: list
            elements: str
            required: true
          calendar:
            description:
              - When the job starts, as an C(OnCalendar) expression of systemd, in the host's time zone
                where it names none.
              - With O(backend=cron) in whole minutes, C([WEEKDAYS] [*-MONTHS-DAYS] [HOURS:MINUTES[:00]]) with V(*),
                lists as V(1,15), ranges as V(Mon..Fri) and steps as V(0/15), but not weekdays together with days of
                the month; or one of V(minutely), V(hourly), V(daily), V(weekly), V(monthly), V(quarterly),
                V(semiannually) and V(yearly).
            type: str
            required: true
          jitter:
            description: The most seconds that a start is delayed.
            type: int
            default: 0
          time_limit:
            description: Seconds after which a run is ended.
            type: int
            default: 300
          user:
            description: The operating system's user that the job runs as, which is never root.
            type: str
            default: pgops
          writable:
            description:
              - Absolute paths that the job may write to besides the instance's own state, for instance a repository.
              - systemd makes everything else read-only for the job; cron confines nothing.
            type: list
            elements: path
            default: []
          background:
            description:
              - Whether systemd gives the job, and what it starts, a small share of the processors, disks and memory.
            type: bool
            default: false
          network:
            description:
              - Whether the job, and what it starts, may use the network. systemd enforces it; cron does not.
            type: bool
            default: true
          enabled:
            description: V(false) is the same as not to declare the job.
            type: bool
            default: true
  prefix:
    description:
      - The directory below which the agent is installed. systemd and cron read only C(/etc), so another prefix
        than V(/) needs O(backend=none).
    type: path
    default: /
extends_documentation_fragment:
  - pgops.fleet.attributes
notes:
  - In check mode a missing user or cron daemon is a warning, since a task before this one may bring it; in a run
    it is an error.
seealso:
  - module: pgops.fleet.pg_ops_agent
"""

EXAMPLES = r"""
- name: Collect metrics every minute, and do the upkeep of the store every hour
  pgops.fleet.pg_ops_schedule:
    instances:
      - name: 17-main
        jobs:
          - name: collect
            arguments: [collect, --repeat]
            calendar: minutely
            jitter: 10
            time_limit: 58  # it stays for 56 seconds where something is collected more often than each minute
          - name: maintain
            arguments: [maintain]
            calendar: hourly
            jitter: 600
  become: true

- name: The same without systemd
  pgops.fleet.pg_ops_schedule:
    backend: cron
    instances:
      - name: 17-main
        jobs:
          - name: collect
            arguments: [collect, --repeat]
            calendar: minutely
            jitter: 10
            time_limit: 58
          - name: maintain
            arguments: [maintain]
            calendar: hourly
            jitter: 600
  become: true

- name: Remove all recurring jobs of the instance
  pgops.fleet.pg_ops_schedule:
    instances:
      - name: 17-main
    state: absent
  become: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be, in order.
  returned: success
  type: list
  elements: str
  sample: [create timer pgops-17-main-collect.timer]
prediction:
  description:
    - The same as data, with the state before and after each change, without secrets.
    - The diff has one line for each thing that is created or removed, and both states of each change.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(update), V(remove), or a word of its own like V(restart).
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
    - action: create
      subject: timer pgops-17-main-collect.timer
      before: null
      after: active
predictable:
  description: Always V(true); what check mode reports is what a run changes.
  returned: success
  type: bool
  sample: true
jobs:
  description: The jobs that are enabled, in the order in which they were declared; none with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    instance:
      description: Name of the instance.
      type: str
      sample: 17-main
    name:
      description: Name of the job.
      type: str
      sample: collect
    command:
      description: What is executed.
      type: list
      elements: str
      sample: [/usr/local/lib/pgops/current/bin/pgops, --instance, 17-main, --scheduled, collect, --repeat]
    user:
      description: The operating system's user that it runs as.
      type: str
      sample: pgops
    calendar:
      description: When it starts.
      type: str
      sample: minutely
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: invalid_input
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

JOB = {
    "name": {"type": "str", "required": True},
    "arguments": {"type": "list", "elements": "str", "required": True},
    "calendar": {"type": "str", "required": True},
    "jitter": {"type": "int", "default": 0},
    "time_limit": {"type": "int", "default": 300},
    "user": {"type": "str", "default": "pgops"},
    "writable": {"type": "list", "elements": "path", "default": []},
    "background": {"type": "bool", "default": False},
    "network": {"type": "bool", "default": True},
    "enabled": {"type": "bool", "default": True},
}


INSTANCE = {
    "name": {"type": "str", "required": True},
    "delivers_to": {"type": "list", "elements": "str"},
    "jobs": {"type": "list", "elements": "dict", "default": [], "options": JOB},
}

SPEC = {
    "instances": {"type": "list", "elements": "dict", "required": True, "options": INSTANCE},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "backend": {"type": "str", "choices": ["systemd", "cron", "none"], "default": "systemd"},
    "prefix": {"type": "path", "default": "/"},
}


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
