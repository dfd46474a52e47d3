# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directories that the server had when it was asked last: for who looks at their disks without asking it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import HostFailed
from ..host.files import File, write
from .layout import Layout

FORMAT = 1
LARGEST = 1 << 20
"""Bytes that are read."""


def path(layout: Layout) -> str:
    """The file."""
    return f"{layout.state}/places.json"


def note(layout: Layout, found: Iterable[Mapping[str, Any]]) -> None:
    """Remember the directories, each a ``path`` and what it is (``disk``), unless they are known. On a full disk it
    stays as it was."""
    places = {str(one["path"]): str(one["disk"]) for one in found}
    if places != known(layout):
        with contextlib.suppress(HostFailed, OSError):
            write(File(path(layout), json.dumps({"format": FORMAT, "places": places}).encode(), 0o644))


def known(layout: Layout) -> dict[str, str]:
    """By path, what it is: data, wal, log or tablespace; empty where nothing is known."""
    try:
        with open(path(layout), encoding="utf-8") as file:
            data = json.loads(file.read(LARGEST))
        return {str(place): str(disk) for place, disk in data["places"].items()} if data["format"] == FORMAT else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
