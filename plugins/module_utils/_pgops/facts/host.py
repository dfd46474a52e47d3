# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of a host that need no connection to a server."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from typing import Any

from ..server import discovery, session

FAMILIES = {
    "debian": "Debian",
    "ubuntu": "Debian",
    "rhel": "RedHat",
    "fedora": "RedHat",
    "suse": "Suse",
    "arch": "Archlinux",
    "alpine": "Alpine",
}
"""The names of families are Ansible's own (ansible_facts.os_family)."""
COMPRESSORS = ("lz4", "zstd")
"""Programs that the archiver may run."""


def read(root: str = "/") -> dict[str, Any]:
    """The section ``host``."""
    release = _release(os.path.join(root, "etc/os-release"))
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    families = [FAMILIES[name] for name in names if name in FAMILIES]
    return {
        "hostname": platform.node(),
        "os_family": families[0] if families else release.get("ID") or platform.system(),
        "os": release.get("PRETTY_NAME") or platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "psycopg": None if session.IMPORT_ERROR else sys.modules["psycopg"].__version__,
        "psycopg_error": session.IMPORT_ERROR,
        "compressors": [name for name in COMPRESSORS if shutil.which(name)],
        "pgbackrest": shutil.which("pgbackrest") is not None,
        "systemd": os.path.isdir(os.path.join(root, "run/systemd/system")),
        "poolers": discovery.poolers(root),
    }


def _release(path: str) -> dict[str, str]:
    """The assignments of os-release(5)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            pairs = [line.strip().partition("=") for line in file if not line.startswith("#")]
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, _equals, value in pairs if value}
