#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's facts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_facts
short_description: Facts of a host's PostgreSQL instances and of what this collection keeps on them
version_added: 0.1.0
description:
  - Gathers facts of all PostgreSQL instances of a host, or of the one that O(login_host) and O(login_port) name,
    as C(ansible_facts.pg_ops).
  - Keys, types and units are a versioned contract, written down in C(docs/facts.md) of the collection.
  - It works on a host where nothing is installed yet, on primaries and standbys, as any user. A section that fails
    says so in its key C(error); what the role may not see is V(null), and the section's C(hidden) says why.
  - At most ten queries an instance, each under O(statement_timeout).
author:
  - The pgops.fleet contributors (@pgops)
options:
  login_port:
    description:
      - Port of the server.
      - V(0) stands for 5432 where O(login_host) is given, and else for every instance of the host.
    default: 0
  gather_subset:
    description:
      - Which sections to gather. V(all) is every section; V(min) is the host and what identifies the instances,
        which is always gathered. V(!) before a section leaves it out.
    type: list
    elements: str
    default: [all]
  database:
    description: Name of the ops database.
    type: str
    default: pgops
  database_sizes:
    description: Measure databases, which asks the file system for the size of each of their files.
    type: bool
    default: false
  prefix:
    description: The directory below which the agent is installed.
    type: path
    default: /
  max_bytes:
    description:
      - The most bytes of JSON that the facts may take. The ends of the longest lists are left out, and
        C(truncated) says of which and how much. V(0) is no limit.
    type: int
    default: 65536
  statement_timeout:
    description: Seconds after which a query is given up.
    type: float
    default: 5
extends_documentation_fragment:
  - pgops.fleet.connection
  - pgops.fleet.attributes.facts
"""

EXAMPLES = r"""
- name: Gather everything
  pgops.fleet.pg_ops_facts:
  become: true

- name: See which instances a host has
  pgops.fleet.pg_ops_facts:
    gather_subset: [min]
  become: true

- name: Ask one server over the network
  pgops.fleet.pg_ops_facts:
    login_host: db1.example.org
    login_user: watcher
    login_password: "{{ watcher_password }}"
    gather_subset: ["!settings"]
"""

RETURN = r"""
ansible_facts:
  description: Facts of the host.
  returned: success
  type: dict
  contains:
    pg_ops:
      description: Everything below, as C(docs/facts.md) documents it key by key.
      returned: success
      type: dict
      contains:
        contract:
          description: Version of the contract; raised when a key goes away or changes its meaning.
          returned: success
          type: int
          sample: 1
        collection_version:
          description: Version of this collection.
          returned: success
          type: str
          sample: 0.1.0
        gathered_at:
          description: When, by the host's clock.
          returned: success
          type: str
          sample: "2026-01-31T12:00:00Z"
        sections:
          description: The sections that were gathered.
          returned: success
          type: list
          elements: str
          sample: [server, settings]
        host:
          description: The host's system, its Python, whether psycopg can be imported, and whether systemd runs.
          returned: success
          type: dict
          sample:
            hostname: db1
            os_family: Debian
            os: Debian GNU/Linux 13 (trixie)
            kernel: 6.12.1
            python: 3.13.5
            psycopg: 3.2.6
            psycopg_error: null
            systemd: true
        instances:
          description:
            - The instances, each with what identifies it, and a key for each section that was gathered.
            - A section that failed has C(error) as its only key. What the role may not see is V(null), and the
              section's C(hidden) says why.
          returned: success
          type: list
          elements: dict
          sample:
            - name: 17-main
              host: null
              port: 5432
              socket_directory: /var/run/postgresql
              running: true
              version: "17.6"
              major: 17
              role: primary
              system_identifier: "7642011472967116994"
              data_directory: /var/lib/postgresql/17/main
              error: null
        truncated:
          description: The lists that were cut to keep within O(max_bytes).
          returned: success
          type: list
          elements: dict
          sample:
            - path: instances[0].databases.list
              kept: 300
              left_out: 900
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: invalid_input
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import reporting
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.facts import gathering


def main() -> None:
    """Parse, call the library, report."""
    module = AnsibleModule(
        argument_spec={
            **reporting.connection_spec(),
            "login_port": {"type": "int", "default": 0},
            "gather_subset": {"type": "list", "elements": "str", "default": ["all"]},
            "database": {"type": "str", "default": "pgops"},
            "database_sizes": {"type": "bool", "default": False},
            "prefix": {"type": "path", "default": "/"},
            "max_bytes": {"type": "int", "default": 65536},
            "statement_timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    seconds = module.params["statement_timeout"]
    target = reporting.target(module.params, statement_timeout=seconds, lock_timeout=min(seconds, 1.0))
    reporting.report(module, lambda: gathering.gather(target, module.params))


if __name__ == "__main__":
    main()
