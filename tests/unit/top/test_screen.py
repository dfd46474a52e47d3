# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The screen: right at every width, and whatever texts others have chosen, a terminal obeys none of it."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops import terminal
from pgops.top import command, screen, values
from pgops.top.picture import ALERTS, BLOCKING, EVENTS, SERVER, SESSIONS, Picture, Section
from pgops.top.tables import Column, table

AT = datetime(2026, 11, 30, 3, 12, tzinfo=timezone.utc)
HEAD: dict[str, Any] = {
    "role": "primary",
    "version": "18.1",
    "uptime_seconds": 100000.0,
    "connections": 47,
    "connections_max": 100,
    "active": 3,
    "idle_in_transaction": 2,
    "waiting_for_locks": 1,
    "transactions_per_second": 1240.0,
    "cache_hit_percent": 99.2,
    "standbys": [{"application": "db2", "state": "streaming", "lag_bytes": 1024.0, "lag_seconds": None}],
    "receiver": None,
    "horizon": {"holder": "session", "name": "4711", "xids": 190000000, "freeze_percent": 95.0},
    "wraparound_percent": 12.0,
}
EVIL = "\x1b[2J\u202e[bold]漢字\u200f\n\x07:smile:"
HOLDER: dict[str, Any] = {
    "depth": 0,
    "pid": 4711,
    "blocks": 1,
    "user": "alice",
    "database": "shop",
    "state": "idle in transaction",
    "transaction_seconds": 723.0,
    "holds": ["RowExclusiveLock"],
    "query": "UPDATE orders SET paid = true",
}
WAITER: dict[str, Any] = {
    "depth": 1,
    "pid": 4720,
    "waits_seconds": 312.0,
    "lock_mode": "AccessExclusiveLock",
    "lock_type": "relation",
    "relation": "orders",
    "user": "app",
    "database": "shop",
    "query": "ALTER TABLE orders\n  ADD note text",
}
text = st.text(st.characters(codec=None), max_size=40)


def picture(**sections: Section) -> Picture:
    return Picture("main", "shop", "db1/main", SERVER, AT, HEAD, sections)


def drawn(width: int, height: int | None = None, **sections: Section) -> list[str]:
    return [line.text for line in screen.lines(picture(**sections), width, height)]


def test_who_waits_for_whom_is_a_tree_with_the_holder_first() -> None:
    lines = drawn(160, blocking=Section([HOLDER, WAITER]))
    at = lines.index("Who waits for whom: 2")
    assert lines[at + 1].split() == ["pid", "blocks", "waits", "tx", "state", "user", "database", "lock", "statement"]
    holder, waiter = lines[at + 2 :]
    assert holder.startswith("4711 ")
    assert holder.endswith("holds RowExclusive                  UPDATE orders SET paid = true")
    assert waiter.startswith("  4720 ")
    assert "5m12s" in waiter
    assert waiter.endswith("AccessExclusive on relation orders  ALTER TABLE orders ADD note text")


def test_80_columns_have_what_matters_most() -> None:
    lines = drawn(80, 24, blocking=Section([HOLDER, WAITER]), sessions=Section([HOLDER] * 50))
    assert max(map(len, lines)) <= 80
    assert len(lines) == 24
    assert "Sessions: 50" in lines
    titles = lines[lines.index("Sessions: 50") + 1].split()
    assert titles[:3] == ["pid", "tx", "state"]
    assert titles[-1] == "statement"
    assert len(lines) - lines.index("Sessions: 50") > 10
    assert "db1/main (shop)   primary   PostgreSQL 18.1   up 1d03h   2026-11-30 03:12:00Z" in lines[0]
    assert any("session 4711 holds back 190,000,000 transactions" in line for line in lines)


def test_what_is_not_known_is_never_drawn_as_zero() -> None:
    lines = drawn(200, alerts=Section(missing="no\x1b database"), events=Section())
    assert "What fires: not known: no\\x1b database" in lines
    assert "What changed within a day: nothing" in lines
    assert "rollbacks/s -" in lines[1]


def test_rules_that_nobody_evaluates_are_told_beside_what_fires() -> None:
    (line,) = screen.part(ALERTS, Section(note="Rules have never been evaluated"), 100)
    assert (line.text, line.style) == ("What fires: nothing (Rules have never been evaluated)", screen.WARNING)


def test_sections_are_set_apart_where_there_is_room() -> None:
    sections = {"blocking": Section(), "sessions": Section([HOLDER]), "progress": Section(), "events": Section()}
    lines = drawn(150, None, **sections)
    at = lines.index("Who waits for whom: nobody waits for a lock")
    assert [at for at, line in enumerate(lines) if not line] == [at - 1, at + 1, at + 5]
    assert drawn(150, len(lines), **sections) == lines
    assert drawn(150, len(lines) - 1, **sections) == [line for line in lines if line]


def test_prepared_transactions_have_names() -> None:
    rows = [{"depth": 0, "pid": 0, "prepared": ["one", "t\x1bwo"]}]
    assert drawn(80, blocking=Section(rows))[-1].split("  ")[-1] == "one, t\\x1bwo"
    assert drawn(80, sessions=Section([{"pid": None, "prepared": "one", "type": "prepared transaction"}]))[-1] == (
        "prepared  prepared transaction  one"
    )


