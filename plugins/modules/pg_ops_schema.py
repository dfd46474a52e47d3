#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's schema."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_schema
short_description: Keep the ops database of a cluster as declared
version_added: 0.1.0
description:
  - Creates and keeps the ops database with the schema C(pgops), the roles of the agents with the least rights
    that their work needs, and a marked block in C(pg_hba.conf) and C(pg_ident.conf) that admits the agents.
  - The schema is brought to the version that this collection ships, by numbered migrations in one transaction.
    A ledger in the database holds what was applied. Functions and views that somebody edited are put back.
  - On a standby nothing but the access block is kept, since all else is its primary's; RV(skipped_reason) says so.
author:
  - The pgops.fleet contributors (@pgops)
options:
  state:
    description:
      - V(present) keeps everything as declared.
      - V(absent) removes the login role and the access block. The ops database with all that was collected stays,
        with the two roles that it belongs to, unless O(purge=true).
    type: str
    choices: [present, absent]
    default: present
  purge:
    description: With O(state=absent), drop the ops database and all roles of the collection as well.
    type: bool
    default: false
  database:
    description: Name of the ops database. It is created from C(template0) in UTF8.
    type: str
    default: pgops
  cluster:
    description: Name of the cluster, a primary and its standbys. Required with O(state=present).
    type: str
  node:
    description: Name of this instance within the fleet. Required with O(state=present).
    type: str
  os_user:
    description: The operating system's user that the agent runs as; it is admitted by peer authentication.
    type: str
    default: pgops
  peers:
    description:
      - The cluster's other nodes, as host names, IP addresses or networks. Their agents are admitted to the ops
        database by TLS and O(password). Names are resolved on the host.
    type: list
    elements: str
    default: []
  password:
    description: Password of the agents' role, which agents use from other nodes. Not given, it is left as it is.
    type: str
  passfile:
    description: File on the host that M(pgops.fleet.pg_ops_agent) keeps the password in, read without O(password).
    type: path
  remote:
    description:
      - The agent is on this host, and reaches the server as this module does, by O(login_host) and O(login_port),
        with O(password) or that in O(passfile). Access rules are left to you; whether they let the agent in is tried.
      - O(login_user) need not be a superuser, but have CREATEROLE, CREATEDB and C(pg_monitor WITH ADMIN OPTION). It
        becomes a member of the roles that it makes.
    type: bool
    default: false
  max_size_mb:
    description:
      - How much samples and what statements did may take on disk, in MB of 1048576 bytes.
      - Where it is more, the oldest are dropped before their time, but never those of today; the job
        C(maintain) fails then and names them.
    type: int
    default: 10240
  retention_days:
    description: For how many days samples are kept.
    type: int
    default: 30
  rollup_days:
    description: For how many days the minimum, average, maximum and last value of every hour are kept.
    type: int
    default: 400
  metric_retention:
    description:
      - Metrics whose samples are kept for other than O(retention_days), as a mapping of a metric's name to days.
      - A change holds for what is collected from then on. Give M(pgops.fleet.pg_ops_agent) the same.
    type: dict
    default: {}
  query_texts:
    description:
      - Whether C(slow_query_log) has the texts of statements, secrets taken out.
      - Set to V(false), all texts that are stored are deleted at once, those in C(slow_query_log) as well; plans of
        statements stay for O(retention_days).
    type: bool
    default: true
  explain:
    description:
      - Whether there is a role C(pgops_explain), which O(os_user) is admitted as, to plan slow statements. It has no
        rights but those that you grant it, and planning may run the functions of a statement's author with them.
      - Set to V(false) again, it is dropped, or loses its login where it has been given rights.
      - Not possible with O(remote), or without O(query_texts).
    type: bool
    default: false
  thresholds:
    description:
      - Your own thresholds of metrics, as a mapping of a metric's name to C(warning) and C(critical).
      - A level that is left out is as the metric has it. Both together must fit the metric's direction.
      - They raise no alerts; they are columns of the views C(system_metrics) and C(metrics).
    type: dict
    default: {}
  collectors:
    description:
      - Your own collectors, each the text of a file with a header as docs/monitoring.md describes it.
      - One of C(scope) V(database) runs in every database, or in those that its C(databases) names.
    type: list
    elements: str
    default: []
  rehearse:
    description:
      - In check mode, also execute all changes inside the ops database and roll them back.
      - It takes their locks for a moment.
      - Nothing is rehearsed where the database does not exist yet.
    type: bool
    default: false
  sources:
    description: The collection's SQL files. The action plugin of this module fills it; leave it out.
    type: str
    default: ""
