# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The password file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgops.instance import passfile

texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


@given(texts, texts, texts)
def test_what_was_written_is_read(database: str, role: str, password: str) -> None:
    assert passfile.password(passfile.passfile(database, role, password)) == password


def test_the_format_is_libpqs() -> None:
    assert passfile.passfile("d", "r", "a:b\\c") == "*:*:d:r:a\\:b\\\\c\n"
    assert passfile.passfile("", "r", "p") == "*:*:*:r:p\n"
    assert passfile.password("*:*:*:r:p\n") == "p"
    assert passfile.password("nonsense") is None
