#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's archiving."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_archiving
short_description: Archive WAL into a repository, and check that it arrives
version_added: 0.1.0
description:
  - Creates the repository of a cluster, a directory with a generation for each system identifier and major version.
    The file system is tested first. The module refuses the repository of another cluster, a directory that is not
    empty, what belongs to another user, and a file system that is not mounted.
  - All of the repository is made, tried and read by the server's user. Root needs no rights on its file system.
  - The program that C(archive_command) runs is installed by M(pgops.fleet.pg_ops_agent). It never overwrites a file,
    never leaves an incomplete file under a segment's name, writes only into a repository, and checks that the WAL
    belongs to this system identifier.
  - Applies the settings in the same kind of transaction as M(pgops.fleet.pg_ops_settings). C(archive_mode) needs a
    restart; see O(restart).
  - Before the settings name the program, it is run as the server's user, on standbys as well, and writes a file into
    the repository that is removed again.
  - Unless the server has archived since it has these settings and this program, switches a WAL segment, and compares
    the file in the repository with what the server has sent.
  - After C(pg_upgrade), creates a new generation; the old one stays as it is.
  - Archive settings of other tools are replaced only with O(replace).
author:
  - The pgops.fleet contributors (@pgops)
options:
  instance:
    description: Name of the instance. The original settings are recorded under this name on the host.
    type: str
    required: true
  state:
    description:
      - V(absent) restores the settings that this module has set. The repository and its contents stay.
      - Settings that M(pgops.fleet.pg_ops_settings) has set, as in C(site.yml), are restored by that module.
      - RV(kept) names what must wait for a restart.
    type: str
    choices: [present, absent]
    default: present
  cluster:
    description: Name of the cluster. Required with O(state=present).
    type: str
  repository:
    description:
      - Directory of the cluster's repository, the same file system on all nodes. Its parent directory must exist.
        Required with O(state=present).
      - It is read and written as the server's user. Where only root may write, root creates it and gives it to that
        user.
    type: path
  mount:
    description: Mount point of the repository's file system. If nothing is mounted there, nothing is created.
    type: path
  compression:
    description: Compression of segments. After a change, existing files stay readable.
    type: str
    choices: [none, zstd, lz4, gzip]
    default: none
  timeout:
    description:
      - Seconds after which a segment with data is archived although it is not full (C(archive_timeout)). It limits
        the loss if the server is lost; V(0) means never.
    type: int
    default: 600
  replace:
    description: Whether to replace C(archive_command) or C(archive_library) of another tool.
    type: bool
    default: false
  fetch:
    description:
      - Whether to set C(restore_command), by which a standby gets WAL from the repository that it cannot stream.
      - A missing, damaged or unreachable repository does not stop a standby, which goes on streaming. It does stop a
        recovery to a point in time, which would otherwise end too early.
      - Another value of C(restore_command) stays unless O(replace) is set, with a warning.
    type: bool
    default: true
  another_server:
    description:
      - Whether a server with another system identifier, and the same or an older major version, may use the
        repository of a cluster of this name; for instance a server that was created anew.
    type: bool
    default: false
  engine:
    description:
      - Where WAL goes. With V(native) it goes into the repository itself, with V(pgbackrest) into a stanza of
        pgBackRest, whose name is that of the cluster; the module writes its configuration, and creates the stanza.
      - pgBackRest has to support the version of the server, which it is asked for before anything is changed.
      - What the other engine has stays, and can be restored.
    type: str
    choices: [native, pgbackrest]
    default: native
  pgbackrest:
    description:
      - Options of pgBackRest's section C(global) by their own names, of repositories, connections and parallelism,
        such as C(repo1-type), C(repo1-s3-bucket) and C(process-max). C(repo1-path) is by default C(pgbackrest) in
        O(repository), and in an object store the name of the cluster.
    type: dict
    default: {}
  pgbackrest_secrets:
    description:
      - Its options that are secret, such as C(repo1-cipher-pass), C(repo1-s3-key) and C(repo1-s3-key-secret). They
        are written into a file of root's that the server's user can read.
    type: dict
    default: {}
  configure:
    description:
      - V(false) does not change settings. Use it if M(pgops.fleet.pg_ops_settings) applies RV(settings) with others,
        in one transaction.
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

- name: Restore the previous archive settings
  pgops.fleet.pg_ops_archiving:
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
  sample: [create directory /backup/orders, update setting archive_mode, restart server]
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
      subject: setting archive_mode
      before: "off"
      after: "on"
proven:
  description:
    - V(true) if WAL has arrived in the repository.
    - Null if that was not tested, as in check mode, on a standby, and while settings wait for a restart.
  returned: with O(state=present)
  type: bool
  sample: true
segment:
  description: Segment that arrived; null if not tested.
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
  description: Always empty; for compatibility with M(pgops.fleet.pg_ops_settings).
  returned: success
  type: list
  elements: dict
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
  sample: conflict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

SPEC = {
    "instance": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "cluster": {"type": "str"},
    "repository": {"type": "path"},
    "mount": {"type": "path"},
    "compression": {"type": "str", "choices": ["none", "zstd", "lz4", "gzip"], "default": "none"},
    "timeout": {"type": "int", "default": 600},
    "replace": {"type": "bool", "default": False},
    "fetch": {"type": "bool", "default": True},
    "another_server": {"type": "bool", "default": False},
    "engine": {"type": "str", "choices": ["native", "pgbackrest"], "default": "native"},
    "pgbackrest": {"type": "dict", "default": {}, "no_log": False},
    "pgbackrest_secrets": {"type": "dict", "default": {}, "no_log": True},
    "configure": {"type": "bool", "default": True},
    "restart": {"type": "str", "choices": ["never", "if_required"], "default": "never"},
    "prefix": {"type": "path", "default": "/"},
    **arguments.CONNECTION,
}
NEEDED = [("state", "present", ["cluster", "repository"])]


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, required_if=NEEDED, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
