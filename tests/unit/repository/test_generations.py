# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose a repository is: on a file system that maps users, the owner that it shows says nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgops.repository.generations import mapped

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="root has rights whatever the mode, as the server has there"
)


@pytest.mark.parametrize("right", [os.R_OK, os.W_OK])
@pytest.mark.parametrize(
    ("mode", "group", "expected"),
    [
        (0o750, 54321, True),
        (0o700, 0, True),
        (0o770, 0, False),
        (0o777, 54321, False),
    ],
    ids=["nobody lets it", "not even its group", "its group does", "the mode does"],
)
def test_a_right_that_the_mode_does_not_give_is_of_a_file_system_that_maps_users(
    tmp_path: Path, mode: int, group: int, expected: bool, right: int
) -> None:
    place = tmp_path / "shop"
    place.mkdir()
    os.chown(place, 54321, group)
    place.chmod(mode)
    assert mapped(str(place), os.stat(place), right) is expected
