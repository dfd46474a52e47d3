# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The password that the nodes of a cluster share, in libpq's password file. Pure.

Source of the format: PostgreSQL, libpq, "The Password File".
"""

from __future__ import annotations

import re

LINE = re.compile(r"(?:(?:\\.|[^:\\])*:){4}(.+)")


def passfile(database: str, role: str, password: str) -> str:
    """The file's one line: any host and port, that database (all for ''), role and password."""
    fields = [part.replace("\\", "\\\\").replace(":", "\\:") for part in (database, role, password)]
    return f"*:*:{':'.join([fields[0] or '*', *fields[1:]])}\n"


def password(text: str) -> str | None:
    """The password in such a file; None where there is none."""
    line = LINE.match(text)
    return re.sub(r"\\(.)", r"\1", line.group(1)) if line else None
