# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What to do when a server refuses a session: what its own words ask for. Pure.

Of a failed connection libpq gives these words and no SQLSTATE. They may be in another language: then they stand for
themselves.
"""

from __future__ import annotations

import re

REMEDIES = (
    (r"pg_hba\.conf", "Let role {role} into database {database} by a line of pg_hba.conf, and reload."),
    (
        r"too many (clients|connections)|remaining connection slots",
        "End sessions that are not needed, or raise the limit: max_connections, or that of the role or database.",
    ),
    (r"database .* does not exist", "Correct the name of the database, or create it."),
    (
        r"role .* (does not exist|is not permitted to log in)",
        "Correct the name of the role, or let it log in (LOGIN).",
    ),
    (r"permission denied for database", "Run: GRANT CONNECT ON DATABASE {database} TO {role}."),
    (
        r"not currently accepting connections",
        "Run, as a superuser: ALTER DATABASE {database} ALLOW_CONNECTIONS true.",
    ),
    (r"starting up|shutting down|not yet accepting|in recovery mode|hot standby", "Wait until it is up, then retry."),
    (
        r"(?i)(peer|ident) authentication failed",
        "Set login_user to a role that pg_hba.conf and pg_ident.conf let this user of the system log in as.",
    ),
    (r"certificate|SSL|TLS", "Correct the certificates, or how connections are protected (ssl_mode, ca_cert)."),
)
"""The remedies by what the words contain; the first that fits is it."""
OTHERWISE = "The server's log may say more."
FULL = re.compile(r"\bFATAL:\s+(sorry, too many clients already|remaining connection slots are reserved)")
"""What a server says of which all connections are taken, but those that are reserved. The limit of a role or database
has other words."""


def remedy(words: str, database: str, role: str) -> str:
    """What to do about a refusal in these words.

    >>> remedy('FATAL:  database "shop" does not exist', "shop", "ann")
    'Correct the name of the database, or create it.'
    """
    for pattern, text in REMEDIES:
        if re.search(pattern, words):
            return text.format(database=database, role=role)
    return OTHERWISE


def full(words: str) -> bool:
    """Whether a refusal says that all connections are taken.

    >>> full('FATAL:  too many connections for role "ann"')
    False
    """
    return FULL.search(words) is not None
