# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The server whose settings are changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from configured import Host
from servers import Server


@pytest.fixture(name="host")
def _host(major: int, new_server: Callable[..., Server], tmp_path: Path) -> Host:
    return Host(new_server(major).start(), tmp_path)
