# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Migrations against their ledger."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import Conflict, InvalidInput
from pgops.opsdb import migrations
from pgops.opsdb.migrations import Migration

FILES = migrations.shipped({f"{number:04d}_step.sql": f"SELECT {number}" for number in range(1, 6)})


def test_files_are_migrations_in_the_order_of_their_numbers() -> None:
    files = {f"{number:04d}_step_{number}.sql": f"SELECT {number}" for number in (10, 9, *range(1, 9))}
    found = migrations.shipped(files)
    assert [one.number for one in found] == list(range(1, 11))
    assert found[9] == Migration(10, "step_10", hashlib.sha256(b"SELECT 10").hexdigest(), "SELECT 10")
    assert migrations.shipped({}) == []
    change = migrations.plan(found[:9], found)[0]
    assert (change.line, change.after) == ("create migration 0010_step_10", {"sha256": found[9].sha256})


@given(st.integers(0, 5))
def test_what_the_ledger_lacks_is_pending(applied: int) -> None:
    assert migrations.pending(FILES[:applied], FILES) == FILES[applied:]
    assert [change.migration for change in migrations.plan(FILES[:applied], FILES)] == FILES[applied:]


def test_a_newer_ledger_is_refused() -> None:
    with pytest.raises(Conflict, match=r"at migration 5, .* only has 3.*Install a newer"):
        migrations.pending(FILES, FILES[:3])


def test_a_gap_is_refused() -> None:
    with pytest.raises(Conflict, match="lacks rows below 3: 2"):
        migrations.pending([FILES[0], FILES[2]], FILES)
    with pytest.raises(Conflict, match="lacks rows below 4: 1, 3"):
        migrations.pending([FILES[3], FILES[1]], FILES)


def test_an_edited_migration_is_refused() -> None:
    with pytest.raises(Conflict, match="0002_step differs"):
        migrations.pending([FILES[0], replace(FILES[1], sha256="0" * 64)], FILES)


@pytest.mark.parametrize("names", [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["one.sql"], ["0001_A.sql"]])
def test_files_are_numbered_without_a_gap(names: list[str]) -> None:
    with pytest.raises(InvalidInput):
        migrations.shipped(dict.fromkeys(names, "SELECT 1"))
