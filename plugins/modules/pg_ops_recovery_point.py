#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's recovery points."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_recovery_point
short_description: Name a moment that a cluster can be restored to
version_added: 0.1.0
description:
  - Writes a restore point into the WAL of a primary, before a release or a migration, and records it in the ops
    database. M(pgops.fleet.pg_ops_restore) restores to it by its name.
  - A name is used once. If there is a recovery point of that name already, nothing is changed, since a recovery would
    stop at the first.
  - Has no O(ignore:state=absent). A restore point is a part of the WAL, and expires with it.
  - On a standby it does nothing, and says so in RV(skipped_reason).
author:
  - The pgops.fleet contributors (@pgops)
options:
  name:
    description: Name of the recovery point, of at most 63 bytes.
    type: str
    required: true
  description:
    description: What it is for.
    type: str
  wait:
    description:
      - Whether to switch to another WAL segment, and wait until the one with the recovery point is archived. Only
        then the cluster can be restored to it.
    type: bool
    default: true
  database:
    description: Name of the ops database.
    type: str
    default: pgops
extends_documentation_fragment:
  - pgops.fleet.attributes
  - pgops.fleet.connection
notes:
  - Needs a superuser, and the role pgops_backup.
seealso:
  - module: pgops.fleet.pg_ops_restore
"""

EXAMPLES = r"""
- name: Name the moment before the release
  pgops.fleet.pg_ops_recovery_point:
    name: before-release-42
    description: Release 42, changes the table orders
  become: true
"""

RETURN = r"""
changes:
  description: The changes, made or predicted, in order.
  returned: success
  type: list
  elements: str
  sample: [create recovery point before-release-42]
prediction:
  description: The same as data, with the state before and after each change.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: Always V(create).
      type: str
    subject:
      description: The thing that is changed, as in RV(changes).
      type: str
    before:
      description: Always null.
      type: raw
    after:
      description: What it is for.
      type: raw
  sample:
    - {action: create, subject: recovery point before-release-42, before: null, after: Release 42}
point:
  description: The recovery point; null in check mode if it does not exist yet.
  returned: on a primary
  type: dict
  contains:
    id:
      description: Its UUID, C(recovery_id) of the view C(pgops.recovery_points).
      type: str
    name:
      description: Its name.
      type: str
    description:
      description: What it is for.
      type: str
    lsn:
      description: Where it is in the WAL.
      type: str
    time:
      description: When it was created, with its time zone.
      type: str
    base_backup_id:
      description: UUID of the backup from which it can be restored; null if there is none.
      type: str
    obstacle:
      description: Why it could not be restored when the repository was last looked at; null if it could.
      type: str
  sample:
    id: 6c84fb90-12c4-11e1-840d-7b25c5ee775a
    name: before-release-42
    description: Release 42
    lsn: 0/5000090
    time: "2026-11-29 15:04:05.678901+00"
    base_backup_id: 9f3c0f52-12c4-11e1-840d-7b25c5ee775a
    obstacle:
segment:
  description: The WAL segment with the recovery point, once it is archived; null if that was not waited for.
  returned: on a primary
  type: str
  sample: "000000010000000000000005"
skipped_reason:
  description: Why nothing was done.
  returned: on a standby
  type: str
  sample: "standby: the primary writes recovery points"
predictable:
  description: Whether check mode could know what a run would change.
  returned: success
  type: bool
  sample: true
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: conflict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

SPEC = {
    "name": {"type": "str", "required": True},
    "description": {"type": "str"},
    "wait": {"type": "bool", "default": True},
    "database": {"type": "str", "default": "pgops"},
    **arguments.CONNECTION,
}


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
