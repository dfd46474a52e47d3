# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names whose bytes are not UTF-8, as they are stored and shown."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from pgops.server import encoding

PIECES = st.sampled_from([b"\\", b"x", b"e4", b"\xe4", b"\xc3\xa9", b"\\xe4", b"caf", "\U0001f418".encode(), b'"'])
NAMES = st.one_of(st.binary(max_size=12), st.lists(PIECES, max_size=6).map(b"".join))


def shown(name: bytes) -> str:
    return encoding.readable(encoding.text(name))


@given(NAMES)
@example(b"\xe4")
@example(b"\\xe4")
@example(b"\\\\xe4")
def test_every_name_comes_back_from_what_is_shown(name: bytes) -> None:
    """So no two names are shown alike."""
    assert encoding.raw(encoding.meant(shown(name))) == name


@given(NAMES)
def test_what_is_shown_is_text(name: bytes) -> None:
    assert shown(name).encode().decode() == shown(name)
    assert encoding.is_text(shown(name))


@given(st.text(st.characters(exclude_characters="\\", codec="utf-8"), max_size=20))
def test_usual_names_are_shown_as_they_are(name: str) -> None:
    assert shown(name.encode()) == name


def test_a_byte_and_the_letters_for_it_are_told_apart() -> None:
    assert [shown(name) for name in (b"\xe4", b"\\xe4", b"d\xe9v", "dév".encode(), b"C:\\data")] == [
        "\\xe4",
        "\\\\xe4",
        "d\\xe9v",
        "dév",
        "C:\\data",
    ]


def test_all_texts_of_a_document_are_made_readable() -> None:
    document = {"caf\udce9": ["\udce4", 1, None, {"a": "b"}], "n": 1.5, "t": True}
    assert encoding.all_readable(document) == {"caf\\xe9": ["\\xe4", 1, None, {"a": "b"}], "n": 1.5, "t": True}
