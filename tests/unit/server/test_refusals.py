# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A remedy fits what the server said."""

from __future__ import annotations

import pytest

from pgops.server import refusals


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            'FATAL: no pg_hba.conf entry for host "10.0.0.9", user "ann", database "shop", no encryption',
            "pg_hba.conf",
        ),
        ('FATAL: pg_hba.conf rejects connection for host "[local]", user "ann", database "shop"', "pg_hba.conf"),
        ("FATAL: sorry, too many clients already", "raise the limit"),
        ('FATAL: too many connections for role "ann"', "raise the limit"),
        ("FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute", "raise the limit"),
        ('FATAL: database "shop" does not exist', "Correct the name of the database"),
        ('FATAL: role "ann" does not exist', "Correct the name of the role"),
        ('FATAL: role "ann" is not permitted to log in', "LOGIN"),
        (
            'FATAL: permission denied for database "shop" DETAIL: User does not have CONNECT privilege.',
            "GRANT CONNECT",
        ),
        ('FATAL: database "shop" is not currently accepting connections', "ALLOW_CONNECTIONS"),
        ("FATAL: the database system is starting up", "Wait until it is up"),
        ("FATAL: the database system is not yet accepting connections", "Wait until it is up"),
        ('FATAL: Peer authentication failed for user "ann"', "pg_ident.conf"),
        ("SSL error: certificate verify failed", "ca_cert"),
        ("FATAL: die maximale Anzahl Verbindungen ist erreicht", refusals.OTHERWISE),
    ],
)
def test_the_remedy_is_for_what_the_server_said(words: str, remedy: str) -> None:
    assert remedy in refusals.remedy(words, "shop", "ann")


@pytest.mark.parametrize(
    ("words", "full"),
    [
        ("connection failed: FATAL:  sorry, too many clients already", True),
        ("FATAL: remaining connection slots are reserved for non-replication superuser connections", True),
        ("FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ('FATAL: remaining connection slots are reserved for roles with privileges of the "x" role', True),
        ('FATAL: too many connections for role "pgops"', False),
        ('FATAL: too many connections for database "sorry, too many clients already"', False),
        ("FATAL: the database system is starting up", False),
    ],
)
def test_a_server_without_a_free_connection_says_so(words: str, full: bool) -> None:
    assert refusals.full(words) is full


def test_names_are_told() -> None:
    words = 'FATAL: permission denied for database "shop"'
    assert refusals.remedy(words, "shop", "ann") == "Run: GRANT CONNECT ON DATABASE shop TO ann."
