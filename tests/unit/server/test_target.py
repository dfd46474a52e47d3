# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a connection is protected, where nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgops.server.target import Target


@pytest.fixture(autouse=True)
def _nothing_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """libpq finds no password by itself."""
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))


@pytest.mark.parametrize(
    ("given", "protection"),
    [
        ({}, ("", "")),
        ({"host": "/run/postgresql", "password": "x"}, ("", "")),
        ({"host": "db1"}, ("prefer", "prefer")),
        ({"host": "db1", "sslmode": "require"}, ("require", "prefer")),
        ({"host": "db1", "password": "x"}, ("require", "require")),
        ({"host": "localhost", "password": "x"}, ("require", "require")),
        ({"host": "db1", "passfile": "/etc/x"}, ("require", "require")),
        ({"host": "db1", "password": "x", "sslrootcert": "/ca"}, ("verify-full", "prefer")),
        ({"host": "db1", "password": "x", "sslrootcert": "/ca", "sslmode": "verify-ca"}, ("verify-ca", "require")),
        ({"host": "db1", "password": "x", "sslmode": "prefer"}, ("prefer", "require")),
        ({"host": "db1", "password": "x", "sslmode": "disable"}, ("disable", "disable")),
        ({"host": "db1", "password": "x", "channel_binding": "disable"}, ("require", "disable")),
    ],
)
def test_a_password_is_protected_unless_told_otherwise(given: dict[str, Any], protection: tuple[str, str]) -> None:
    assert Target(**given).protection == protection


def test_so_is_one_that_libpq_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pgpass").touch()
    assert Target(host="db1").protection == ("require", "require")
    monkeypatch.delenv("PGPASSFILE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Target(host="db1").protection == ("prefer", "prefer")
    monkeypatch.setenv("PGPASSWORD", "x")
    assert Target(host="db1").protection == ("require", "require")
