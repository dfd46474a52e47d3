#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's agent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_agent
short_description: Install the agent on a host, and configure it for the host's instances
version_added: 0.1.0
description:
  - Installs the command C(pgops), which timers run between playbook runs, the program that archives WAL, and the
    configuration of each instance.
  - Every version gets a directory of its own, is compiled and tried as its users, and is put to use by switching one
    link.
    A run that is going on meanwhile ends with the version that it began with. The version before is kept.
  - Your own collectors are checked against the shipped ones and installed as files that only root may write.
author:
  - The pgops.fleet contributors (@pgops)
options:
  state:
    description:
      - V(absent) removes the configuration and the state of O(instances), and with the last instance of the host the
        command and the user that this module created.
      - An instance whose server's settings name the program that archives is not removed, and the program stays while
        any server of the host names it.
    type: str
    choices: [present, absent]
    default: present
  instances:
    description:
      - The instances that are configured or removed. Others of the host stay as they are.
      - With O(state=absent) only the names are used.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the instance; it stands in the names of files and units.
        type: str
        required: true
      cluster:
        description: Name of the cluster, a primary and its standbys. Required with O(state=present).
        type: str
        default: ""
      node:
        description: Name of this instance within the fleet. Required with O(state=present).
        type: str
        default: ""
      host:
        description:
          - Host name or address of a remote instance, one on a host without an agent. Empty means one of this host.
          - The agent of this host reaches it over TCP as its role, with O(instances[].password). Without one, and
            none on the host, a password is generated; M(pgops.fleet.pg_ops_schema) gives it to the role.
        type: str
        default: ""
      port:
        description: Port of the instance's server.
        type: int
        default: 5432
      socket_directory:
        description: Directory of the server's Unix socket. Empty means the first of the usual ones that has it.
        type: str
        default: ""
      database:
        description: Name of the ops database.
        type: str
        default: pgops
      peers:
        description: The cluster's other nodes, one of which takes this one's samples while it is a standby.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: Host name or address, as this host reaches it.
            type: str
            required: true
          port:
            description: Port of its server.
            type: int
            default: 5432
      ssl_mode:
        description:
          - How TLS is used towards O(instances[].host) and O(instances[].peers), as in libpq's C(sslmode). Channel
            binding is required as well.
          - V(disable) sends everything in the clear, passwords too if the server asks for them so; it is for a
            remote instance only.
        type: str
        default: require
        choices: [disable, require, verify-ca, verify-full]
      ca_cert:
        description: File of the certificate authority's certificate on the host, for V(verify-ca) and V(verify-full).
        type: path
      password:
        description:
          - Password of the agents' role towards O(instances[].host) and O(instances[].peers). It is stored in a file
            that only the agent can read.
          - Without it, the file stays as it is.
        type: str
      owner:
        description: The operating system's user that runs the server, and the jobs that have to run as it.
        type: str
        default: postgres
      superuser:
        description:
          - The role that those jobs log in as, and that O(collectors) are tried by. Empty means the one named like
            the server's user.
        type: str
        default: ""
      repository:
        description:
          - The directory of the cluster's repository, for what archives into it. Empty means none.
          - The server's present data directory is registered for it. The program that archives takes WAL from no
            other, as from a copy.
        type: path
        default: ""
      capabilities:
        description:
          - Options of capabilities, as a mapping of a capability's name to its options.
          - C(metrics) has C(collectors), what differs from the collectors' files, as a mapping of a collector's name
            to any of C(interval) and C(timeout) in seconds, and C(enabled); and C(retention), the same as
            O(pgops.fleet.pg_ops_schema#module:metric_retention).
          - C(statements) has C(query_texts), whether the texts of statements are stored; C(slow_query_ms), how many
            milliseconds an execution takes to be noted in C(slow_query_log), 0 for all and less for none; and
            C(explain), whether the plans of slow statements are stored. M(pgops.fleet.pg_ops_schema) takes
            C(query_texts) and C(explain) as well.
        type: dict
        default: {}
  user:
    description: The operating system's user that the agent runs as. It is created if it is missing.
    type: str
    default: pgops
  collectors:
    description:
      - Your own collectors, each the text of a file with a header as docs/monitoring.md describes it.
      - One of C(scope) V(database) runs in every database, or in those that its C(databases) names.
    type: list
    elements: str
    default: []
  validate:
    description:
      - Try O(collectors) on the servers before they are installed, planned and not carried out, with the rights and
        limits of their runs. The servers have to be up, and let O(instances[].superuser) in.
      - One whose header has C(databases) is tried in the first of these that exists. A warning names those for which
        none does, or where the agent cannot log in yet.
    type: bool
    default: true
  textfile_directory:
    description:
      - The directory where node_exporter's textfile collector reads, which has to exist. It gets a link to a file of
        the agent's that C(pgops export --output) replaces. Without it there is none.
    type: path
  retired:
    description:
      - Instances that were upgraded, whose port another instance has now. Their links in the directory of
        node_exporter are removed; all else of theirs stays until they are removed.
    type: list
    elements: str
    default: []
  python:
    description:
      - The Python of the agent and of the program that archives. O(user) and O(instances[].owner) have to be able to
        run it, which is tried before anything is changed.
      - Empty means the one that Ansible uses on the host, or where they cannot run that, one of the distribution's.
    type: str
    default: ""
  prefix:
    description: Directory below which everything is installed. With any other than V(/) no user is created.
    type: path
    default: /
extends_documentation_fragment:
  - pgops.fleet.attributes
  - pgops.fleet.attributes.library
requirements:
  - psycopg 3.1 or newer for the agent's Python (Debian's C(python3-psycopg))
