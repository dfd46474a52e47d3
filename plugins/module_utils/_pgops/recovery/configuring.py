# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration of a restored server: what it needs to recover, and what a copy must not do to its original."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..host import files
from ..host.files import File
from ..settings import autoconf
from . import resources
from .targets import STALE

SIGNAL, STANDBY = "recovery.signal", "standby.signal"
PLACES = ("data_directory", "hba_file", "ident_file", "external_pid_file", "config_file")
"""Parameters that name files of the original by their paths. A server with its original's data_directory would start
in that."""
MAIN = {"config_file": "postgresql.conf", "hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"}
"""The names of files in the data directory, by the parameters that name them elsewhere."""
LINE = re.compile(rf"\s*({'|'.join(PLACES)})\s*(?:=|\s)", re.IGNORECASE)
INCLUDE = re.compile(r"\s*include(?:_dir)?\s*(?:=\s*|\s)'?([^'#\n]+?)'?\s*(?:#.*)?$", re.IGNORECASE)
"""A line that includes a file or a directory, without which the server does not start."""
FETCH = "restore_command"
HBA = "pgops-recovery-hba.conf"
"""Who may log in during recovery: whoever gets into the data directory, where the socket is."""
PORT = 5432
"""Of a socket in a directory of its own."""


@dataclass(frozen=True)
class Served:
    """How a restored server is reached. ``copy``: it is not in its original's place, and must leave that alone.
    ``port`` is 0 for a server that can only be reached by a socket in its data directory. ``preload`` are the
    libraries of a copy, None for its original's, ``shared_buffers`` its memory, '' likewise. ``alone``: a copy that
    is only looked at, which has nothing of its original's but the data."""

    data: str
    copy: bool
    port: int = 0
    preload: tuple[str, ...] | None = None
    shared_buffers: str = ""
    alone: bool = False


ALONE = {
    "autovacuum": "off",
    "bonjour": "off",
    "default_tablespace": "",
    "local_preload_libraries": "",
    "session_preload_libraries": "",
    "temp_tablespaces": "",
    "unix_socket_group": "",
}
"""What a server need not do that is only looked at."""


def own_settings(served: Served) -> dict[str, str]:
    """The settings by which a copy leaves its original alone; none for a server in its original's place, which must
    archive: without the history file of its new timeline the WAL after it cannot be restored."""
    if not served.copy:
        return {}
    return {
        "archive_mode": "off",
        "archive_command": "",
        "archive_library": "",
        # It would take its original's place in replication, and move the slots of its publishers.
        "max_logical_replication_workers": "0",
        "synchronous_standby_names": "",
        "cron.launch_active_jobs": "off",
        **({} if served.preload is None else {"shared_preload_libraries": resources.listed(served.preload)}),
        **({"shared_buffers": served.shared_buffers} if served.shared_buffers else {}),
        "listen_addresses": "localhost" if served.port else "",
        "port": str(served.port or PORT),
        "unix_socket_directories": served.data,
        "ssl": "off",  # its key may be elsewhere, and nobody comes over the network
        "log_directory": "log",
        "external_pid_file": "",
        # Those of the host may be its original's.
        "huge_pages": "off" if served.alone else "try",
        **(ALONE if served.alone else {}),
    }


def recovery_options(served: Served) -> dict[str, str]:
    """The settings of the server's command line while it recovers: nobody but us reaches it."""
    return {
        "data_directory": served.data,
        "hba_file": os.path.join(served.data, HBA),
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": served.data,
        "unix_socket_permissions": "0700",
        "hot_standby": "on",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_min_messages": "warning",
        "lc_messages": "C",  # what it says of its target is read
        "ssl": "off",
        "external_pid_file": "",
        # All files have just been flushed: it need not do so for each of them, which takes seconds for a thousand.
        "recovery_init_sync_method": "syncfs",
        # What the files have for standbys would be done here as well.
        "archive_cleanup_command": "",
        "recovery_end_command": "",
        "recovery_min_apply_delay": "0",
        "primary_conninfo": "",
        "primary_slot_name": "",
        **({"allow_in_place_tablespaces": "on"} if has_tablespaces_in_place(served.data) else {}),
        # No file of the original's has the last word on these.
        **({**own_settings(served), "ident_file": _ident(served)} if served.alone else {}),
    }


def _ident(served: Served) -> str:
    return os.path.join(served.data, MAIN["ident_file"])


