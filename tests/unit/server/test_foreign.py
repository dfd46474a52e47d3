# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is looked at before a superuser works in the ops database."""

from __future__ import annotations

import re

import artifact

from pgops import sources
from pgops.backup import record, record_dumps
from pgops.opsdb import migrations
from pgops.recovery import points
from pgops.repository import catalogue, drills, recorded, recorded_dumps, recoverable
from pgops.server.foreign import TABLES


def test_every_table_of_the_migrations_is_looked_at() -> None:
    files = sources.gather(str(artifact.LIBRARY), (".sql",), "sql/migrations").values()
    made = {name for text in files for name in re.findall(r"CREATE TABLE pgops\.(\w+)", text)}
    assert made - {"round_0"} == set(TABLES)


def test_migrations_say_which_tables_exist() -> None:
    files = sources.gather(str(artifact.LIBRARY), (".sql",), "sql/migrations")
    steps = migrations.shipped({path.rpartition("/")[2]: files[path] for path in files})
    assert migrations.tables(steps, steps) == sorted(TABLES)
    assert migrations.tables((), steps) == []
    assert "generation" not in migrations.tables(steps[:1], steps)


def test_the_catalogue_locks_every_table_that_it_names() -> None:
    # All that work under its locks.
    rooms = (catalogue, drills, recorded, recorded_dumps, recoverable, record, record_dumps, points)
    texts = [str(one) for room in rooms for name, one in vars(room).items() if name.isupper()]
    assert set(re.findall(r"pgops\.(\w+)", " ".join(texts))) - {"fleet"} == set(catalogue.TABLES)


def test_migrations_call_no_function_of_the_schema() -> None:
    """Which somebody could have replaced: server/guard.py."""
    for text in sources.gather(str(artifact.LIBRARY), (".sql",), "sql/migrations").values():
        assert re.findall(r"(?:SELECT|PERFORM|CALL|FROM|,|=)\s+pgops\.\w+\s*\(", text) == []
