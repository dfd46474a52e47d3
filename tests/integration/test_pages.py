# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the documentation tells people to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploying import collect, deploy, withdraw
from servers import Server

from pgops.facts.engine import SETTINGS

DOCS = Path(__file__).parents[2] / "docs"


def queries(page: str) -> list[str]:
    """The blocks of SQL of a page."""
    return re.findall(r"```sql\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)


THRESHOLDS = {
    "database_size_mb": {"warning": 1, "critical": 1e9},
    "cache_hit_ratio": {"warning": 1000, "critical": 999},  # one that is bad below
    "connections_used_percent": {"warning": 100, "critical": 101},
}


@pytest.fixture(name="deployed")
def _deployed(server: Server, tmp_path: Path) -> Iterator[Server]:
    tmp_path.chmod(0o755)
    try:
        deploy(server, thresholds=THRESHOLDS)
        collect(server, tmp_path)
        yield server
    finally:
        withdraw(server)


def test_the_pages_queries_run_and_find_what_is_beyond_its_threshold(deployed: Server) -> None:
    pages = {page: queries(page) for page in ("monitoring", "archiving", "views")}
    assert all(pages.values())
    deployed.psql("CREATE SCHEMA app; CREATE TABLE app.queue ()", "pgops")  # what the example of a collector reads
    for query in [query for found in pages.values() for query in found if not query.startswith("-- collector")]:
        deployed.psql(query, "pgops")
    assert deployed.value("SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'orders_open'", "pgops") == 1
    (beyond,) = [query for query in pages["monitoring"] if "threshold_direction" in query]
    with deployed.connect("pgops") as session:
        found = {(row[1], row[-1]) for row in session.execute(beyond)}
    assert {one for one in found if one[0] in THRESHOLDS} == {("cache_hit_ratio", True), ("database_size_mb", False)}


def test_what_is_asked_for_in_sql_is_as_the_page_says(server: Server) -> None:
    try:
        deploy(server, backup=True)
        server.psql("CREATE ROLE alice")
        for query in queries("backups"):
            server.psql(query, "pgops")
        asked = server.value("SELECT array_agg(backup_type ORDER BY 1) FROM pgops.backup_history", "pgops")
        assert asked == ["full", "incremental"]
    finally:
        server.psql("DROP ROLE IF EXISTS alice")
        withdraw(server)


def test_the_facts_page_names_the_settings() -> None:
    page = (DOCS / "facts.md").read_text()
    assert [name for name in SETTINGS if f"`{name}`" not in page] == []