"""

EXAMPLES = r"""
- name: Install the agent
  pgops.fleet.pg_ops_agent:
    instances:
      - name: 17-main
        cluster: orders
        node: db1/17-main
        capabilities:
          metrics:
            collectors:
              database_size:
                interval: 900
  become: true

- name: Remove the agent
  pgops.fleet.pg_ops_agent:
    instances:
      - name: 17-main
    state: absent
  become: true
"""

RETURN = r"""
version:
  description: The version of the agent, which names its directory.
  returned: with O(state=present)
  type: str
  sample: 0.1.0-3f0c5a7b9d21
changes:
  description: What was changed, or would be, in order.
  returned: success
  type: list
  elements: str
  sample: [create user pgops, create agent 0.1.0-3f0c5a7b9d21]
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
      subject: user pgops
      before: null
      after: {shell: /usr/sbin/nologin, system: true}
predictable:
  description: Whether check mode could know what a run would change.
  returned: success
  type: bool
  sample: true
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: host_failed
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import reporting

PEER = {"host": {"type": "str", "required": True}, "port": {"type": "int", "default": 5432}}
SSL_MODES = ["disable", "require", "verify-ca", "verify-full"]

INSTANCE = {
    "name": {"type": "str", "required": True},
    "cluster": {"type": "str", "default": ""},
    "node": {"type": "str", "default": ""},
    "host": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 5432},
    "socket_directory": {"type": "str", "default": ""},
    "database": {"type": "str", "default": "pgops"},
    "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
    "ssl_mode": {"type": "str", "default": "require", "choices": SSL_MODES},
    "ca_cert": {"type": "path"},
    "password": {"type": "str", "no_log": True},
    "owner": {"type": "str", "default": "postgres"},
    "superuser": {"type": "str", "default": ""},
    "repository": {"type": "path", "default": ""},
    "capabilities": {"type": "dict", "default": {}},
}

SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "instances": {"type": "list", "elements": "dict", "required": True, "options": INSTANCE},
    "user": {"type": "str", "default": "pgops"},
    "collectors": {"type": "list", "elements": "str", "default": []},
    "validate": {"type": "bool", "default": True},
    "textfile_directory": {"type": "path"},
    "retired": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "str", "default": ""},
    "prefix": {"type": "path", "default": "/"},
    **reporting.LIBRARY,
}


def main() -> None:
    """Parse, call the library, report."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    deploy = reporting.library(module, "agent.deploy")
    reporting.report(module, lambda: deploy.converge(module.params, module.check_mode))


if __name__ == "__main__":
    main()
