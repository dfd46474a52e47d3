#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's statements."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_statements
short_description: Have pg_stat_statements loaded, created and configured
version_added: 0.1.0
description:
  - Loads the library C(pg_stat_statements) beside those that are loaded already, and configures it, by the same
    transaction as M(pgops.fleet.pg_ops_settings). Loading it takes a restart, see O(restart).
  - Creates the extension in the ops database and in O(databases), and updates it where the server has a newer one.
  - On a standby only the settings are kept, since all else is its primary's; RV(skipped_reason) says so.
author:
  - The pgops.fleet contributors (@pgops)
options:
  instance:
    description:
      - Name of the instance. What the settings were before is kept under it on the host.
      - Without it nothing is kept, as with M(pgops.fleet.pg_ops_settings).
    type: str
  state:
    description:
      - V(absent) puts the settings back that this module has set, and drops the extension where it has created it.
      - Settings that M(pgops.fleet.pg_ops_settings) has set, as in C(site.yml), are put back by that module.
    type: str
    choices: [present, absent]
    default: present
  database:
    description: Name of the ops database.
    type: str
    default: pgops
  databases:
    description: More databases that the extension is created in.
    type: list
    elements: str
    default: []
  max:
    description: How many statements are kept track of (C(pg_stat_statements.max)); it takes shared memory.
    type: int
    default: 5000
  track:
    description: Which statements are counted, those of clients or those inside functions, too.
    type: str
    choices: [top, all, none]
    default: top
  track_planning:
    description: Whether planning is counted, too. It costs where many sessions run the same statement.
    type: bool
    default: false
  track_utility:
    description: Whether other commands than SELECT, INSERT, UPDATE, DELETE and MERGE are counted.
    type: bool
    default: true
  track_io_timing:
    description: Whether the time of reads and writes is measured. C(pg_test_timing) tells what that costs.
    type: bool
    default: true
  compute_query_id:
    description: Whether query identifiers are computed; V(auto) is when a library needs them, as this one does.
    type: str
    choices: [auto, "on"]
    default: auto
  configure:
    description: V(false) leaves the settings alone, for where M(pgops.fleet.pg_ops_settings) has them with others.
    type: bool
    default: true
  restart:
    description:
      - V(never) leaves what needs a restart waiting, and says so in RV(pending).
      - V(if_required) restarts the server where one of these settings waits for it. That ends all sessions, and
        brings everything else into force that waits.
    type: str
    choices: [never, if_required]
    default: never
  prefix:
    description: The directory below which the agent is installed.
    type: path
    default: /
extends_documentation_fragment:
  - pgops.fleet.attributes
  - pgops.fleet.connection
seealso:
  - module: pgops.fleet.pg_ops_settings
"""

EXAMPLES = r"""
- name: Count statements, in the ops database and for the application's own dashboards
  pgops.fleet.pg_ops_statements:
    instance: 17-main
    databases: [shop]
    restart: if_required
  become: true

- name: Take it away again
  pgops.fleet.pg_ops_statements:
    instance: 17-main
    databases: [shop]
    state: absent
    restart: if_required
  become: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be, in order.
  returned: success
  type: list
  elements: str
  sample: [update setting shared_preload_libraries, restart server]
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
      subject: extension pg_stat_statements in database pgops
      before: null
      after: {version: "1.12"}
pending:
  description: All settings of the server that wait for a restart, as M(pgops.fleet.pg_ops_settings) returns them.
  returned: success
  type: list
  elements: dict
deferred:
  description: Always empty; it is there for the sake of M(pgops.fleet.pg_ops_settings).
  returned: success
  type: list
  elements: dict
kept:
  description: Always empty; it is there for the sake of M(pgops.fleet.pg_ops_settings).
  returned: success
  type: list
  elements: str
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
skipped_reason:
  description: Why the extension was left alone.
  returned: on a standby
  type: str
predictable:
  description: Whether check mode could know what a run would change.
  returned: success
  type: bool
  sample: true
settings:
  description: The settings that pg_stat_statements needs, whether or not this module brings them.
  returned: with O(state=present)
  type: dict
  sample: {shared_preload_libraries: [pg_stat_statements], pg_stat_statements.max: "5000"}
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: unsupported
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import reporting
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.statements import deploy

SPEC = {
    "instance": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "database": {"type": "str", "default": "pgops"},
    "databases": {"type": "list", "elements": "str", "default": []},
    "max": {"type": "int", "default": 5000},
    "track": {"type": "str", "choices": ["top", "all", "none"], "default": "top"},
    "track_planning": {"type": "bool", "default": False},
    "track_utility": {"type": "bool", "default": True},
    "track_io_timing": {"type": "bool", "default": True},
    "compute_query_id": {"type": "str", "choices": ["auto", "on"], "default": "auto"},
    "configure": {"type": "bool", "default": True},
    "restart": {"type": "str", "choices": ["never", "if_required"], "default": "never"},
    "prefix": {"type": "path", "default": "/"},
    **reporting.connection_spec(),
}


def main() -> None:
    """Parse, call the library, report."""
    needed = [("state", "absent", ["instance"])]
    module = AnsibleModule(argument_spec=SPEC, required_if=needed, supports_check_mode=True)
    target = reporting.target(module.params)
    reporting.report(module, lambda: deploy.converge(target, module.params, module.check_mode))


if __name__ == "__main__":
    main()
