# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows of sessions: names of any bytes are readable, and texts have no secrets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import InvalidInput, QueryFailed
from pgops.top import live, sessions, views


def row(**other: Any) -> dict[str, Any]:
    return {"pid": 4711, "user": b"caf\xe9", "database": "schön".encode(), "query": b"SELECT 1", "entire": 1, **other}


def test_a_row_is_readable() -> None:
    found = {"pid": 4711, "user": r"caf\xe9", "database": "schön", "query": "SELECT 1"}
    assert sessions.row_of(row(), texts=True) == found
    assert sessions.row_of(row(), texts=False) == {**found, "query": None}
    assert sessions.row_of(row(query=None), texts=True) == {**found, "query": None}
    assert "query" not in sessions.row_of({"pid": 4711, "entire": 1}, texts=True)


def test_a_text_that_was_cut_within_a_character_or_a_secret() -> None:
    assert sessions.statement("SELECT 'ä".encode()[:-1]) == "SELECT '"
    assert sessions.statement(b"ALTER ROLE ann PASSWORD 'gehei") == "ALTER ROLE ann PASSWORD '***'"


@given(st.binary(max_size=50))
def test_any_bytes_are_a_text(raw: bytes) -> None:
    found = sessions.row_of(row(user=raw, query=raw), texts=True)
    for text in (found["user"], found["query"]):
        assert text.encode().decode() == text


def test_what_is_no_view_is_refused() -> None:
    assert views.query("blocking_tree").startswith("-- In a queue")
    for name in ("latest_values", "nothing"):
        with pytest.raises(InvalidInput, match=f"{name}.sql has no view"):
            views.query(name)


@pytest.mark.parametrize(
    ("state", "message", "why"),
    [
        (
            "42P01",
            'relation "pgops.events" does not exist',
            "the database ops has not been deployed to, or by another",
        ),
        ("42P01", 'relation "other" does not exist', 'relation "other" does not exist'),
        ("57014", "canceling statement in pgops", "canceling statement in pgops"),
    ],
)
def test_why_a_section_is_not_known(state: str, message: str, why: str) -> None:
    assert live.why(QueryFailed(message, "", state), "ops").startswith(why)
