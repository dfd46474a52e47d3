#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to what a report shows of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_report
short_description: Read what a report shows of a host
version_added: 0.1.0
description:
  - Reads the facts of M(pgops.fleet.pg_ops_facts), and of each instance that an agent is configured for what the ops
    database has stored, for O(hours) before O(ends_at). The playbook C(pgops.fleet.report) makes a page of it.
  - What is stored of an instance is read as the agent's role, on a standby from its own copy of the ops database.
  - A part that cannot be read has an C(error), and the others are not affected.
author:
  - The pgops.fleet contributors (@pgops)
options:
  login_port:
    description:
      - Port of the server.
      - V(0) means 5432 if O(login_host) is set, otherwise all instances of the host.
    default: 0
  instances:
    description: Names of the instances to report on; all of the host if it is empty.
    type: list
    elements: str
    default: []
  hours:
    description: How long the time is that is reported on. At most 8784.
    type: float
    default: 24
  ends_at:
    description:
      - Its end, as PostgreSQL reads a time, such as V(2026-01-31 03:12+01); without a zone it is UTC. The empty
        string is now.
      - Of a moment in the past, what only the server itself knows is left out, such as who blocks whom.
    type: str
    default: ""
  points:
    description:
      - In how many steps the time is divided for charts, at most 1000. No step is shorter than a second.
    type: int
    default: 144
  database:
    description: Name of the ops database.
    type: str
    default: pgops
  prefix:
    description: The directory below which the agent is installed.
    type: path
    default: /
  packed:
    description:
      - Return RV(report) as base64 of compressed JSON, which Ansible passes on faster than large structures. The
        filter P(pgops.fleet.fleet_report#filter) takes it.
    type: bool
    default: false
  max_bytes:
    description: Maximum size of the facts, as for M(pgops.fleet.pg_ops_facts).
    type: int
    default: 65536
  statement_timeout:
    description: Time limit of each query in seconds.
    type: float
    default: 30
extends_documentation_fragment:
  - pgops.fleet.connection
  - pgops.fleet.attributes.facts
seealso:
  - module: pgops.fleet.pg_ops_facts
"""

EXAMPLES = r"""
- name: Read the last day
  pgops.fleet.pg_ops_report:
  register: read
  become: true

- name: Read the night of an incident
  pgops.fleet.pg_ops_report:
    ends_at: "2026-01-31 06:00+01"
    hours: 8
  become: true
"""

RETURN = r"""
report:
  description: What is known of the host.
  returned: success
  type: dict
  contains:
    format:
      description: 1, increased when a key is removed or changes its meaning.
      type: int
    facts:
      description: As M(pgops.fleet.pg_ops_facts) returns them in C(ansible_facts.pg_ops).
      type: dict
    stored:
      description:
        - By the name of each instance its C(cluster), its C(node), its C(history), which has the lines of its charts,
          its C(panels), and its C(error); see C(docs/reports.md).
      type: dict
  sample:
    format: 1
    facts: {}
    stored:
      17-main: {cluster: shop, node: db1/17-main, history: {}, panels: {}, error: null}
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: invalid_input
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

SPEC = {
    **arguments.CONNECTION,
    "login_port": {"type": "int", "default": 0},
    "instances": {"type": "list", "elements": "str", "default": []},
    "hours": {"type": "float", "default": 24},
    "ends_at": {"type": "str", "default": ""},
    "points": {"type": "int", "default": 144},
    "database": {"type": "str", "default": "pgops"},
    "prefix": {"type": "path", "default": "/"},
    "packed": {"type": "bool", "default": False},
    "max_bytes": {"type": "int", "default": 65536},
    "statement_timeout": {"type": "float", "default": 30},
}


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
