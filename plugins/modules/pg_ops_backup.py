#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_backup
short_description: Take, verify, expire, pin or list backups and dumps now
version_added: 0.1.0
description:
  - Does at once what the jobs of the agent do on their schedule, with the same configuration, which the role
    pgops_backup has written.
  - All work is done by the user that runs the server.
  - Has no O(ignore:state), since it acts. What is declared of backups, like schedules and retention, are variables of
    the role pgops_backup.
author:
  - The pgops.fleet contributors (@pgops)
options:
  instance:
    description: Name of the instance.
    type: str
    required: true
  action:
    description:
      - V(take) takes a backup, verifies it, waits until all its WAL is in the repository, and removes what retention
        no longer keeps.
      - V(dump) dumps the databases that are declared and due, or O(databases), and removes dumps that are no longer
        kept.
      - V(expire) removes what retention no longer keeps. In check mode it says what would be removed, and how the
        recovery window would shrink.
      - V(verify) verifies O(backup), or all backups and dumps, again.
      - V(pin) keeps O(backup), a backup with all that it needs or a dump, until V(unpin).
      - V(list) returns the backups and dumps.
    type: str
    choices: [take, dump, expire, verify, pin, unpin, list]
    default: take
  type:
    description:
      - Type of backup to take. V(auto) takes the one that is due.
      - V(incremental) and V(differential) need PostgreSQL 17 or later, unless pgBackRest takes them.
    type: str
    choices: [auto, full, incremental, differential]
    default: auto
  databases:
    description: Names of databases for O(action=dump), whether they are due or not.
    type: list
    elements: str
  backup:
    description: Name or UUID of a backup, or to V(pin) and V(unpin), which require it, of a dump.
    type: str
  reason:
    description: Why it is pinned.
    type: str
  prefix:
    description: The directory below which the agent is installed.
    type: path
    default: /
extends_documentation_fragment:
  - pgops.fleet.attributes
notes:
  - Runs on the server's own host, as root or as the server's user.
seealso:
  - module: pgops.fleet.pg_ops_recovery_point
  - module: pgops.fleet.pg_ops_restore
"""

EXAMPLES = r"""
- name: Take a backup before the migration
  pgops.fleet.pg_ops_backup:
    instance: 17-main
    type: full
  become: true
  register: before

- name: Keep it
  pgops.fleet.pg_ops_backup:
    instance: 17-main
    action: pin
    backup: "{{ before.backup }}"
    reason: Before the migration
  become: true
"""

RETURN = r"""
changes:
  description: The changes, made or predicted, in order.
  returned: success
  type: list
  elements: str
  sample: [create full backup]
prediction:
  description: The same as data, with the state before and after each change.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(update) or V(remove).
      type: str
    subject:
      description: The thing that is changed, as in RV(changes).
      type: str
    before:
      description: State before the change; null if it did not exist.
      type: raw
    after:
      description: State after the change; null if it no longer exists.
      type: raw
  sample:
    - action: create
      subject: full backup
      before: null
      after: {kind: full, parent: "", why: a full one was asked for}
backup:
  description: UUID of what was taken, pinned or unpinned; null in check mode with O(action=take).
  returned: with O(action=take), O(action=pin) and O(action=unpin)
  type: str
  sample: 6c84fb90-12c4-11e1-840d-7b25c5ee775a
name:
  description: Name of its directory.
  returned: with O(action=take), O(action=pin) and O(action=unpin)
  type: str
  sample: 20261129T013000Z-full-6c84fb90
kind:
  description: Type of the backup.
  returned: with O(action=take)
  type: str
  sample: full
expected_bytes:
  description: Size in the repository that was expected before copying.
  returned: with O(action=take)
  type: int
  sample: 24117248
expected_seconds:
  description: Time that was expected; null if there is no backup to compare with.
  returned: with O(action=take)
  type: float
  sample: 12.5
wal_waiting:
  description: Number of WAL segments that waited to be archived before those of the backup.
  returned: with O(action=take)
  type: int
  sample: 0
wal_waiting_seconds:
  description: How long that would take; null if none was archived while that was measured.
  returned: with O(action=take)
  type: float
  sample: 0.0
stored_bytes:
  description: Its size in the repository; null in check mode.
  returned: with O(action=take)
  type: int
  sample: 24117248
data_bytes:
  description: The size of what is restored from it; null in check mode.
  returned: with O(action=take)
  type: int
  sample: 98566144
seconds:
  description: How long it took; null in check mode.
  returned: with O(action=take)
  type: float
  sample: 11.9
expired:
  description: Names of the backups, or dumps, that were removed after it; null in check mode.
  returned: with O(action=take) and O(action=dump)
  type: list
  elements: str
  sample: []
dumped:
  description: >-
    The dumps that were taken, each with C(database), C(name), C(id), C(path), C(node), C(started_at),
    C(completed_at), C(stored_bytes), C(data_bytes), C(compression), C(pinned) and C(problems). In check mode the
    names of the databases.
  returned: with O(action=dump)
  type: list
  elements: raw
  sample: []
