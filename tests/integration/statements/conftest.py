# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server that counts statements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from copies import Copies
from majors import EVERY_MAJOR, make_server
from servers import Server

PRELOAD = {
    "shared_preload_libraries": "pg_stat_statements",
    "compute_query_id": "on",
    "pg_stat_statements.track_planning": "on",
}
EXTENSION = "CREATE EXTENSION pg_stat_statements WITH SCHEMA public; GRANT USAGE ON SCHEMA public TO pgops"


@pytest.fixture(name="preloaded", scope="module", params=EVERY_MAJOR)
def _preloaded(request: pytest.FixtureRequest) -> Iterator[Copies]:
    with make_server(request.param, settings=PRELOAD) as server:
        yield Copies(server, EXTENSION)


@pytest.fixture(name="counting")
def _counting(preloaded: Copies) -> Iterator[Server]:
    """A server that counts statements from now on, with our ops database."""
    with preloaded.one() as server:
        server.value("SELECT pg_stat_statements_reset()", "pgops")
        yield server
