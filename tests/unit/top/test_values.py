# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values for people: at and beside each of their borders."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.top import values


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-1, "0.0s"),
        (0.25, "0.2s"),
        (9.94, "9.9s"),
        (9.95, "9s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (723, "12m03s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (11520, "3h12m"),
        (86399, "23h59m"),
        (86400, "1d00h"),
        (99 * 86400 + 5 * 3600 + 7, "99d05h"),
        (100 * 86400, "100d"),
    ],
)
def test_a_span(seconds: float | None, shown: str) -> None:
    assert values.span(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (-5, "-5 B"),
        (1023, "1023 B"),
        (1024, "1.0 kB"),
        (1536, "1.5 kB"),
        (1024 * 1023.9, "1023.9 kB"),
        (1024 * 1023.96, "1.0 MB"),
        (3.4e6, "3.2 MB"),
        (1 << 30, "1.0 GB"),
        (5 << 40, "5.0 TB"),
        (5 << 50, "5120.0 TB"),
    ],
)
def test_a_size(number: float | None, shown: str) -> None:
    assert values.size(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        *((None, "-"), (0, "0"), (3, "3"), (3.0, "3"), (0.25, "0.2"), (-0.25, "-0.2"), (9.94, "9.9")),
        *((9.96, "10"), (12.6, "13"), (1240.2, "1,240"), (1e9, "1,000,000,000")),
    ],
)
def test_a_count(number: float | None, shown: str) -> None:
    assert values.count(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        *((None, "-"), (0, "0 %"), (0.04, "0.0 %"), (50, "50.0 %"), (99.2, "99.2 %")),
        *((99.96, "99.9 %"), (100, "100 %"), (100.0, "100 %"), (103.4, "103 %")),
    ],
)
def test_a_share_is_all_only_where_it_is(number: float | None, shown: str) -> None:
    assert values.percent(number) == shown


def test_times_are_of_utc() -> None:
    at = datetime(2026, 11, 30, 3, 12, 7, 999, tzinfo=timezone(timedelta(hours=1)))
    assert values.clock(at) == "2026-11-30 02:12:07Z"


@pytest.mark.parametrize(
    ("text", "width"),
    [("", 0), ("abc", 3), ("漢字", 4), ("\uff21", 2), ("e\u0301", 1), ("a\u20dd", 1), ("ä", 1), ("ｱ", 1), ("…", 1)],
)
def test_columns_of_a_text(text: str, width: int) -> None:
    assert values.cells(text) == width


@pytest.mark.parametrize(
    ("text", "width", "right", "shown"),
    [
        ("abc", 5, False, "abc  "),
        ("abc", 5, True, "  abc"),
        ("abc", 3, False, "abc"),
        ("abcd", 3, True, "ab…"),
        ("漢字", 3, False, "漢…"),
        ("漢字", 2, False, "… "),
        ("abc", 1, False, "…"),
        ("abc", 0, False, ""),
    ],
)
def test_a_text_in_so_many_columns(text: str, width: int, right: bool, shown: str) -> None:
    assert values.padded(text, width, right) == shown


@given(st.text(), st.integers(0, 20), st.booleans())
def test_any_text_in_exactly_so_many_columns(text: str, width: int, right: bool) -> None:
    assert values.cells(values.padded(values.line(text), width, right)) == width


@pytest.mark.parametrize(
    ("text", "width", "most", "lines"),
    [
        ("", 10, 3, []),
        ("SELECT 1", 8, 1, ["SELECT 1"]),
        ("SELECT 1", 4, 2, ["SELE", "CT 1"]),
        ("SELECT 1", 3, 2, ["SEL", "EC…"]),
        ("SELECT 1", 3, 3, ["SEL", "ECT", " 1"]),
        ("漢字x", 3, 3, ["漢", "字x"]),
        ("abc", 2, 5, ["ab", "c"]),
        ("abc", 1, 5, []),
    ],
)
def test_a_text_in_several_lines(text: str, width: int, most: int, lines: list[str]) -> None:
    assert values.wrapped(text, width, most) == lines
