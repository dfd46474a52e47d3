#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's statements."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_statements
short_description: Load, create and configure pg_stat_statements
version_added: 0.1.0
description:
  - Adds the library C(pg_stat_statements) to those that are loaded, and configures it, in the same kind of
    transaction as M(pgops.fleet.pg_ops_settings). Loading it needs a restart; see O(restart).
  - Creates the extension in the ops database and in O(databases), and updates it if the server has a newer version.
  - On a standby, only the settings are applied; the extension is replicated from its primary. RV(skipped_reason) says
    so.
author:
  - The pgops.fleet contributors (@pgops)
options:
  instance:
    description:
      - Name of the instance. The original settings are recorded under this name on the host.
      - Without it nothing is recorded, as with M(pgops.fleet.pg_ops_settings).
    type: str
  state:
    description:
      - V(absent) restores the settings that this module has set, and drops the extension where this module created
        it.
      - Settings that M(pgops.fleet.pg_ops_settings) has set, as in C(site.yml), are restored by that module.
    type: str
    choices: [present, absent]
    default: present
  database:
    description: Name of the ops database.
    type: str
    default: pgops
  databases:
    description: More databases to create the extension in.
    type: list
    elements: str
    default: []
  max:
    description: Maximum number of statements to track (C(pg_stat_statements.max)). It uses shared memory.
    type: int
    default: 5000
  track:
    description: Which statements to track, V(top) those sent by clients, V(all) also those inside functions.
    type: str
    choices: [top, all, none]
    default: top
  track_planning:
    description: Whether to track planning. It is expensive if many sessions run the same statement.
    type: bool
    default: false
  track_utility:
    description: Whether to track utility commands, all but SELECT, INSERT, UPDATE, DELETE and MERGE.
    type: bool
    default: true
  track_io_timing:
    description: Whether to measure the time of reads and writes. C(pg_test_timing) shows the cost.
    type: bool
    default: true
  compute_query_id:
    description: Whether to compute query identifiers. V(auto) does if a library needs them, which is the case here.
    type: str
    choices: [auto, "on"]
    default: auto
  configure:
    description: V(false) does not change settings. Use it if M(pgops.fleet.pg_ops_settings) applies them with others.
    type: bool
    default: true
  restart:
    description:
      - V(never) writes the settings but does not restart; RV(pending) lists those that wait for a restart.
      - V(if_required) restarts the server if one of these settings needs it. A restart ends all sessions, and applies
        all other pending settings.
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
  - pgops.fleet.attributes.library
seealso:
  - module: pgops.fleet.pg_ops_settings
"""

EXAMPLES = r"""
- name: Create the extension in the ops database and in the database shop
  pgops.fleet.pg_ops_statements:
    instance: 17-main
    databases: [shop]
    restart: if_required
  become: true

- name: Remove it
  pgops.fleet.pg_ops_statements:
    instance: 17-main
    databases: [shop]
    state: absent
    restart: if_required
  become: true
"""

RETURN = r"""
changes:
  description: The changes, made or predicted, in order.
  returned: success
  type: list
  elements: str
  sample: [update setting shared_preload_libraries, restart server]
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
      subject: extension pg_stat_statements in database pgops
      before: null
      after: {version: "1.12"}
pending:
  description: All settings of the server that wait for a restart, as M(pgops.fleet.pg_ops_settings) returns them.
  returned: success
  type: list
  elements: dict
deferred:
  description: Always empty; for compatibility with M(pgops.fleet.pg_ops_settings).
  returned: success
  type: list
  elements: dict
kept:
  description: Always empty; for compatibility with M(pgops.fleet.pg_ops_settings).
  returned: success
  type: list
  elements: str
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
skipped_reason:
  description: Reason why the extension was not changed.
  returned: on a standby
  type: str
predictable:
  description: Whether check mode could know what a run would change.
  returned: success
  type: bool
  sample: true
settings:
  description: The settings that pg_stat_statements needs, whether or not this module applies them.
  returned: with O(state=present)
  type: dict
  sample: {shared_preload_libraries: [pg_stat_statements], pg_stat_statements.max: "5000"}
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: unsupported
"""

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import reporting

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
    **reporting.LIBRARY,
}


def main() -> None:
    """Parse, call the library, report."""
    needed = [("state", "absent", ["instance"])]
    module = reporting.Module(argument_spec=SPEC, required_if=needed, supports_check_mode=True)
    deploy = reporting.library(module, "statements.deploy")
    target = reporting.target(module.params)
    reporting.report(module, lambda: deploy.converge(target, module.params, module.check_mode))


if __name__ == "__main__":
    main()
