# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""That a drill leaves production alone: what production is before and after it, and what the restored server has to
do with anything outside of its own directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..server.session import Session
from . import drill_place
from .configuring import PLACES, Served
from .resources import ACTING

# A subscription that copies a table has a slot of its own meanwhile.
SERVER = """
SELECT s.system_identifier::text AS identifier, pg_postmaster_start_time()::text AS started,
       current_setting('port') AS port, current_setting('data_directory') AS data,
       current_setting('server_version_num')::integer / 10000 AS major, pg_is_in_recovery() AS in_recovery,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                       '0/0')::bigint AS written,
       CASE WHEN pg_is_in_recovery() THEN c.timeline_id
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END AS timeline,
       ARRAY(SELECT r.slot_name::text FROM pg_replication_slots AS r
             WHERE NOT r.temporary AND r.slot_name !~ '^pg_[0-9]+_sync_' ORDER BY 1) AS slots,
       ARRAY(SELECT pg_tablespace_location(t.oid) FROM pg_tablespace AS t
             WHERE pg_tablespace_location(t.oid) LIKE '/%' ORDER BY 1) AS spaces
FROM pg_control_system() AS s, pg_control_checkpoint() AS c
"""
SETTINGS = "SELECT s.name, s.setting FROM pg_settings AS s WHERE s.name = ANY (%s)"
NOTHING = {
    "archive_mode": "off",
    "archive_library": "",
    "huge_pages": "off",
    "listen_addresses": "",
    "max_logical_replication_workers": "0",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
}
"""The settings by which a server has nothing to do with others."""
SOCKET = re.compile(r"socket:\[(\d+)\]\Z")
TABLES = ("tcp", "tcp6", "udp", "udp6")
"""Of /proc/net, with the sockets of the network; the inode is in the tenth column (proc_pid_net(5))."""
INODE = 9


@dataclass(frozen=True)
class Production:
    """A server that must not be touched. ``inodes`` are device and inode of its directories by their paths."""

    identifier: str
    started: str
    port: str
    data: str
    major: int
    in_recovery: bool
    written: int
    timeline: int
    slots: tuple[str, ...]
    spaces: tuple[str, ...]
    inodes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def generation(self) -> str:
        """The generation of the repository that it archives into."""
        return f"{self.identifier}-{self.major}"


def seen(session: Session) -> Production:
    """What production is now, from a superuser's session. Raises QueryFailed."""
    row = session.rows(SERVER)[0]
    paths = (row["data"], os.path.join(row["data"], "pg_wal"), *row["spaces"])
    lists = {name: tuple(row[name]) for name in ("slots", "spaces")}
    return Production(**{**row, **lists}, inodes={path: _inode(path) for path in paths})


def _inode(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def changed(before: Production, after: Production) -> list[str]:
    """What of production is not as it was, in words; nothing where it has only worked. Pure."""
    kept = ("identifier", "started", "port", "data", "spaces")
    words = {
        "identifier": "the system identifier",
        "started": "the start of the server",
        "port": "the port",
        "data": "the data directory",
        "spaces": "the tablespaces",
    }
    found = [
        f"{words[name]} was {getattr(before, name)}, and is {getattr(after, name)}"
        for name in kept
        if getattr(before, name) != getattr(after, name)
    ]
    gone = sorted(set(before.slots) - set(after.slots))
    found += [f"replication slot {name} is gone" for name in gone]
    return found + [
        f"{path} is another directory" for path, one in before.inodes.items() if after.inodes.get(path, one) != one
    ]


def settings_at_fault(found: Mapping[str, str], scratch: str) -> list[str]:
    """Which settings of a restored server let it reach out of its directory. Pure."""
    wrong = [f"{name} is {found[name]!r}" for name, value in NOTHING.items() if found.get(name, value) != value]
    wrong += [
        f"{name} is {found[name]}"
        for name in (*PLACES, "unix_socket_directories")
        if found.get(name) and not found[name].startswith(f"{scratch}/")
    ]
    loaded = (os.path.basename(name.strip(' "')) for name in found.get("shared_preload_libraries", "").split(","))
    return wrong + [f"{name} is loaded" for name in loaded if name.partition(".")[0] in ACTING]


def faults(session: Session, served: Served, scratch: str, spaces: Iterable[str], others: Sequence[str]) -> list[str]:
    """How a restored server that runs reaches out of its directory, in words: by settings, tablespaces, sockets of
    the network, or files below the directories of ``others``.

    Raises QueryFailed.
    """
    names = [*NOTHING, *PLACES, "unix_socket_directories", "shared_preload_libraries"]
    wrong = settings_at_fault({row["name"]: row["setting"] for row in session.rows(SETTINGS, [names])}, scratch)
    wrong += [f"a tablespace is in {path}" for path in spaces if not path.startswith(f"{scratch}/")]
    wrong += [f"pg_tblspc leads to {path}" for path in _links(served.data) if not path.startswith(f"{scratch}/")]
    there = drill_place.open_files(drill_place.processes(scratch))
    return wrong + outside(there, network_sockets(), others)


def _links(data: str) -> list[str]:
    folder = os.path.join(data, "pg_tblspc")
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [os.path.realpath(path) for path in paths if os.path.islink(path)]


def outside(there: Iterable[str], network: set[str], others: Sequence[str]) -> list[str]:
    """Which of what processes have open is of the network, or below the directories of ``others``, in words. Pure."""
    found = []
    for one in there:
        socket = SOCKET.match(one)
        if socket and socket.group(1) in network:
            found.append(f"it has a socket of the network ({one})")
        elif any(one.startswith(f"{path.rstrip('/')}/") for path in others):
            found.append(f"it has {one} open")
    return found


def network_sockets(folder: str = "/proc/self/net") -> set[str]:
    """The inodes of all sockets of the network that this process can know of."""
    found = set()
    for table in TABLES:
        try:
            with open(os.path.join(folder, table), encoding="utf-8", errors="replace") as file:
                found |= {line.split()[INODE] for line in list(file)[1:] if len(line.split()) > INODE}
        except FileNotFoundError:  # without IPv6
            continue
    return found
