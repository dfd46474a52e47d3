# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is looked at before a superuser works in the ops database."""

from __future__ import annotations

import re

import artifact

from pgops import sources
from pgops.server.foreign import TABLES


def test_every_table_of_the_migrations_is_looked_at() -> None:
    files = sources.gather(str(artifact.LIBRARY), (".sql",), "sql/migrations").values()
    made = {name for text in files for name in re.findall(r"CREATE TABLE pgops\.(\w+)", text)}
    assert made - {"round_0"} == set(TABLES)
