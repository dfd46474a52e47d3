#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's door to the library's restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_ops_restore
short_description: Restore a backup, and recover it to a moment
version_added: 0.1.0
description:
  - Fills a data directory from the newest backup in a repository from which the target can be reached, replays WAL up
    to the target, compares what was reached with it, and then promotes the server, leaves it waiting, or stops it.
  - Needs the repository and the programs of the server's version, and nothing else.
  - All that can refuse refuses before a byte is written. A target that cannot be reached is refused with those that
    can. Check mode is the plan.
  - Every file is compared with the backup's checksums before the server starts.
  - A copy does not archive, does not replicate, has no logical replication workers, and can only be reached by a
    socket in its directory unless it gets a O(port).
  - In place, the old data is moved aside and never deleted. If the restore fails, it is put back.
  - What a killed restore has left is removed by the next one into the same directory.
  - Every run restores; a directory that is in use or not empty is refused.
author:
  - The pgops.fleet contributors (@pgops)
options:
  repository:
    description: Directory of the cluster's repository.
    type: path
    required: true
  generation:
    description: Name of the generation in it, as V(7412345678901234567-17). Needed only if there are several.
    type: str
    default: ""
  directory:
    description: The data directory. It must be empty or not exist, unless with O(in_place).
    type: path
    required: true
  time:
    description: Recover to this time. It must have a zone, as in V(2026-11-29 15:30:00+01:00).
    type: str
  lsn:
    description: Recover to this LSN, as in V(16/B374D848).
    type: str
  name:
    description: Recover to the restore point of this name.
    type: str
  xid:
    description: Recover to the end of this transaction.
    type: str
  immediate:
    description: Recover to the end of the newest backup, and no further.
    type: bool
    default: false
  latest:
    description: Recover to the newest moment.
    type: bool
    default: false
  timeline:
    description:
      - Recover on the line that leads to this timeline. Without it, on the line with the newest transaction, whatever
        promotions of copies have left in the repository.
    type: int
  inclusive:
    description: Whether the record that is exactly at the time, LSN or transaction is recovered as well.
    type: bool
    default: true
  end:
    description:
      - What becomes of the server that has reached its target. V(promote) lets it write, on a new timeline.
      - V(paused) leaves it waiting, to be looked at and then promoted by C(SELECT pg_promote()).
      - V(shutdown) stops it at the target.
      - With O(latest) only V(promote) is possible.
    type: str
    choices: [promote, paused, shutdown]
    default: promote
  in_place:
    description:
      - Whether O(directory) is the original's own. Its server must be stopped. The old data is moved to
        C(DIRECTORY.before-restore-TIME).
      - If the directory is empty or does not exist, as after the loss of a disk, it is filled.
      - The server keeps its configuration, and archives the history of its new timeline.
    type: bool
    default: false
  start:
    description: Whether the server is started in its usual way in the end, with O(in_place) and O(end=promote).
    type: bool
    default: true
  unit:
    description: The systemd unit that starts it. Not needed for a Debian cluster; without one C(pg_ctl) is used.
    type: str
    default: ""
  tablespace_map:
    description:
      - The directory of a tablespace on the original, and the one that it gets.
      - A tablespace that is not named here goes where it was; that is refused if something is there.
    type: dict
    default: {}
  bin_directory:
    description:
      - Directory of the programs of the server's version, with C(pg_waldump), C(pg_verifybackup) and for incremental
        backups C(pg_combinebackup). Without it those of the packages are used.
    type: path
  server_bin_directory:
    description: Directory of C(postgres) and C(pg_ctl), if it is another one.
    type: path
  port:
    description: The port of a copy, on localhost. V(0) leaves it with a socket in its directory only.
    type: int
    default: 0
  superuser:
    description: A superuser of the server. Without it, the role named like the server's user, or C(postgres).
    type: str
    default: ""
  configuration:
    description: With O(in_place), the server's main configuration file, if it is not where it was at the backup.
    type: path
  owner:
    description: The user that runs the server. Without it, the owner of the directory O(repository).
    type: str
    default: ""
  search_directory:
    description:
      - Directory in which WAL is unpacked, a few segments at a time, to look for the target. Without it, it is done
        beside the data directory. Nothing is left there.
    type: path
  search_seconds:
    description:
      - Seconds after which the search of a target is given up, and the restore refused; V(0) for never. A restore
        point that does not exist is known only when all WAL has been read.
    type: int
    default: 0
  preload:
    description:
      - The libraries that a copy preloads, V([]) for none. Without it, those of its original but for those that act
        on the world, as C(pg_cron), C(pglogical) and C(repmgr) do.
      - A library that is not on the host is refused, in place as well.
    type: list
    elements: str
  shared_buffers:
    description:
      - The C(shared_buffers) of a copy, as in V(512MB). Without it, those of its original, or a quarter of the memory
        that is available, if that is less.
    type: str
    default: ""
extends_documentation_fragment:
  - pgops.fleet.attributes
attributes:
  idempotent:
    support: none
    details: Each run restores.
notes:
  - Runs on the host that gets the data directory, as root or as the server's user.
seealso:
  - module: pgops.fleet.pg_ops_archiving
"""

EXAMPLES = r"""
- name: Copy the cluster as it was before the table was dropped
  pgops.fleet.pg_ops_restore:
    repository: /backup/orders
    directory: /srv/restored
    time: "2026-11-29 15:30:00+01:00"
  become: true

- name: Take the server itself back to a restore point
  pgops.fleet.pg_ops_restore:
    repository: /backup/orders
    directory: /var/lib/postgresql/17/main
    in_place: true
    name: before_migration
  become: true
