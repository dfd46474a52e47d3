# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Temporarily acting as another user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def acting_as(uid: int | None, gid: int | None = None) -> Iterator[None]:
    """Act as another effective user, and group if set, and then switch back; None changes nothing."""
    if uid is None or uid == os.geteuid():
        yield
        return
    before = os.geteuid(), os.getegid()
    if gid is not None:
        os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])
