# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which library a module runs with on a host: the agent's, where it is what the controller has, else the one sent."""

from __future__ import annotations

import importlib
import os
import stat
import sys
from collections.abc import Mapping
from typing import Any

from . import sources
from .errors import PgOpsError

PROGRAM = "usr/local/lib/pgops/current"
"""Where the agent's program is."""

CARRIERS = ("__init__.py", "errors.py", "library.py", "sources.py")
"""The files that are always sent: they find the others."""


def carry_out(order: Mapping[str, Any], sent: sources.Sources) -> dict[str, Any]:
    """The result of the module that an order of the action plugin names.

    Where the host has no library with the digest ``order["library"]``, and none was ``sent``, the result asks for it.
    """
    prefix = order["params"].get("prefix") or "/"
    here = os.path.join(os.path.realpath(os.path.join(prefix, PROGRAM)), "pgops")
    found = installed(here)
    if sources.digest(found) == order["library"]:
        sys.dont_write_bytecode = True  # what is installed is not for every module to change
        sys.modules[__package__].__path__.append(here)
    elif sources.digest(sent) == order["library"]:
        found = dict(sent)
    else:
        return {"changed": False, sources.LACKING: True}
    modules = importlib.import_module(".modules", __package__)
    result: dict[str, Any] = modules.run(order, found)
    return result


def installed(folder: str) -> dict[str, str]:
    """The library as the host's agent has it; empty where others can change it, or where it cannot be read."""
    try:
        return sources.shipped(folder) if only_ours(folder) else {}
    except PgOpsError:
        return {}


def only_ours(folder: str) -> bool:
    """Whether nobody but root and who runs this can change what is in a directory, or put another in its place.

    In directories with the sticky bit, such as /tmp, others can add names, and replace none.
    """
    owners = {0, os.geteuid()}
    below = (os.path.join(where, name) for where, folders, names in os.walk(folder) for name in [*folders, *names])
    try:
        every = [os.lstat(path) for path in (*_upwards(folder), *below)]
    except OSError:
        return False
    return all(one.st_uid in owners and (not one.st_mode & 0o022 or one.st_mode & stat.S_ISVTX) for one in every)


def _upwards(path: str) -> list[str]:
    """A path and all directories above it."""
    return [path] if path == os.path.dirname(path) else [path, *_upwards(os.path.dirname(path))]
