# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run of one shipped collector on a tests' server, as a collection does it."""

from __future__ import annotations

from typing import Any

from deploying import SHIPPED, target
from servers import Server
from waiting import until

from pgops.metrics.collectors import Collector, wrapped
from pgops.metrics.rounds import told_apart
from pgops.server.session import connect

BY_NAME = {collector.name: collector for collector in SHIPPED}
Rows = list[dict[str, Any]]


def session_of(server: Server, collector: Collector, database: str) -> Any:
    """As a collection opens it: the role `pgops`, or the server's owner who has become pg_read_all_data."""
    who = {"role": "pg_read_all_data"} if collector.rights == "all_data" else {"user": "pgops"}
    return connect(target(server, database=database, lock_timeout=0.1, statement_timeout=collector.timeout, **who))


def measure(server: Server, name: str, database: str) -> Rows:
    """The rows of a collector, which are series of their own, each."""
    collector = BY_NAME[name]
    with session_of(server, collector, database) as session, session.transaction():
        session.execute("SET TRANSACTION READ ONLY")
        rows: Rows = session.documents(wrapped(collector.query))
    found, repeated = told_apart(collector, rows)
    assert found
    assert repeated == []
    return rows


def row_of(rows: Rows, **labels: str | None) -> dict[str, Any]:
    """The only row with these labels."""
    (found,) = [row for row in rows if all(row[key] == value for key, value in labels.items())]
    return found


def values_of(rows: Rows, metric: str, label: str) -> dict[str, Any]:
    """All values of a metric, by a label."""
    return {row[label]: row[metric] for row in rows if row[metric] is not None}


def counted(server: Server, database: str, condition: str) -> None:
    """Wait until the statistics say so: sessions hand in what they have counted when they end."""
    until(lambda: server.value(f"SELECT {condition}", database), f"counted: {condition}")
