# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No secret survives in a statement's text, and statements without secrets stay as they are."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.redaction import redacted

MARK = "hunter2"
AROUND = st.text(alphabet="ab1 '\"\\$-/*;\n=é", max_size=6)
SECRETS = st.tuples(AROUND, AROUND).map(lambda around: around[0] + MARK + around[1])
COMMENTS = st.sampled_from([" ", "\n", " /* it's */ ", " -- don't\n", " /* a /* nested ' */ $$ */ ", "/**/"])

STATEMENTS = [
    "CREATE ROLE bob LOGIN PASSWORD {}",
    "ALTER USER \"o'hara\" WITH ENCRYPTED PASSWORD {} VALID UNTIL 'infinity'",
    "CREATE GROUP g PASSWORD {}",
    "CREATE USER MAPPING FOR bob SERVER there OPTIONS (user 'bob', password {})",
    "ALTER USER MAPPING FOR bob SERVER there OPTIONS (SET password {})",
    "CREATE SERVER there FOREIGN DATA WRAPPER w OPTIONS (host 'h', pass {})",
    "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION p",
    "SELECT dblink_connect({})",
    "SET app.secret = {}",
    "SET LOCAL app.api_key TO {}",
    "ALTER ROLE bob SET app.token = {}",
    "ALTER SYSTEM SET app.key = {}",
    "SELECT set_config('app.key', {}, false)",
    "SELECT pgp_sym_encrypt('text', {})",
    "UPDATE people SET hash = crypt({}, gen_salt('bf')) WHERE id = $1",
    "INSERT INTO people (name, password) VALUES ('it''s', {})",
    "COPY t FROM PROGRAM {}",
]


def plain(secret: str) -> str:
    return "'" + secret.replace("'", "''") + "'"


def escaped(secret: str) -> str:
    return "E'" + secret.replace("\\", "\\\\").replace("'", "\\'") + "'"


def backslashed(secret: str) -> str:
    """As of a session with standard_conforming_strings off."""
    return escaped(secret)[1:]


def unicode(secret: str) -> str:
    return "U&'" + secret.replace("\\", "\\\\").replace("'", "''") + "'"


def dollar(secret: str) -> str:
    return f"$tag${secret}$tag$"


QUOTINGS = [plain, escaped, backslashed, unicode, dollar]


@given(
    statement=st.sampled_from(STATEMENTS),
    quote=st.sampled_from(QUOTINGS),
    secret=SECRETS,
    gap=COMMENTS,
    cut=st.integers(0, 8),
)
def test_no_secret_survives(statement: str, quote, secret: str, gap: str, cut: int) -> None:
    text = statement.replace(" ", gap).format(quote(secret))
    assert MARK not in redacted(text)
    assert MARK not in redacted(text[: len(text) - cut])
    assert MARK not in redacted(f"SELECT 'a'; {text}")


@pytest.mark.parametrize(
    "text",
    [
        "SET app.token = hunter2",
        'SET app.token = "hunter2"',
        "SET app.pin_token TO 4711, hunter2",
        "ALTER DATABASE d SET app.secret TO hunter2",
        "CREATE ROLE bob PASSWORD 'a'\n'hunter2'",
        "ALTER ROLE bob PASSWORD 'x' -- was hunter2",
        "/* hunter2 */ ALTER ROLE bob PASSWORD 'x'",
        "DO $$BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ''hunter2'''; END$$",
        "SELECT 1 FROM t WHERE url = 'postgresql://bob:hunter2@host/db'",
        "SET /* ; */ app.key = 'hunter2'",
        "CREATE/**/USER/**/MAPPING FOR bob SERVER s OPTIONS (p 'hunter2')",
    ],
)
def test_no_secret_survives_in_odd_places(text: str) -> None:
    assert "hunter2" not in redacted(text)


def test_what_is_left_says_what_it_was() -> None:
    assert (
        redacted("ALTER ROLE bob PASSWORD 'x' VALID UNTIL 'y'") == "ALTER ROLE bob PASSWORD '***' VALID UNTIL '***'"
    )
    assert redacted("UPDATE t SET password = $1 WHERE t1.id = 5") == "UPDATE t SET password = $1 WHERE t1.id = '***'"
    assert redacted("SET app.token = hunter2") == "SET app.token = '***'"
    assert redacted('SELECT "a b", $2 FROM dblink($1)') == 'SELECT "a b", $2 FROM dblink($1)'


@given(
    st.lists(
        st.sampled_from(
            [
                "SELECT",
                "a",
                "'it''s'",
                "$1",
                "FROM t",
                '"Q"',
                "E'\\''",
                "$$x$$",
                "-- c\n",
                "/* c */",
                "12.5",
                "=",
                ";",
            ]
        )
    ).map(" ".join)
)
def test_statements_without_secrets_stay_as_they_are(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("piece", ["'", '"', "/*", "$$", "$a$b", "E'\\", "password '", "''", "--\n", "u&'\\"])
def test_hostile_texts_take_no_time(piece: str) -> None:
    started = time.monotonic()
    redacted("password " + piece * (10240 // len(piece)))
    assert time.monotonic() - started < 2
