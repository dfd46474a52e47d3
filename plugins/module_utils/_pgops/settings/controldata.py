# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings that a standby must not have lower than its primary, with the primary's values from the control file."""

from __future__ import annotations

import os
import re

from ..host import commands
from ..server.postmaster import Postmaster

AT_LEAST_THE_PRIMARYS = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)
"""A standby with less of one of these does not start, or stops replaying (PostgreSQL, "Hot Standby", Administrator's
Overview): they are raised on standbys first, and lowered on the primary first."""

SHORTER = {"max_locks_per_xact": "max_locks_per_transaction", "max_prepared_xacts": "max_prepared_transactions"}
"""What the control file calls differently (PostgreSQL, pg_controldata.c)."""

LINE = re.compile(r"^(\w+) setting:\s+(\d+)$", re.MULTILINE)


def read(server: Postmaster) -> dict[str, int]:
    """The primary's values as far as they have been replayed; on a primary its own.

    The program is the server's, and runs as the server's user.

    Raises HostFailed.
    """
    program = os.path.join(server.bin_directory, "pg_controldata")
    output = commands.run([program, "-D", server.data_directory], owner=server.owner)
    values = {SHORTER.get(name, name): int(value) for name, value in LINE.findall(output)}
    return {name: value for name, value in values.items() if name in AT_LEAST_THE_PRIMARYS}
