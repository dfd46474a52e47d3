# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Statements with a secret in them, for the tests of both redactions: the agent's, and the one in SQL."""

from __future__ import annotations

from hypothesis import strategies as st

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

ODD = [
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
    "ALTER ROLE bob PASSWORD $€$ hunter2 $€$",
    "SELECT 1; SET app.token = hunter2",
    "SELECT 1; SET app.token TO hunter2; SELECT 2",
    'SELECT secret, "hunter2',
    'SELECT secret, "a\\", hunter2"',
    'SELECT secret, U&"a\\0022", hunter2"',
    'ALTER ROLE bob PASSWORD "hunter2"',
    "ALTER USER bob WITH PASSWORD /* of old */ hunter2",
    "UPDATE people SET pass = 'hunter2'",
    "SELECT 1 FROM people WHERE pw='hunter2'",
    "SELECT 1 FROM people WHERE pin_code = 'hunter2'",
    "SELECT 1 FROM people WHERE hash = md5('hunter2')",
    "SELECT 1 FROM people WHERE hash = sha256 ('hunter2'::bytea)",
    "SET request.jwt.claims = 'hunter2'",
    "SET LOCAL request /* a */ . jwt . claims TO hunter2",
    "SELECT set_config('request.jwt.claims', 'hunter2', true)",
    "ALTER SYSTEM SET archive_command = 'curl -u a:hunter2'",
    "ALTER DATABASE shop SET app.of = hunter2",
    "ALTER ROLE bob IN DATABASE shop SET app.of TO 'hunter2'",
    "SELECT 1 FROM t WHERE url = 'postgresql://bob:of/hunter2@host/db'",
]
"""Statements with the secret where one would not look for it."""

HARMLESS = [
    *("SELECT", "a", "'it''s'", "$1", "FROM t", '"Q"', "E'\\''", "$$x$$"),
    *("-- c\n", "/* c */", "12.5", "=", ";", "é", "$é$ x $é$"),
]
"""Pieces of statements that mention no secret."""

HOSTILE = ["'", '"', "/*", "$$", "$a$b", "E'\\", "password '", "''", "--\n", "u&'\\", "/*key set set .../*", "role "]
"""Pieces that open what they do not close."""
