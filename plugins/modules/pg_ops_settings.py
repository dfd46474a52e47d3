#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's settings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_settings
short_description: Apply server settings as one transaction
version_added: 0.1.0
description:
  - Compares server settings with the configured ones, by meaning (V(1GB) is V(1024MB)), and writes those that differ
    with C(ALTER SYSTEM). If another configuration file already sets the value, nothing is written.
  - Names, types, ranges, choices and the files of libraries are checked before anything is written. So is whether the
    server could start with the new configuration, by its own program as its own user, and whether what started it
    would restart it.
  - The server is then reloaded and, if a setting needs it and O(restart) allows it, restarted after a checkpoint.
    Afterwards every value is read from the running server.
  - If the server does not come up all the same, or rejects a value, the old configuration is restored, the server is
    started with it, or with the one that it last started with, and the module fails with the server's log lines. A
    run that is killed, or that had to leave the server down, is completed or undone by the next one.
  - The original values are recorded on the host. O(state=absent) restores them, except where somebody has changed the
    value since.
author:
  - The pgops.fleet contributors (@pgops)
options:
  instance:
    description:
      - Name of the instance. The original values, and the journal of a killed run, are stored under this name on the
        host.
      - Without it, for instance over the network, nothing is recorded, and a killed run leaves what it has written.
    type: str
  state:
    description:
      - V(present) applies O(settings).
      - V(absent) restores the settings that this module changed on the instance.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description:
      - Settings by name. Booleans, numbers, strings and lists are accepted.
      - V(null) resets what C(ALTER SYSTEM) has set. An empty string or list is a value.
      - Libraries in V(shared_preload_libraries) and the other lists of libraries are added to those that are
        configured, in the declared order. All other lists are set as declared.
      - On a standby, settings that must not be lower than on its primary (such as V(max_connections)) are lowered
        only after those of the primary; see RV(deferred).
      - Secrets in them (passwords in connection strings and URLs, tokens in commands, values of settings that sound
        like secrets) are not shown or logged.
    type: dict
    default: {}
  lists:
    description: V(merge) adds to the lists of libraries. V(replace) also removes libraries that are not declared.
    type: str
    choices: [merge, replace]
    default: merge
  restart:
    description:
      - V(never) writes the settings but does not restart; RV(pending) lists those that wait for a restart.
      - V(if_required) restarts the server if one of O(settings) needs it. A restart ends all sessions, and applies
        all other pending settings.
      - The restart uses the systemd unit that runs the server, or a wrapper of it; else Debian's C(pg_ctlcluster),
        else C(pg_ctl). A server in a unit that did not start it is not restarted.
    type: str
    choices: [never, if_required]
    default: never
  after_primary:
    description:
      - For a standby, states that the same O(settings) have just been applied to its primary. The module waits up to
        30 seconds until the primary's values arrive; check mode assumes that they do.
    type: bool
    default: false
  peers:
    description:
      - The cluster's other nodes. Before a primary gets more of V(max_connections), V(max_locks_per_transaction),
        V(max_prepared_transactions), V(max_wal_senders) or V(max_worker_processes), all of its standbys must have it,
        or replay stops there. The module refuses it otherwise, and names who has not, or may not have.
      - A node without O(peers[].limits) is asked over the network, with the credential of the agent of O(instance).
        The agent's own peers are asked as well.
      - Who streams from the primary, its physical slots, and the nodes of the ops database must all be among them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The node's name in the ops database, or its host's name in the inventory.
        type: str
        required: true
      host:
        description: Host name or address, as this host reaches it.
        type: str
        required: true
      port:
        description: Port of its server.
        type: int
        default: 5432
      limits:
        description: RV(limits) of this module for that node, if it has been run there just now.
        type: dict
  nodes_gone:
    description:
      - What O(peers) does not count for, by any of its names (node, host, slot, address, application of
        C(pg_stat_replication)). These are nodes that are gone for good, and receivers of WAL that are no servers.
        C(pg_receivewal), C(pg_basebackup) and Barman's are known by their names.
    type: list
    elements: str
    default: []
  database:
    description: Name of the ops database, for the nodes that it knows.
    type: str
    default: pgops
  prefix:
    description: The directory below which the agent is installed.
    type: path
    default: /
extends_documentation_fragment:
  - pgops.fleet.attributes
  - pgops.fleet.connection
