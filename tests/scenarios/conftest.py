# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the scenarios have in common. Those in lanes/ have hosts of their own, and run beside each other."""

from __future__ import annotations

import os

import pytest
from hosts import Fleet


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is slow is for `make test-all`."""
    if os.environ.get("PGOPS_TEST_MATRIX") != "all":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The fleet as it is; scenarios say themselves what state they need."""
    return Fleet(tmp_path_factory.mktemp("fleet"))
