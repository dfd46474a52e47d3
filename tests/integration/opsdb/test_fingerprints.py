# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has been touched since it was installed is looked at again: the quick answer is the thorough one."""

from __future__ import annotations

import psycopg
import pytest
from deploying import deploy, withdraw
from servers import Server

from pgops.opsdb.fingerprints import CATALOGUE, present

EDITS = {
    "a function's body": "CREATE OR REPLACE FUNCTION pgops.server_epoch() RETURNS text "
    "LANGUAGE sql AS $$ SELECT 'mine' $$",
    "a function's setting": "ALTER FUNCTION pgops.renew_shapes() SET work_mem = '5MB'",
    "a function's owner": "ALTER FUNCTION pgops.renew_shapes() OWNER TO CURRENT_USER",
    "a function's rights": "GRANT EXECUTE ON FUNCTION pgops.renew_shapes() TO PUBLIC",
    "another function": "CREATE FUNCTION pgops.mine() RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$",
    "a function that is gone": "DROP FUNCTION pgops.renew_shapes()",
    "a view": "CREATE OR REPLACE VIEW pgops.installed_objects AS "
    "SELECT f.object, f.sha256, f.server_major, 'mine' AS mark FROM pgops.fingerprint AS f",
    "a view's rights": "GRANT SELECT ON pgops.nodes TO PUBLIC",
    "another column": "ALTER TABLE pgops.setting ADD COLUMN mine integer",
    "a column's type": "ALTER TABLE pgops.object_source ALTER COLUMN sha256 TYPE varchar",
    "a column's default": "ALTER TABLE pgops.setting ALTER COLUMN value SET DEFAULT 'mine'",
    "a column that may be null": "ALTER TABLE pgops.setting ALTER COLUMN value DROP NOT NULL",
    "a column's name": "ALTER TABLE pgops.object_source RENAME COLUMN sha256 TO mine",
    "a constraint": "ALTER TABLE pgops.setting ADD CONSTRAINT mine CHECK (value <> 'mine')",
    "a constraint that is gone": "ALTER TABLE pgops.object_source DROP CONSTRAINT object_source_pkey",
    "an index": "CREATE INDEX mine ON pgops.setting (value)",
    "an index's option": "ALTER INDEX pgops.object_source_pkey SET (fillfactor = 70)",
    "a trigger": "CREATE TRIGGER mine BEFORE UPDATE ON pgops.setting FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "a table's rights": "GRANT INSERT ON pgops.setting TO PUBLIC",
    "a table that is gone": "DROP TABLE pgops.object_source",
}


@pytest.fixture(name="own", scope="module")
def _own(server: Server):
    """The superuser's connection to a deployed ops database."""
    deploy(server)
    with server.connect("pgops") as opened:
        yield opened
    withdraw(server)


def shown(own: psycopg.Connection, query: str) -> dict[str, str]:
    return dict(own.execute(query).fetchall())


@pytest.mark.every_major
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_is_seen(own: psycopg.Connection, edit: str) -> None:
    before = shown(own, CATALOGUE)
    assert before == shown(own, present("pgops.fingerprint")) == shown(own, present("pgops.installed_objects"))
    with own.transaction(force_rollback=True):
        own.execute(edit)
        after = shown(own, CATALOGUE)
        assert after != before
        assert shown(own, present("pgops.fingerprint")) == after


def test_rewritten_catalogues_are_no_edit(own: psycopg.Connection) -> None:
    for table in ("pg_proc", "pg_class", "pg_attribute", "pg_rewrite", "pg_index"):
        own.execute(f"VACUUM (FULL, FREEZE) {table}")
    assert shown(own, present("pgops.fingerprint")) == shown(own, CATALOGUE)


def test_definitions_of_another_major_are_written_anew(own: psycopg.Connection) -> None:
    with own.transaction(force_rollback=True):
        own.execute("UPDATE pgops.fingerprint SET server_major = 9, sha256 = 'as 9 wrote it'")
        assert shown(own, present("pgops.fingerprint")) == shown(own, CATALOGUE)
