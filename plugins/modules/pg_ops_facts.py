#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's facts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_facts
short_description: Gather facts about the PostgreSQL instances of a host
version_added: 0.1.0
description:
  - Gathers facts about all PostgreSQL instances of a host, or about the one at O(login_host) and O(login_port), as
    C(ansible_facts.pg_ops).
  - Keys, types and units are a versioned contract, documented in C(docs/facts.md).
  - Works on hosts where nothing is installed, on primaries and standbys, as any user. A section that failed has
    C(error) as its only key. A value that the role may not see is V(null), and C(hidden) of the section gives the
    reason.
  - At most ten queries an instance, each under O(statement_timeout).
author:
  - The pgops.fleet contributors (@pgops)
options:
  login_port:
    description:
      - Port of the server.
      - V(0) means 5432 if O(login_host) is set, otherwise all instances of the host.
    default: 0
  gather_subset:
    description:
      - Sections to gather. V(all) is every section. V(min) is the host and the identity of the instances, which is
        always gathered. V(!) before a section excludes it.
    type: list
    elements: str
    default: [all]
  database:
    description: Name of the ops database.
    type: str
    default: pgops
  database_sizes:
    description: Measure the size of databases, which reads the size of each of their files.
    type: bool
    default: false
  prefix:
    description: The directory below which the agent is installed.
    type: path
    default: /
  max_bytes:
    description:
      - Maximum size of the facts in bytes of JSON. The longest lists are cut at their end, and C(truncated) names
        them. V(0) means no limit.
    type: int
    default: 65536
  statement_timeout:
    description: Time limit of each query in seconds.
    type: float
    default: 5
extends_documentation_fragment:
  - pgops.fleet.connection
  - pgops.fleet.attributes.facts
"""

EXAMPLES = r"""
- name: Gather all facts
  pgops.fleet.pg_ops_facts:
  become: true

- name: List the instances of a host
  pgops.fleet.pg_ops_facts:
    gather_subset: [min]
  become: true

- name: Gather facts about one server over the network
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
      description: The facts. C(docs/facts.md) documents each key.
      returned: success
      type: dict
      contains:
        contract:
          description: Version of the contract. It is raised if a key is removed or changes its meaning.
          returned: success
          type: int
          sample: 1
        collection_version:
          description: Version of this collection.
          returned: success
          type: str
          sample: 0.1.0
        gathered_at:
          description: Time, by the host's clock.
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
          description: The host's system, its Python, psycopg, compressors, and whether systemd runs.
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
            compressors: [zstd]
            pgbackrest: false
            systemd: true
            poolers:
              - port: 6432
                socket_directory: /run/postgresql
                owner: postgres
        instances:
          description:
            - Instances, each with its identity and a key for each gathered section.
            - A section that failed has C(error) as its only key. A value that the role may not see is V(null), and
              C(hidden) of the section gives the reason.
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
              support: supported
              role: primary
              system_identifier: "7642011472967116994"
              data_directory: /var/lib/postgresql/17/main
              error: null
        truncated:
          description: Lists that were cut to stay within O(max_bytes).
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

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

SPEC = {
    **arguments.CONNECTION,
    "login_port": {"type": "int", "default": 0},
    "gather_subset": {"type": "list", "elements": "str", "default": ["all"]},
    "database": {"type": "str", "default": "pgops"},
    "database_sizes": {"type": "bool", "default": False},
    "prefix": {"type": "path", "default": "/"},
    "max_bytes": {"type": "int", "default": 65536},
    "statement_timeout": {"type": "float", "default": 5},
}


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
