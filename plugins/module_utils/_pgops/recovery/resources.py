# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a restored server takes of its host: the libraries that it preloads, and shared memory.

A backup records what the original had. A copy does not get what would act on the world, nor more memory than there
is beside its original; and no server gets libraries that are not there, since it would not start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import HostFailed, InvalidInput
from ..host import commands, files

ACTING = frozenset(
    [
        "pg_cron",
        "pg_partman_bgw",
        "pg_squeeze",
        "pglogical",
        "spock",
        "bdr",
        "repmgr",
        "pgautofailover",
        "pg_failover_slots",
        "pg_net",
    ]
)
"""Libraries with workers of their own that change data, fail over, or talk to other hosts."""
LIBDIR = "$libdir"
ALWAYS_THERE = "plpgsql.so"
SHARE = 4
"""The part of the available memory that a copy may have for shared_buffers is one in so many."""
SMALLEST = 16 << 20
SIZE = re.compile(r"\d{1,9}\s*(kB|MB|GB|TB)?\Z")
"""As PostgreSQL reads shared_buffers."""
MEMINFO = "/proc/meminfo"


def preloaded(environment: Mapping[str, Any], asked: Sequence[str] | None) -> tuple[str, ...] | None:
    """The libraries that a copy preloads: those that are asked for, or its original's that do nothing by themselves;
    None where it is not known what its original had. Pure."""
    if asked is not None:
        return tuple(asked)
    recorded = environment.get("preloaded")
    return None if recorded is None else tuple(name for name in recorded if _base(name) not in ACTING)


def _base(name: str) -> str:
    return os.path.basename(name).partition(".")[0]


def listed(names: Sequence[str]) -> str:
    """The value of shared_preload_libraries. Pure."""
    return ", ".join('"{}"'.format(name.replace('"', '""')) for name in names)


def check_libraries(names: Sequence[str], environment: Mapping[str, Any], programs: str, hint: str) -> None:
    """Raises InvalidInput for libraries that a server whose programs are in a directory would not find, unless it is
    not known where it looks."""
    own = _own_directory(programs)
    if own is None:
        return
    path = str(environment.get("settings", {}).get("dynamic_library_path") or LIBDIR)
    folders = [folder.replace(LIBDIR, own) for folder in path.split(":")]
    lacking = [name for name in names if not _found(name.replace(LIBDIR, own), folders)]
    if lacking:
        raise InvalidInput(
            f"The server would preload {', '.join(lacking)}, and would not start: not in {', '.join(folders)}.",
            f"Install what has it{hint}.",
        )


def _own_directory(programs: str) -> str | None:
    """Where a server has its libraries; None if that is not known."""
    program = os.path.join(programs, "pg_config")
    if os.access(program, os.X_OK):
        return commands.run([program, "--pkglibdir"]).strip()
    for place in ("../lib", "../lib/postgresql", "../lib64"):
        found = os.path.normpath(os.path.join(programs, place))
        if os.path.exists(os.path.join(found, ALWAYS_THERE)):
            return found
    return None


def _found(name: str, folders: Sequence[str]) -> bool:
    places = [name] if os.path.dirname(name) else [os.path.join(folder, name) for folder in folders]
    return any(os.path.exists(f"{place}{ending}") for place in places for ending in ("", ".so"))


def shared_buffers(environment: Mapping[str, Any], asked: str) -> tuple[str, str]:
    """The value of shared_buffers that a copy gets, '' for its original's, and a warning if it is less than that.

    Raises InvalidInput.
    """
    if asked:
        if not SIZE.match(asked):
            raise InvalidInput(f"{asked!r} is not a size of memory.", "Write it as PostgreSQL does: 512MB.")
        return asked, ""
    settings = environment.get("settings", {})
    own = int(settings.get("shared_buffers") or 0) * int(settings.get("block_size") or 8192)
    free = _available()
    if not own or free is None or own <= free // SHARE:
        return "", ""
    fitting = f"{max(SMALLEST, free // SHARE) >> 20}MB"
    return fitting, (
        f"The copy gets {fitting} of shared_buffers, and not {own >> 20}MB as its original: "
        f"{free >> 20} MB of memory are available."
    )


def _available() -> int | None:
    """The bytes of memory that programs can have now; None if that is not known."""
    try:
        text = files.contents(MEMINFO, 1 << 16).decode()
    except (OSError, HostFailed):
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) << 10 if found else None