extends_documentation_fragment:
  - pgops.fleet.connection
  - pgops.fleet.attributes
"""

EXAMPLES = r"""
- name: Keep the ops database of cluster orders
  pgops.fleet.pg_ops_schema:
    cluster: orders
    node: db1/17-main
  become: true

- name: Admit the agent of the other node, and keep samples for a quarter
  pgops.fleet.pg_ops_schema:
    cluster: orders
    node: db1/17-main
    peers: [db2.example.org]
    password: "{{ pgops_password }}"
    retention_days: 92
    thresholds:
      database_size_mb:
        warning: 50000
        critical: 80000
  become: true

- name: Keep the ops database of an instance on a host without an agent
  pgops.fleet.pg_ops_schema:
    cluster: orders
    node: orders.example.org/orders
    remote: true
    login_host: orders.example.org
    login_user: admin
    login_password: "{{ orders_admin_password }}"
    ssl_mode: require
    channel_binding: require
    passfile: /etc/pgops/orders/pgpass
  become: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be, in order.
  returned: success
  type: list
  elements: str
  sample: [create role pgops, create database pgops]
prediction:
  description:
    - The same as data, with what is before and after. Secrets are not in it.
    - The diff shows of what is created or removed one line each, and documents of what is changed only.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(update), V(remove), or a word of its own like V(restart).
      type: str
    subject:
      description: What is changed, as in RV(changes).
      type: str
    before:
      description: Text, a mapping, or null where it is not there.
      type: raw
    after:
      description: The same of what it is then.
      type: raw
  sample:
    - action: create
      subject: database pgops
      before: null
      after: {encoding: UTF8, owner: pgops_owner}
predictable:
  description: Whether check mode could know what a run would change; V(false) without psycopg on the host.
  returned: success
  type: bool
  sample: true
skipped_reason:
  description: Why less was done than declared.
  returned: on a standby, and with O(remote=true)
  type: str
  sample: "standby: the schema is its primary's"
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: conflict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import reporting
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.opsdb import deploy

SPEC = {
    **reporting.connection_spec(),
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "purge": {"type": "bool", "default": False},
    "database": {"type": "str", "default": "pgops"},
    "cluster": {"type": "str"},
    "node": {"type": "str"},
    "os_user": {"type": "str", "default": "pgops"},
    "peers": {"type": "list", "elements": "str", "default": []},
    "password": {"type": "str", "no_log": True},
    "passfile": {"type": "path"},
    "remote": {"type": "bool", "default": False},
    "retention_days": {"type": "int", "default": 30},
    "rollup_days": {"type": "int", "default": 400},
    "metric_retention": {"type": "dict", "default": {}},
    "max_size_mb": {"type": "int", "default": 10240},
    "query_texts": {"type": "bool", "default": True},
    "explain": {"type": "bool", "default": False},
    "thresholds": {"type": "dict", "default": {}},
    "collectors": {"type": "list", "elements": "str", "default": []},
    "rehearse": {"type": "bool", "default": False},
    "sources": {"type": "str", "default": "", "no_log": True},
}
NEEDED = [("state", "present", ["cluster", "node"])]


def main() -> None:
    """Parse, call the library, report."""
    module = AnsibleModule(argument_spec=SPEC, required_if=NEEDED, supports_check_mode=True)
    target = reporting.target(module.params)
    reporting.report(module, lambda: deploy.converge(target, module.params, module.check_mode))


if __name__ == "__main__":
    main()