fresh:
  description: Names of databases whose newest dump is not old enough for another one.
  returned: with O(action=dump)
  type: list
  elements: str
  sample: []
removed:
  description: The backups that were removed, or would be, each with C(name), C(backup), C(kind) and C(reason).
  returned: with O(action=expire)
  type: list
  elements: dict
  sample: []
wal_removed:
  description: Number of WAL files that were deleted, or would be.
  returned: with O(action=expire)
  type: int
  sample: 0
retained:
  description: The backups that stay, each with C(name), C(backup), C(kind) and C(reasons).
  returned: with O(action=expire)
  type: list
  elements: dict
  sample: []
dumps_removed:
  description: The dumps that were removed, or would be, as in RV(dumps), and C(generation).
  returned: with O(action=expire)
  type: list
  elements: dict
  sample: []
dumps_retained:
  description: The dumps that stay, each also with C(reasons).
  returned: with O(action=expire)
  type: list
  elements: dict
  sample: []
verified:
  description: Number of backups that are as they should be; null in check mode.
  returned: with O(action=verify)
  type: int
  sample: 3
dumps_verified:
  description: Number of dumps that are as they should be; null in check mode.
  returned: with O(action=verify)
  type: int
  sample: 7
damaged:
  description: What is wrong, by the names of backups and dumps. The module fails then. Null in check mode.
  returned: with O(action=verify)
  type: dict
  sample: {}
wal_verified:
  description: >-
    Number of WAL segments that were read; V(0) if a single backup was verified, of which only its own WAL is read.
    Null in check mode.
  returned: with O(action=verify)
  type: int
  sample: 420
wal_damaged:
  description: What is wrong, by the names of WAL segments. The module fails then. Null in check mode.
  returned: with O(action=verify)
  type: dict
  sample: {}
window_before:
  description: From when to when the cluster could be recovered before, by timeline.
  returned: with O(action=expire)
  type: list
  elements: dict
  sample: []
window_after:
  description: The same after it.
  returned: with O(action=expire)
  type: list
  elements: dict
  sample: []
backups:
  description: The backups, in the order of the WAL.
  returned: with O(action=list)
  type: list
  elements: dict
  contains:
    name:
      description: Name of its directory in the repository.
      type: str
    id:
      description: Its UUID.
      type: str
    kind:
      description: V(full), V(incremental) or V(differential).
      type: str
    parent:
      description: UUID of the backup that it adds to; null for a full one.
      type: str
    node:
      description: The node that was backed up.
      type: str
    started_at:
      description: When it began, ISO 8601 in UTC.
      type: str
    completed_at:
      description: When it was completed.
      type: str
    timeline:
      description: Timeline of the WAL that it needs.
      type: int
    start_lsn:
      description: Where that WAL begins.
      type: str
    stop_lsn:
      description: Where that WAL ends.
      type: str
    stored_bytes:
      description: Its size in the repository.
      type: int
    data_bytes:
      description: The size of what is restored from it.
      type: int
    compression:
      description: How it is compressed.
      type: str
    pinned:
      description: Why it is pinned; null if it is not.
      type: str
    problems:
      description: What its last verification found.
      type: list
      elements: str
dumps:
  description: The dumps, by database, and in the order of the WAL.
  returned: with O(action=list)
  type: list
  elements: dict
  contains:
    name:
      description: Name of its directory.
      type: str
    id:
      description: Its UUID.
      type: str
    database:
      description: Name of the database; bytes that are no UTF-8 are escaped.
      type: str
    path:
      description: Its directory.
      type: str
    node:
      description: The node that was dumped.
      type: str
    started_at:
      description: When it began, ISO 8601 in UTC.
      type: str
    completed_at:
      description: When it was completed.
      type: str
    stored_bytes:
      description: Its size in the repository.
      type: int
    data_bytes:
      description: The size of the database on the server.
      type: int
    compression:
      description: How it is compressed.
      type: str
    pinned:
      description: Why it is pinned; null if it is not.
      type: str
    problems:
      description: What its last verification found.
      type: list
      elements: str
skipped_reason:
  description: Why nothing was done, as on a standby while the primary is backed up.
  returned: if that is so
  type: str
  sample: "standby: the primary is backed up (pgops_backup_source)"
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
    "instance": {"type": "str", "required": True},
    "action": {
        "type": "str",
        "choices": ["take", "dump", "expire", "verify", "pin", "unpin", "list"],
        "default": "take",
    },
    "type": {"type": "str", "choices": ["auto", "full", "incremental", "differential"], "default": "auto"},
    "databases": {"type": "list", "elements": "str"},
    "backup": {"type": "str"},
    "reason": {"type": "str"},
    "prefix": {"type": "path", "default": "/"},
}
NEEDED = [("action", "pin", ["backup"]), ("action", "unpin", ["backup"])]


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, required_if=NEEDED, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
