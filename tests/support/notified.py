# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An ops database in which alerts fire and end as a test wants it, and what its outbox makes of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

SAMPLE = (
    "INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name, collected_at) "
    "VALUES (%s, %s, %s, %s::timestamptz + make_interval(secs => %s))"
)
CLAIM = "SELECT attempt_id, channel, target, marked, document FROM pgops.claim_notifications(%s, %s, %s, %s)"


class Notified:
    """Rules on the metric "load", which fire above 5 at once, and channels; moments are seconds from a start on."""

    def __init__(
        self, session: psycopg.Connection[Any], start: str = "date_trunc('hour', now()) - interval '1 day'"
    ) -> None:
        self.session = session
        self.start = self.value(f"SELECT {start}")
        self.load(-86_400, 0)  # a rule must be on a metric that is known

    def value(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        row = self.session.execute(query.encode(), arguments).fetchone()
        return row[0] if row else None

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """All rows."""
        return self.session.execute(query.encode(), arguments).fetchall()

    def insert(self, table: str, **columns: Any) -> None:
        """A row of a table or view of the schema."""
        names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
        values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
        self.session.execute(f"INSERT INTO pgops.{table} ({names}) VALUES ({places})".encode(), values)

    def load(self, second: float, value: float, *databases: str, metric: str = "load") -> None:
        """A sample of some databases."""
        with self.session.cursor() as cursor:
            values = [[metric, value, database, self.start, second] for database in databases or ["shop"]]
            cursor.executemany(SAMPLE, values)

    def rule(self, name: str = "high_load", severity: str = "critical", **columns: Any) -> None:
        """A rule."""
        usual = {"metric_name": "load", "condition_operator": ">", "threshold_value": 5, "minimum_duration": "0"}
        usual |= {"evaluation_window": "1 day"}
        self.insert("alert_rules", **{"rule_name": name, "severity_level": severity, **usual, **columns})

    def channel(self, name: str = "ops", kind: str = "apprise", **columns: Any) -> None:
        """A channel that has been there all the time."""
        self.insert("notification_channel", channel=name, kind=kind, **{"created_at": "-infinity", **columns})

    def at(self, second: float) -> int:
        """Evaluate the rules, and write what is to be told; how many messages."""
        moment = "%s::timestamptz + make_interval(secs => %s)"
        self.session.execute(f"SELECT pgops.evaluate_alerts_at({moment})".encode(), [self.start, second])
        return int(self.value(f"SELECT pgops.queue_notifications_at({moment})", self.start, second))

    def fire(self, second: float, *databases: str) -> int:
        """The databases' load is high from now on; how many messages are written."""
        self.load(second, 9, *databases)
        return self.at(second)

    def end(self, second: float, *databases: str) -> int:
        """It is low again."""
        self.load(second, 1, *databases)
        return self.at(second)

    def claim(self, channel: str = "ops", *targets: str, lease: str = "1 minute", most: int = 100) -> list[Any]:
        """What a new sender has to send to a channel."""
        given = Jsonb({channel: list(targets or ("mail",))})
        return self.rows(CLAIM, str(uuid.uuid4()), given, lease, most)

    def note(self, attempts: Sequence[Any], outcome: str = "sent", error: str | None = None) -> list[str]:
        """How attempts ended; what became of their messages."""
        return [self.value("SELECT pgops.note_attempt(%s, %s, %s)", one[0], outcome, error) for one in attempts]

    def told(self, channel: str = "ops", *targets: str) -> list[list[tuple[str, str]]]:
        """Send what is due: by message, each alert's event and database."""
        attempts = self.claim(channel, *targets)
        self.note(attempts)
        return [said(one[4]) for one in attempts]

    def hurry(self) -> None:
        """What waits for its next attempt is due now."""
        self.session.execute(b"UPDATE pgops.notification SET next_attempt_at = now() - interval '1 s'")

    def history(self) -> list[tuple[Any, ...]]:
        """Of each alert its status, whether somebody was told, and whom."""
        columns = "alert_status, notification_sent, notification_channels_used"
        return self.rows(f"SELECT {columns} FROM pgops.alert_history ORDER BY started_at, database_name")


def said(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What a message says: each alert's event and database."""
    return sorted((alert["event"], alert["labels"]["database"]) for alert in document["alerts"])