notes:
  - If Patroni or a managed service controls the settings, nothing is changed, and the error names the command or
    place to set them.
  - After a change of V(port) or V(unix_socket_directories), later tasks have to log in at RV(port) and
    RV(socket_directory). The role pgops_settings sees to that.
requirements:
  - psycopg 3.1 or newer (Debian's C(python3-psycopg))
"""

EXAMPLES = r"""
- name: Tune an instance, and restart it if needed
  pgops.fleet.pg_ops_settings:
    instance: 17-main
    settings:
      shared_buffers: 4GB
      work_mem: 32MB
      log_min_duration_statement: 1s
      shared_preload_libraries: [auto_explain]
    restart: if_required
  become: true

- name: Show what would change on a remote server
  pgops.fleet.pg_ops_settings:
    login_host: db1.example.com
    login_user: admin
    login_password: "{{ vault_admin_password }}"
    settings:
      random_page_cost: 1.1
  check_mode: true
  diff: true

- name: Restore the original settings
  pgops.fleet.pg_ops_settings:
    instance: 17-main
    state: absent
  become: true
"""

RETURN = r"""
changes:
  description: The changes, made or predicted, in order.
  returned: success
  type: list
  elements: str
  sample: [update setting shared_buffers, restart server]
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
    - action: update
      subject: setting work_mem
      before: 4MB
      after: 8MB
pending:
  description: All settings that wait for a restart, also those that others changed.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the setting.
      type: str
      sample: shared_buffers
    running:
      description: Current value.
      type: str
      sample: 128MB
    configured:
      description: Value after a restart.
      type: str
      sample: 4GB
    source:
      description: File that sets it, with its line unless the file was changed in this run; or V(default).
      type: str
      sample: /var/lib/postgresql/17/main/postgresql.auto.conf
deferred:
  description: Settings of a standby that did not change, since those of its primary must be lowered first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the setting.
      type: str
      sample: max_connections
    wanted:
      description: The value declared.
      type: str
      sample: "50"
    primary:
      description: The primary's value; null where it is not known here.
      type: int
      sample: 100
    running:
      description: The standby's value.
      type: str
      sample: "100"
port:
  description: Port of the server after the run, or where check mode expects it.
  returned: success
  type: int
  sample: 5432
socket_directory:
  description: Directory of its first Unix socket; empty for the usual one, and over the network.
  returned: success
  type: str
  sample: /var/run/postgresql
limits:
  description: What other nodes of the cluster must know of this one, to be passed to them in O(peers).
  returned: success
  type: dict
  contains:
    standby:
      description: Whether it is a standby.
      type: bool
    running:
      description: The settings that O(peers) lists, as the server runs with them now, or would.
      type: dict
      sample: {max_connections: 100}
    configured:
      description: The same after its next restart.
      type: dict
      sample: {max_connections: 200}
    slot:
      description: Name of the slot from which it streams; empty for none.
      type: str
    application:
      description: Name under which it streams.
      type: str
      sample: 17/main
kept:
  description:
    - Names of settings that O(state=absent) could not restore yet. C(archive_command) stays while C(archive_mode) is
      on until a restart; without it C(pg_wal) would fill the disk. Run the module once more after the restart.
  returned: success
  type: list
  elements: str
  sample: [archive_command]
restarted:
  description: Whether the server was restarted, or would be.
  returned: success
  type: bool
  sample: true
sessions_ended:
  description: Number of client sessions that the restart ended, or would end.
  returned: success
  type: int
  sample: 12
predictable:
  description: Whether check mode could know what a run would change.
  returned: success
  type: bool
  sample: true
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: settings_refused
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

PEER = {
    "name": {"type": "str", "required": True},
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "default": 5432},
    "limits": {"type": "dict"},
}
CLUSTER = {
    "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
    "nodes_gone": {"type": "list", "elements": "str", "default": []},
    "database": {"type": "str", "default": "pgops"},
}

SPEC = {
    "instance": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "settings": {"type": "dict", "default": {}, "no_log": True},
    "lists": {"type": "str", "choices": ["merge", "replace"], "default": "merge"},
    "restart": {"type": "str", "choices": ["never", "if_required"], "default": "never"},
    "after_primary": {"type": "bool", "default": False},
    **CLUSTER,
    "prefix": {"type": "path", "default": "/"},
    **arguments.CONNECTION,
}
NEEDED = [("state", "absent", ["instance"])]


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, required_if=NEEDED, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