def has_tablespaces_in_place(data: str) -> bool:
    """Whether a data directory has tablespaces that are no links. Without allow_in_place_tablespaces, with which they
    were made, PostgreSQL takes them for what a copy without links has left, and does not recover."""
    with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(data, "pg_tblspc")) as found:
        return any(entry.is_dir(follow_symlinks=False) for entry in found)
    return False


def write(served: Served, recovery: Mapping[str, str]) -> str | None:
    """Write the settings of a recovery into a data directory, in place of those of former ones, and what makes the
    server recover. Returns the restore_command of a server in its original's place, which it is to have again.

    Raises HostFailed.
    """
    path = os.path.join(served.data, autoconf.NAME)
    found = files.read(path)
    text = found.content.decode("utf-8", "surrogateescape") if found else ""
    own = own_settings(served)
    former = None if served.copy else autoconf.values(text).get(FETCH)
    # Those of the recovery in their order: with two targets at a time the server would not start.
    settings: dict[str, str | None] = {**dict.fromkeys(STALE), **own}
    text = autoconf.replaced(autoconf.replaced(text, settings), recovery)
    hba = "# Only during recovery.\nlocal all all trust\n"
    files.apply(
        [
            File(path, text.encode("utf-8", "surrogateescape"), 0o600),
            File(os.path.join(served.data, HBA), hba.encode(), 0o600),
            File(os.path.join(served.data, SIGNAL), b"", 0o600),
        ]
    )
    files.discard(os.path.join(served.data, STANDBY))
    return former


def settle(served: Served, former: str | None) -> None:
    """Take back what only the recovery needed, once it is over. Raises HostFailed."""
    path = os.path.join(served.data, autoconf.NAME)
    found = files.read(path)
    text = found.content.decode("utf-8", "surrogateescape") if found else ""
    cleaned = autoconf.replaced(text, {**dict.fromkeys(STALE), FETCH: former})
    files.apply([File(path, cleaned.encode("utf-8", "surrogateescape"), 0o600)])
    files.discard(os.path.join(served.data, HBA))


def adopt(backup: str, recorded: Iterable[Mapping[str, Any]], served: Served) -> list[str]:
    """Put configuration files that were outside of the data directory into that of a copy, and have none of its files
    name those of the original. ``recorded`` is what the manifest of a backup says of them. Returns the paths of files
    that have no place there.

    Raises HostFailed.
    """
    places = placed(recorded)
    try:
        for inside, target in places.items():
            content = files.contents(os.path.join(backup, inside))
            path = os.path.join(served.data, target)
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            files.apply([File(path, content, 0o600)])
    except OSError as error:
        raise files.failure(error, f"{error.filename or backup} cannot be read") from error
    _detach(served.data, [*places.values(), "postgresql.conf"])
    return [str(one["path"]) for one in recorded if one["file"] not in places]


def placed(recorded: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """By the files of a backup where they belong in a data directory: the main ones under their usual names, others
    where they are in relation to postgresql.conf. Pure."""
    main = next((str(one["path"]) for one in recorded if one["name"] == "config_file"), "")
    folder = os.path.dirname(main)
    found = {}
    for one in recorded:
        path = str(one["path"])
        if one["name"] in MAIN:
            found[str(one["file"])] = MAIN[one["name"]]
        elif folder and path.startswith(f"{folder}/"):
            found[str(one["file"])] = os.path.relpath(path, folder)
    return found


def _detach(data: str, names: Iterable[str]) -> None:
    for name in sorted({name for name in names if name.endswith(".conf")}):
        path = os.path.join(data, name)
        found = files.read(path)
        if found is None or found.kind != "file":
            continue
        text = found.content.decode("utf-8", "surrogateescape")
        changed = detached(text, functools.partial(_there, os.path.dirname(path)))
        if changed != text:
            files.apply([File(path, changed.encode("utf-8", "surrogateescape"), found.mode)])


def _there(folder: str, included: str) -> bool:
    return os.path.exists(os.path.join(folder, included))


def detached(text: str, exists: Callable[[str], bool] = lambda _path: True) -> str:
    """A configuration file's text without the parameters that name files of the original, and without what it
    includes and does not exist in the copy, such as a directory in which no file was. Pure."""

    def kept(line: str) -> bool:
        included = INCLUDE.match(line)
        return not LINE.match(line) and (included is None or exists(included.group(1)))

    return "".join(line if kept(line) else f"#pgops restore: {line}" for line in text.splitlines(keepends=True))
