#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's schema."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_schema
short_description: Create or update the ops database of a cluster
version_added: 0.1.0
description:
  - Creates and updates the ops database with the schema C(pgops), the roles of the agents with least privilege, and
    a marked block in C(pg_hba.conf) and C(pg_ident.conf) that lets the agents in. These files are read and written as
    the server's user.
  - Numbered migrations upgrade the schema to the version of this collection, in one transaction. A table in the
    database records the applied migrations. Functions and views that were edited are restored.
  - On a standby, only the access block is maintained; the rest is replicated from its primary. RV(skipped_reason)
    says so.
author:
  - The pgops.fleet contributors (@pgops)
options:
  state:
    description:
      - V(present) creates or updates the ops database, its roles and the access block.
      - V(absent) removes the login role and the access block. The ops database with all samples stays, and so do
        the two roles that own and read it, unless O(purge=true).
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
    description: Operating system user of the agent; it logs in by peer authentication.
    type: str
    default: pgops
  peers:
    description:
      - The other nodes of the cluster, as host names, IP addresses or networks. Their agents may log in to the ops
        database over TLS with O(password). Names are resolved on the host.
    type: list
    elements: str
    default: []
  password:
    description: Password of the agents' role, for logins from other nodes. If omitted, it does not change.
    type: str
  passfile:
    description: File on the host where M(pgops.fleet.pg_ops_agent) stores the password; read without O(password).
    type: path
  remote:
    description:
      - The agent is on this host and connects as this module does, with O(login_host) and O(login_port), and with
        O(password) or that in O(passfile). Access rules are yours; the module tests whether the agent can log in.
      - O(login_user) may be a superuser, or needs CREATEROLE, CREATEDB and C(pg_monitor WITH ADMIN OPTION). It
        becomes a member of the roles that it creates.
    type: bool
    default: false
  max_size_mb:
    description:
      - Space on disk for all that is stored, samples, names of series, statistics and texts of statements, in MB of
        1048576 bytes.
      - Beyond it, the oldest is dropped early, but never samples of today. The job C(maintain) then fails and names
        what it dropped.
    type: int
    default: 10240
  retention_days:
    description: Days for which samples are kept.
    type: int
    default: 30
  rollup_days:
    description: Days for which the minimum, average, maximum and last value of each hour are kept.
    type: int
    default: 400
  metric_retention:
    description:
      - Retention in days by metric, where it differs from O(retention_days).
      - A change applies to samples collected from then on. Set the same for M(pgops.fleet.pg_ops_agent).
    type: dict
    default: {}
  query_texts:
    description:
      - Whether C(slow_query_log) stores the texts of statements, with secrets redacted.
      - V(false) deletes all stored texts at once, also those in C(slow_query_log). Plans stay for O(retention_days).
    type: bool
    default: true
  explain:
    description:
      - Whether to create the role C(pgops_explain), as which O(os_user) logs in to plan slow statements. It has no
        rights except those that you grant it. Planning may run functions of a statement's author with these rights.
      - V(false) drops the role, or removes its login if it holds rights.
      - Not possible with O(remote), or without O(query_texts).
    type: bool
    default: false
  backup:
    description:
      - Whether to create the role C(pgops_backup), as which the operating system user that runs the server logs in
        for replication on this host, and to let C(pgops.create_recovery_point()) write restore points.
      - V(false) drops the role, or removes its login if it holds rights. Backups stay where they are.
      - Not possible with O(remote).
    type: bool
    default: false
  drill_interval_hours:
    description:
      - Within how many hours a recovery drill should pass; V(0) where no drills are declared. Metrics and alerts are
        by it.
    type: float
    default: 0
  thresholds:
    description:
      - Your own thresholds, C(warning) and C(critical) by metric.
      - If one is omitted, the metric's own applies. Warning must come before critical in the metric's direction.
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
      - It holds their locks for a moment.
      - Without effect if the database does not exist yet.
    type: bool
    default: false
extends_documentation_fragment:
  - pgops.fleet.connection
  - pgops.fleet.attributes
"""

EXAMPLES = r"""
- name: Create or update the ops database of the cluster orders
  pgops.fleet.pg_ops_schema:
    cluster: orders
    node: db1/17-main
  become: true

- name: Let the agent of the other node in, and keep samples for 92 days
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

- name: Create or update the ops database of a remote instance
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
  description: The changes, made or predicted, in order.
  returned: success
  type: list
  elements: str
  sample: [create role pgops, create database pgops]
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
      subject: database pgops
      before: null
      after: {encoding: UTF8, owner: pgops_owner}
predictable:
  description: Whether check mode could know what a run would change; V(false) without psycopg on the host.
  returned: success
  type: bool
  sample: true
skipped_reason:
  description: Reason why parts were skipped.
  returned: on a standby, and with O(remote=true)
  type: str
  sample: "standby: the schema is replicated from its primary"
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: conflict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

SPEC = {
    **arguments.CONNECTION,
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
    "backup": {"type": "bool", "default": False},
    "drill_interval_hours": {"type": "float", "default": 0},
    "thresholds": {"type": "dict", "default": {}},
    "collectors": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "rehearse": {"type": "bool", "default": False},
}
NEEDED = [("state", "present", ["cluster", "node"])]


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, required_if=NEEDED, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
