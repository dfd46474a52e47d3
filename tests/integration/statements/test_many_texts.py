# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""However long and many the texts of users' statements are, a run stores and reads only so many bytes of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deploying import configured, deploy
from servers import Server

from pgops.statements import job as usage
from pgops.statements import texts

WIDE = "\N{GRINNING FACE}"
"""A character of four bytes."""
NUMBER = 150
"""Of statements whose texts are more than a run stores."""


def run(server: Server, state: Path) -> dict[str, Any]:
    return usage.collect(*configured(server, state))


def chatter(server: Server, comment: str, number: int) -> None:
    """Different statements, each with a comment in its middle."""
    with server.connect() as session:
        for columns in range(2, number + 2):
            session.execute(f"SELECT {', '.join('1' * columns)} /* {comment} */ + 1".encode())


def sizes(server: Server) -> list[int]:
    """The bytes of each text that is stored of such statements."""
    lengths = "SELECT array_agg(octet_length(query)) FROM pgops.query_text WHERE query ~ '^SELECT .1, '"
    found = server.value(lengths, "pgops")
    return found if isinstance(found, list) else []


@pytest.mark.every_major
def test_texts_are_cut_by_bytes_and_what_does_not_fit_comes_later(counting: Server, tmp_path: Path) -> None:
    counting.value("CREATE DATABASE quiet")
    run(counting, tmp_path)
    chatter(counting, WIDE * 10_000, NUMBER)
    with counting.connect("quiet") as session:
        session.execute("SELECT now() /* what a user of another database says */, 1")
    first = run(counting, tmp_path)
    assert first["errors"] == []
    assert first["texts_left"] > 0
    total = int(str(counting.value("SELECT sum(octet_length(query)) FROM pgops.query_text", "pgops")))
    assert total <= texts.ROOM
    assert max(sizes(counting)) <= texts.LONGEST
    quiet = "SELECT count(*) FROM pgops.query_text WHERE query ~ 'of another database'"
    assert counting.value(quiet, "pgops") == 1
    chatter(counting, WIDE * 10_000, NUMBER)
    second = run(counting, tmp_path)
    assert (second["errors"], second["texts_left"]) == ([], 0)
    assert len(sizes(counting)) == NUMBER


def test_many_bytes_of_texts_are_read_seldom(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    chatter(counting, "x" * 8_000_000, 4)
    assert run(counting, tmp_path)["texts_left"] == 0
    path = os.path.join(configured(counting, tmp_path)[1].state, "texts.json")
    reading = json.loads(Path(path).read_text())
    assert reading["bytes"] > texts.FREE
    chatter(counting, "new", 7)
    later = run(counting, tmp_path)
    assert (later["errors"], later["texts"]) == ([], 0)
    assert later["texts_left"] > 0
    assert json.loads(Path(path).read_text()) == reading
    texts.save(path, texts.Reading(0.0, reading["bytes"]))
    chatter(counting, "new", 7)
    assert run(counting, tmp_path)["texts"] > 0
    assert len(sizes(counting)) == 7


def test_the_usual_texts_fill_no_temporary_files(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    chatter(counting, "x" * 100_000, 200)
    counting.value("SELECT pg_stat_reset()", "pgops")
    with counting.connect("pgops") as session:
        (size,) = session.execute("SELECT (pgops.statement_texts('{1}', 10240) ->> 'bytes')::bigint").fetchone() or (
            0,
        )
        assert size > 20_000_000
        session.execute("SELECT pg_stat_force_next_flush()" if counting.major >= 15 else "SELECT 1")
    assert counting.value("SELECT temp_bytes FROM pg_stat_database WHERE datname = 'pgops'", "pgops") == 0


def test_users_and_databases_take_turns_where_too_many_sessions_are_slow(
    major: int, new_server: Callable[..., Server]
) -> None:
    server = new_server(major, settings={"max_connections": "130"}).start()
    deploy(server)
    for role in ("quiet", "noisy"):
        server.value(f"CREATE ROLE {role} LOGIN")
    with contextlib.ExitStack() as stack:
        for role in ("quiet", *["noisy"] * 101):
            stack.enter_context(server.connect(user=role)).execute("SELECT 1")
        found: Any = server.value("SELECT pgops.slow_sessions(0, true)", "pgops")
    users = [one["user_name"] for one in found["sessions"]]
    assert (len(users), users.count("quiet")) == (100, 1)
