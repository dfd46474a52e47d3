#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's settings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_settings
short_description: Bring server settings into force as one transaction
version_added: 0.1.0
description:
  - Compares any number of server settings with what is configured, by meaning (V(1GB) is V(1024MB)), and writes those
    that differ with C(ALTER SYSTEM). A value that is the same in any other file satisfies.
  - Names, types, ranges, choices and the files of libraries are checked before anything is written.
  - Then the server reads its files again and, where a setting needs it and O(restart) allows it, is restarted, after
    a checkpoint. Afterwards every value is looked up in the running server.
  - If the server does not come up, or does not take a value, the last good configuration is put back, the server is
    started with it, and the module fails with the server's own log lines. A run that is killed on the way is finished
    or undone by the next.
  - What was there before is kept on the host, and O(state=absent) puts it back where the present value is still ours.
author:
  - The pgops.fleet contributors (@pgops)
options:
  instance:
    description:
      - Name of the instance. What was there before, and what a killed run left, are kept under it on the host.
      - Without it the module works, for instance over the network, but nothing is kept, and a run that is killed
        leaves what it had written.
    type: str
  state:
    description:
      - V(present) brings O(settings) into force.
      - V(absent) puts back whatever this module changed on the instance.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description:
      - Settings by their names. Truths, numbers, text and lists are taken as YAML gives them.
      - V(null) takes away what C(ALTER SYSTEM) has set.
      - What is declared of V(shared_preload_libraries) and the other lists of libraries is added to what is there, in
        its order; all other lists are as declared.
      - Of a standby, what must not be below its primary's value (V(max_connections) and its kind) is lowered only
        once the primary's is; see RV(deferred).
    type: dict
    default: {}
  lists:
    description: V(replace) takes libraries out that are not declared.
    type: str
    choices: [merge, replace]
    default: merge
  restart:
    description:
      - V(never) leaves what needs a restart waiting, and says so in RV(pending).
      - V(if_required) restarts the server where one of O(settings) waits for it. That ends all sessions, and brings
        everything else into force that waits.
      - The server is restarted by its systemd unit, by Debian's C(pg_ctlcluster), or else by C(pg_ctl).
    type: str
    choices: [never, if_required]
    default: never
  after_primary:
    description:
      - Of a standby, that its primary has just been brought to the same O(settings). What must not be below the
        primary's value is waited for, up to 30 seconds; check mode takes it for granted.
    type: bool
    default: false
  prefix:
    description: The directory below which the agent is installed.
    type: path
    default: /
extends_documentation_fragment:
  - pgops.fleet.attributes
  - pgops.fleet.connection
notes:
  - Where Patroni or a managed service keeps the settings, nothing is changed, and the error has the command or place.
  - When V(port) is changed, give the new one as O(login_port) from the next run on.
requirements:
  - psycopg 3.1 or newer (Debian's C(python3-psycopg))
"""

EXAMPLES = r"""
- name: Tune an instance, and restart it if that is what it takes
  pgops.fleet.pg_ops_settings:
    instance: 17-main
    settings:
      shared_buffers: 4GB
      work_mem: 32MB
      log_min_duration_statement: 1s
      shared_preload_libraries: [auto_explain]
    restart: if_required
  become: true

- name: See what would change on a server that is reached over the network
  pgops.fleet.pg_ops_settings:
    login_host: db1.example.com
    login_user: admin
    login_password: "{{ vault_admin_password }}"
    settings:
      random_page_cost: 1.1
  check_mode: true
  diff: true

- name: Put back what was there before
  pgops.fleet.pg_ops_settings:
    instance: 17-main
    state: absent
  become: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be, in order.
  returned: success
  type: list
  elements: str
  sample: [update setting shared_buffers, restart server]
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
    - action: update
      subject: setting work_mem
      before: 4MB
      after: 8MB
pending:
  description: All settings of the server that wait for a restart, whoever changed them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the setting.
      type: str
      sample: shared_buffers
    running:
      description: The value that the server runs with.
      type: str
      sample: 128MB
    configured:
      description: The value that a restart brings.
      type: str
      sample: 4GB
    source:
      description: The file that has it, with the line where the file was not changed just now; or V(default).
      type: str
      sample: /var/lib/postgresql/17/main/postgresql.auto.conf
deferred:
  description: Settings of a standby that were left as they are, since its primary's have to be lowered first.
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
kept:
  description:
    - Settings that O(state=absent) could not put back yet, by name. C(archive_command) stays while C(archive_mode)
      is on until a restart, since without it C(pg_wal) would grow until its disk is full. Run it again afterwards.
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
  description: How many sessions of clients the restart ended, or would end.
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

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import reporting
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.settings import deploy


def main() -> None:
    """Parse, call the library, report."""
    spec = {
        "instance": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "settings": {"type": "dict", "default": {}},
        "lists": {"type": "str", "choices": ["merge", "replace"], "default": "merge"},
        "restart": {"type": "str", "choices": ["never", "if_required"], "default": "never"},
        "after_primary": {"type": "bool", "default": False},
        "prefix": {"type": "path", "default": "/"},
        **reporting.connection_spec(),
    }
    needed = [("state", "absent", ["instance"])]
    module = AnsibleModule(argument_spec=spec, required_if=needed, supports_check_mode=True)
    target = reporting.target(module.params)
    reporting.report(module, lambda: deploy.converge(target, module.params, module.check_mode))


if __name__ == "__main__":
    main()
