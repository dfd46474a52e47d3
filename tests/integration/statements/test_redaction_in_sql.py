# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The function pgops.redacted takes out of a text what the agent's redaction does, to the letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploying import deploy, withdraw
from hypothesis import given, settings
from hypothesis import strategies as st
from secretive import COMMENTS, HARMLESS, HOSTILE, ODD, QUOTINGS, SECRETS, STATEMENTS
from servers import Server

from pgops.statements.redaction import redacted

PIECES = st.lists(st.sampled_from([*HARMLESS, *HOSTILE, *ODD, *STATEMENTS, "set", "to", "key", "_", ".5", "\x0b"]))


@pytest.fixture(name="in_sql")
def _in_sql(server: Server) -> Iterator[Callable[[str], str]]:
    """What the server's function makes of a text."""
    deploy(server)
    with server.connect("pgops") as session:
        session.execute("SET ROLE pgops")

        def run(text: str) -> str:
            row = session.execute("SELECT pgops.redacted(%s)", [text]).fetchone()
            assert row is not None
            return str(row[0])

        yield run
    withdraw(server)


def test_the_rules_are_the_same(in_sql: Callable[[str], str]) -> None:
    for text in ODD:
        assert in_sql(text) == redacted(text)

    @settings(max_examples=150, deadline=None)
    @given(
        statement=st.sampled_from(STATEMENTS),
        quote=st.sampled_from(QUOTINGS),
        secret=SECRETS,
        gap=COMMENTS,
        cut=st.integers(0, 8),
    )
    def examples(statement: str, quote: Callable[[str], str], secret: str, gap: str, cut: int) -> None:
        text = statement.replace(" ", gap).format(quote(secret))
        for one in (text, text[: len(text) - cut], f"SELECT 'a'; {text}"):
            assert in_sql(one) == redacted(one)

    @settings(max_examples=150, deadline=None)
    @given(PIECES.map("".join) | PIECES.map(" ".join), st.integers(0, 8))
    def mixtures(text: str, cut: int) -> None:
        one = text[: len(text) - cut]
        assert in_sql(one) == redacted(one)

    examples()
    mixtures()


def test_hostile_texts_take_little_time(server: Server, in_sql: Callable[[str], str]) -> None:
    session = server.value("SELECT pid FROM pg_stat_activity WHERE datname = 'pgops'")

    def work(length: int) -> int:
        """The processor time that texts of a length take the server, in nanoseconds."""
        before = Path(f"/proc/{session}/schedstat").read_text().split()[0]
        for piece in HOSTILE:
            in_sql("password " + piece * (length // len(piece)))
        return int(Path(f"/proc/{session}/schedstat").read_text().split()[0]) - int(before)

    assert work(10240) < 32 * work(2560)  # at most with the square of the length: with its cube it were 64