def test_sessions_are_sorted() -> None:
    rows = [
        {"pid": pid, "transaction_seconds": tx, "state_seconds": idle} for pid, tx, idle in ((1, 9, 1), (2, 1, 9))
    ]
    shown = {
        sort: screen.lines(picture(sessions=Section(rows)), 80, None, sort)[-2:] for sort in ("transaction", "state")
    }
    found = {sort: [line.text.split()[0] for line in two] for sort, two in shown.items()}
    assert found == {"transaction": ["1", "2"], "state": ["2", "1"]}


def rows(word: str) -> dict[str, Section]:
    names = ("user", "database", "application", "state", "wait", "client", "query")
    session = {**HOLDER, **dict.fromkeys(names, word)}
    alert = {"severity": word, "rule": word, "node": word, "labels": {word: word}, "value": 1.0, "operator": ">"}
    return {
        ALERTS: Section([{**alert, "threshold": 1.0, "fired_at": AT}], note=word),
        BLOCKING: Section([session, {**session, "depth": 30, "lock_mode": word, "relation": word}]),
        SESSIONS: Section([session] * 3, left_out=2),
        EVENTS: Section([{"at": AT, "kind": word, "node": word, "text": word}]),
    }


@given(text, st.integers(0, 200), st.integers(0, 60))
def test_whatever_others_write_it_fits_and_is_inert(word: str, width: int, height: int) -> None:
    for one in screen.lines(picture(**rows(word)), width, height):
        assert values.cells(one.text) <= width
        assert not any(unicodedata.category(character) in terminal.OBEYED for character in one.text)


@given(st.dictionaries(st.sampled_from(screen.FIRST), st.just(1) | st.integers(3, 30)), st.integers(-5, 90))
def test_rooms_are_used_up_and_no_section_is_without_its_title(wanted: dict[str, int], room: int) -> None:
    given = screen.rooms(wanted, room)
    assert all(1 <= given[name] <= wanted[name] for name in wanted)
    assert 2 not in given.values()
    assert sum(given.values()) <= max(room, len(wanted))
    if sum(wanted.values()) > room > len(wanted):
        assert room - sum(given.values()) <= 1


@given(text, st.integers(1, 200), st.integers(1, 60))
def test_the_whole_terminal_is_used_and_no_more(word: str, width: int, height: int) -> None:
    full = picture(**rows(word))
    for seen in (command.Seen(), command.Seen(full), command.Seen(full, asked=7.0), command.Seen(full, 10.0, word)):
        lines = command.screen(seen, 75.0, (width, height), "transaction")
        assert len(lines) == height
        assert all(values.cells(one.text) <= width for one in lines)
        assert not any(unicodedata.category(character) in terminal.OBEYED for one in lines for character in one.text)


def test_a_server_that_does_not_answer_is_told_with_what_was_seen_last() -> None:
    seen = command.Seen(picture(sessions=Section([HOLDER])), 10.0, "it is down")
    lines = [one.text for one in command.screen(seen, 75.0, (100, 20), "transaction")]
    assert lines[:2] == ["NO ANSWER for 1m05s: it is down", "What follows is what was seen last."]
    assert "Sessions: 1" in lines
    assert lines[-1] == "q quits   s sorts sessions (by transaction)"


def test_a_look_that_takes_long_is_told() -> None:
    shown = {
        asked: command.screen(command.Seen(picture(), asked=asked), 75.0, (100, 20), "transaction")[0].text
        for asked in (None, 74.0, 70.0)
    }
    assert shown[None] == shown[74.0] == drawn(100)[0]
    assert shown[70.0] == "The server has been asked for 5.0s, and has not answered yet."


@pytest.mark.parametrize("word", [EVIL, "漢字" * 50, "a" * 1_000_000])
def test_one_line_each(word: str) -> None:
    lines = drawn(100, None, **rows(word))
    assert not any("\n" in line or "\x1b" in line or "\u202e" in line for line in lines)
    assert all(values.cells(line) <= 100 for line in lines)


@given(st.lists(st.tuples(text, text, text), max_size=5), st.integers(0, 120))
def test_a_table_of_any_width(cells: list[tuple[str, str, str]], width: int) -> None:
    columns = [Column("one", 1), Column("two", 2, 10), Column("three", 1, 1000)]
    shown = [[values.line(cell) for cell in row] for row in cells]
    lines = table(columns, shown, width)
    assert len(lines) == len(cells) + 1
    assert all(values.cells(line) <= width for line in lines)


@given(text, st.integers(2, 30), st.integers(1, 4))
def test_a_text_is_wrapped_without_losing_anything_that_has_room(word: str, width: int, most: int) -> None:
    shown = values.line(word)
    found = values.wrapped(shown, width, most)
    assert len(found) <= most
    assert all(values.cells(line) <= width for line in found)
    if len(found) < most:
        assert "".join(found) == shown
