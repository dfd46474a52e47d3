# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What others have named cannot tell a terminal what to do."""

from __future__ import annotations

import ast
import io
import unicodedata
from pathlib import Path

import artifact
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops import terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äß 漢 'x'", "plain äß 漢 'x'"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\rb\nc\td\x7f\x9b", "a\\rb\\nc\\td\\x7f\\x9b"),
        ("gpj.\u202eexe\u2066\u200f", "gpj.\\u202eexe\\u2066\\u200f"),
        ("\u2028\u2029\U000e0041", "\\u2028\\u2029\\U000e0041"),
        (b"/b\xff/c".decode("utf-8", "surrogateescape"), "/b\\xff/c"),
    ],
)
def test_a_text_is_shown(text: str, shown: str) -> None:
    assert terminal.shown(text) == shown


@given(st.text(st.characters(codec=None)))
def test_whatever_it_is_it_is_one_line_that_can_be_written(text: str) -> None:
    stream = io.StringIO()
    terminal.say(stream, text)
    (line,) = stream.getvalue().encode().decode().splitlines()
    assert not any(unicodedata.category(one) in terminal.OBEYED for one in line)


def test_the_lines_of_a_log_stay_lines() -> None:
    stream = io.StringIO()
    terminal.say_all(stream, "FATAL: \x1b[2J\nHINT: none\n")
    assert stream.getvalue() == "FATAL: \\x1b[2J\nHINT: none\n"


def test_nothing_else_writes_texts_of_others() -> None:
    """Who writes to a stream by itself writes JSON, or a format of its own."""
    allowed = {
        "cli.py": 1,
        "agent/runner.py": 1,
        "alerting/incident.py": 1,
        "alerting/shown.py": 1,
        "recovery/people.py": 2,
        "top/command.py": 1,
    }
    found = {}
    for path in Path(artifact.LIBRARY).rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        texts = [ast.unparse(call.func) for call in calls]
        count = sum(text in WRITING for text in texts)
        if count and path.name != "archiver.py":
            found[str(path.relative_to(artifact.LIBRARY))] = count
    assert found == allowed


WRITING = {"print", *(f"sys.{stream}.{verb}" for stream in ("stdout", "stderr") for verb in ("write", "writelines"))}
