# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import platform

import pytest

from pgops.backup import environment


@pytest.mark.parametrize(
    ("before", "here", "told"),
    [
        ("glibc 2.28", ("glibc", "2.41"), ["glibc 2.28", "glibc 2.41"]),
        ("glibc 2.41", ("glibc", "2.41"), []),
        ("", ("glibc", "2.41"), []),  # nothing was known
        ("glibc 2.41", ("", ""), []),
    ],
)
def test_another_glibc_is_told(
    monkeypatch: pytest.MonkeyPatch, before: str, here: tuple[str, str], told: list[str]
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: here)
    said = " ".join(environment.differences({"host": {"libc": before}}))
    assert bool(said) == bool(told)
    assert all(one in said for one in told)
    assert environment.differences({}) == ()
