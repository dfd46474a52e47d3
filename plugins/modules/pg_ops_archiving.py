#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's archiving."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_archiving
short_description: Archive WAL into a repository, and prove that it arrives
version_added: 0.1.0
description:
  - Initialises the repository of a cluster, a directory with a generation for every system identifier and major
    version. Its file system is tried first. A repository of another cluster, a directory that is not empty, and one
    whose file system is not mounted are refused.
  - Installs the program that C(archive_command) runs. It never overwrites, never leaves half a file under a segment's
    name, writes nowhere but into an initialised repository, and checks whose WAL it is given.
  - Sets the server by the same transaction as M(pgops.fleet.pg_ops_settings). C(archive_mode) takes a restart, see
    O(restart).
  - Switches a WAL segment, and compares what arrives in the repository with what the server has sent, where the
    server has not shown yet that archiving works.
  - After C(pg_upgrade) it opens a new generation; the old one stays as it is.
  - Archive settings of other tools are never overwritten silently, see O(replace).
author:
  - The pgops.fleet contributors (@pgops)
options:
  instance:
    description: Name of the instance. What the settings were before is kept under it on the host.
    type: str
    required: true
  state:
    description:
      - V(absent) puts the settings back that this module has set. The repository stays, with all that is in it.
      - Those that M(pgops.fleet.pg_ops_settings) has set, as in C(site.yml), are put back by that module.
      - RV(kept) says what has to wait for a restart.
    type: str
    choices: [present, absent]
    default: present
  cluster:
    description: Name of the cluster. Required with O(state=present).
    type: str
  repository:
    description:
      - Directory of the cluster's repository, on each of its nodes the same file system. The directory above it has
        to be there. Required with O(state=present).
    type: path
  mount:
    description: The directory at which the repository's file system is mounted; where it is not, nothing is made.
    type: path
  compression:
    description: How segments are stored. What is in the repository already stays readable when this is changed.
    type: str
    choices: [none, zstd, lz4, gzip]
    default: none
  timeout:
    description:
      - Seconds after which a segment with anything in it is archived though it is not full (C(archive_timeout)), so
        the most that is lost with the server; 0 for never.
    type: int
    default: 600
  replace:
    description: Whether C(archive_command) or C(archive_library) of another tool are replaced.
    type: bool
    default: false
  another_server:
    description:
      - Whether a server with another system identifier, and no newer major version, may take its place in the
        repository of a cluster of this name, for instance one that was made anew.
    type: bool
    default: false
  configure:
    description:
      - V(false) leaves the settings alone, for where M(pgops.fleet.pg_ops_settings) brings RV(settings) into force
        with others, in one transaction.
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
notes:
  - Runs on the server's own host, as root or as the server's user.
seealso:
  - module: pgops.fleet.pg_ops_settings
"""

EXAMPLES = r"""
- name: Archive into a file system of its own
  pgops.fleet.pg_ops_archiving:
    instance: 17-main
    cluster: orders
    repository: /backup/orders
    mount: /backup
    compression: zstd
    restart: if_required
  become: true

- name: Leave archiving to whatever did it before
  pgops.fleet.pg_ops_archiving:
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
  sample: [create directory /backup/orders, update setting archive_mode, restart server]
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
      subject: setting archive_mode
      before: "off"
      after: "on"
proven:
  description:
    - V(true) where WAL has arrived in the repository.
    - Null where that could not be tried, in check mode, on a standby, and while settings wait for a restart.
  returned: with O(state=present)
  type: bool
  sample: true
segment:
  description: The segment that proves it, null without a proof.
  returned: with O(state=present)
  type: str
  sample: "00000001000000000000002A"
settings:
  description: The settings that archiving needs.
  returned: with O(state=present)
  type: dict
  sample: {archive_mode: "on", archive_timeout: "600"}
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
  sample: conflict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import reporting
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.repository import deploy

SPEC = {
    "instance": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "cluster": {"type": "str"},
    "repository": {"type": "path"},
    "mount": {"type": "path"},
    "compression": {"type": "str", "choices": ["none", "zstd", "lz4", "gzip"], "default": "none"},
    "timeout": {"type": "int", "default": 600},
    "replace": {"type": "bool", "default": False},
    "another_server": {"type": "bool", "default": False},
    "configure": {"type": "bool", "default": True},
    "restart": {"type": "str", "choices": ["never", "if_required"], "default": "never"},
    "prefix": {"type": "path", "default": "/"},
    **reporting.connection_spec(),
}


def main() -> None:
    """Parse, call the library, report."""
    needed = [("state", "present", ["cluster", "repository"])]
    module = AnsibleModule(argument_spec=SPEC, required_if=needed, supports_check_mode=True)
    target = reporting.target(module.params)
    reporting.report(module, lambda: deploy.converge(target, module.params, module.check_mode))


if __name__ == "__main__":
    main()
