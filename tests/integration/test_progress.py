# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Maintenance that runs now, as the view of the ops database shows it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from deploying import deploy, withdraw
from servers import Server, until


@pytest.fixture(name="deployed")
def _deployed(server: Server) -> Iterator[Server]:
    deploy(server)
    yield server
    withdraw(server)


def test_a_slow_index_is_seen_on_its_way(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.long AS SELECT n FROM generate_series(1, 2000) AS n", "pgops")
    deployed.value(
        "CREATE FUNCTION public.slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
        "$$BEGIN PERFORM pg_catalog.pg_sleep(0.002); RETURN $1; END$$",
        "pgops",
    )
    select = (
        "SELECT (operation, datname, relation, percent > 0 AND percent < 100, unit, started_at < now())::text "
        "FROM pgops.maintenance_progress WHERE percent > 0 AND pid <> 0"
    )
    seen = '("CREATE INDEX",pgops,long,t,blocks,t)'
    with ThreadPoolExecutor() as threads:
        made = threads.submit(deployed.value, "CREATE INDEX ON public.long (public.slow(n))", "pgops")
        until(lambda: deployed.value(select, "pgops") == seen, "seen", 10)
        made.result(30)
    assert deployed.value("SELECT count(*) FROM pgops.maintenance_progress WHERE datname = 'pgops'", "pgops") == 0
