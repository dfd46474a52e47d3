# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where tests make what they need: in memory, where there is enough of it.

Servers make and delete thousands of files, and ext4 passes over inodes that were freed a moment ago: on a disk,
looking for one that it may take again was a quarter of all processor time. A short path, since that of a socket has
at most 107 bytes. Benchmarks stay on a disk.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")
DISK = Path("/tmp")
ENOUGH = 6 << 30
"""Bytes that are free in it: six times what tests on servers were seen to take."""


def root() -> Path:
    """The directory for directories of tests; PGOPS_TEST_ROOT overrules it."""
    named = os.environ.get("PGOPS_TEST_ROOT")
    if named:
        return Path(named)
    if MEMORY.is_mount() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH:
        return MEMORY
    return DISK
