# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which servers the collection is for."""

from __future__ import annotations

import binaries

from pgops.server import majors
from pgops.server.majors import NEWEST, OLDEST


def test_all_of_them_are_tested() -> None:
    assert tuple(range(OLDEST, NEWEST + 1)) == binaries.MAJORS
    assert binaries.UNSUPPORTED == OLDEST - 1


def test_a_server_is_supported_or_too_old_or_too_new() -> None:
    found = [majors.support(major) for major in (None, OLDEST - 1, OLDEST, NEWEST, NEWEST + 1)]
    assert found == [None, "too old", "supported", "supported", "too new"]


def test_only_one_that_is_too_new_is_unknown() -> None:
    assert [majors.unknown(major) for major in (OLDEST, NEWEST)] == [(), ()]
    (words,) = majors.unknown(NEWEST + 1)
    assert str(NEWEST + 1) in words
