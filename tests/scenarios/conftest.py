# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the scenarios have in common."""

from __future__ import annotations

import pytest
from hosts import Fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The fleet as it is; scenarios say themselves what state they need."""
    return Fleet(tmp_path_factory.mktemp("fleet"))
