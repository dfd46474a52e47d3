# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""JSON files of root on a host, each with the number of its format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import HostFailed
from . import files
from .files import File


def read(path: str, number: int, hint: str) -> dict[str, Any] | None:
    """The content of a file; None if there is none. ``hint`` says what to do if it cannot be used.

    Raises HostFailed.
    """
    found = files.read(path)
    if found is None:
        return None
    try:
        data = json.loads(found.content)
        known = data.pop("format") == number
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HostFailed(f"{path} cannot be read: {error!r}.", hint) from error
    if not known:
        raise HostFailed(f"{path} has a format of another version of pgops.fleet.", hint)
    return dict(data)


def write(path: str, number: int, data: Mapping[str, Any]) -> None:
    """Store data, readable by root only.

    Raises HostFailed.
    """
    content = json.dumps({"format": number, **data}, indent=2, sort_keys=True) + "\n"
    files.apply([File(path, content.encode(), 0o600)])