"""

RETURN = r"""
changes:
  description: The changes, made or predicted, in order.
  returned: success
  type: list
  elements: str
  sample: [restore data directory /srv/restored]
prediction:
  description:
    - The same as data, with the state before and after each change.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(restore).
      type: str
    subject:
      description: The thing that is changed, as in RV(changes).
      type: str
    before:
      description: State before the change; null for a new directory.
      type: raw
    after:
      description: State after the change.
      type: raw
  sample:
    - action: restore
      subject: data directory /srv/restored
      before: null
      after: {backup: 20261129T013000Z-full-6c84fb90, end: promote, target: latest, timeline: 1}
backup:
  description: The backup that is used, and in C(chain) the names of all that it stands on.
  returned: success
  type: dict
  sample:
    name: 20261129T013000Z-full-6c84fb90
    id: 6c84fb90-12c4-11e1-840d-7b25c5ee775a
    kind: full
    completed_at: "2026-11-29T01:31:00+00:00"
    stop_lsn: 16/B374D848
    chain: [20261129T013000Z-full-6c84fb90]
generation:
  description: The generation of the repository.
  returned: success
  type: str
  sample: 7412345678901234567-17
timeline:
  description: The timeline to which the replayed WAL leads.
  returned: success
  type: int
  sample: 1
target:
  description: The target, with times in UTC.
  returned: success
  type: str
  sample: time 2026-11-29 14:30:00.000000+00
end:
  description: What becomes of the server at its target.
  returned: success
  type: str
  sample: promote
directory:
  description: The data directory.
  returned: success
  type: str
  sample: /srv/restored
tablespaces:
  description: The directories of the tablespaces by their OIDs.
  returned: success
  type: dict
  sample: {"16385": /srv/fast}
first_segment:
  description: The first WAL segment that is replayed.
  returned: success
  type: str
  sample: "00000001000000160000000A"
last_segment:
  description: The last WAL segment that may be replayed.
  returned: success
  type: str
  sample: "0000000100000016000000B3"
last_commit:
  description: When the last transaction in the WAL ended; null if that was not looked for.
  returned: success
  type: str
  sample: "2026-11-29 15:12:07.123456+00"
space:
  description: The bytes that each directory needs, and those that are free there.
  returned: success
  type: dict
  sample: {/srv/restored: {needed: 2147483648, free: 53687091200}}
predicted:
  description:
    - The seconds that the restore will take, and those of its C(parts), each with its C(basis) - restores before this
      one on the host, V(here), or V(elsewhere), whose record is in the repository; the time that the full V(backup)
      took; or V(assumed), a guess. The C(basis) of the whole is the weakest of them.
    - After a restore, the forecast before it, to be compared with RV(phases).
  returned: success
  type: dict
  sample: {seconds: 754.2, basis: here, parts: [{part: copy, seconds: 540.0, basis: here}]}
reached:
  description:
    - The end of what was replayed (C(lsn)), the time of the last transaction in it (C(time)), and the timeline of the
      server now. Null in check mode.
  returned: success
  type: dict
  sample: {lsn: 16/B374D848, time: "2026-11-29 14:29:58.123456+00", timeline: 2}
phases:
  description: The phases of the restore and the seconds that each took.
  returned: success
  type: list
  elements: dict
  sample: [{phase: copy, seconds: 12.5}]
moved:
  description: Directories whose old content was moved aside, and where it is now.
  returned: success
  type: dict
  sample: {/var/lib/postgresql/17/main: /var/lib/postgresql/17/main.before-restore-20261129T143000Z}
fetched_ahead:
  description: How many WAL segments were fetched before replay asked for them. Null in check mode.
  returned: success
  type: int
  sample: 321
socket_directory:
  description: The socket's directory of a server that was left running; null if none was.
  returned: success
  type: str
  sample: /srv/restored
port:
  description: Its port.
  returned: success
  type: int
  sample: 5432
started:
  description: Whether the server was started in its usual way.
  returned: success
  type: bool
  sample: false
predictable:
  description: Whether check mode could know what a run would change.
  returned: success
  type: bool
  sample: true
code:
  description: A stable word for the kind of error.
  returned: failure
  type: str
  sample: invalid_input
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments

SPEC = {
    "repository": {"type": "path", "required": True},
    "generation": {"type": "str", "default": ""},
    "directory": {"type": "path", "required": True},
    "time": {"type": "str"},
    "lsn": {"type": "str"},
    "name": {"type": "str"},
    "xid": {"type": "str"},
    "immediate": {"type": "bool", "default": False},
    "latest": {"type": "bool", "default": False},
    "timeline": {"type": "int"},
    "inclusive": {"type": "bool", "default": True},
    "end": {"type": "str", "choices": ["promote", "paused", "shutdown"], "default": "promote"},
    "in_place": {"type": "bool", "default": False},
    "start": {"type": "bool", "default": True},
    "unit": {"type": "str", "default": ""},
    "tablespace_map": {"type": "dict", "default": {}},
    "bin_directory": {"type": "path"},
    "server_bin_directory": {"type": "path"},
    "port": {"type": "int", "default": 0},
    "superuser": {"type": "str", "default": ""},
    "configuration": {"type": "path"},
    "owner": {"type": "str", "default": ""},
    "search_directory": {"type": "path"},
    "search_seconds": {"type": "int", "default": 0},
    "preload": {"type": "list", "elements": "str"},
    "shared_buffers": {"type": "str", "default": ""},
}


def main() -> None:
    """For Ansible's tools, which read the arguments here; the action plugin is what runs."""
    AnsibleModule(argument_spec=SPEC, supports_check_mode=True).fail_json(msg=arguments.BY_ACTION)


if __name__ == "__main__":
    main()
