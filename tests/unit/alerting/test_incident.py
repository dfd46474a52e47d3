# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An incident as people read it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from pgops.alerting import incident
from pgops.alerting.incident import Incident

BEGAN = datetime(2026, 11, 30, 2, 14, 40, tzinfo=timezone.utc)
ALERT: dict[str, Any] = {
    "alert": "6c84fb90-12c4-11e1-840d-7b25c5ee775a",
    "severity": "critical",
    "rule": "lock_wait",
    "status": "resolved",
    "node": "db1/main",
    "labels": {"database": "shop"},
    "metric": "longest_lock_wait_seconds",
    "value": 312.5,
    "operator": ">",
    "threshold": 300.0,
    "ended_at": BEGAN + timedelta(minutes=5),
    "acknowledged_by": "alice",
    "acknowledgement": None,
}
SCENE: dict[str, Any] = {"node": "db1/main", "is_primary": True, "taken_at": BEGAN, "left_out": 0, "error": None}


def test_all_of_an_incident() -> None:
    event = {"at": BEGAN - timedelta(hours=1, seconds=5), "node": "", "kind": "maintenance", "text": "patches"}
    tree = [
        {"depth": 0, "pid": 7, "blocks": 1, "query": "UPDATE\n orders", "user": "alice"},
        {"depth": 1, "pid": 9, "blocked_by": [7], "waits_seconds": 312.51, "state": None},
    ]
    parts = [
        {**SCENE, "part": "blocking", "seen": tree, "left_out": 3},
        {**SCENE, "part": "slots", "seen": []},
        {**SCENE, "part": "progress", "seen": None, "left_out": None, "error": "too slow"},
        {**SCENE, "node": "db2/main", "is_primary": False, "part": "new_part", "seen": [{"a": 1}]},
    ]
    assert incident.lines(Incident(ALERT, BEGAN, [event], parts)) == [
        "critical lock_wait on db1/main (database shop)",
        f"longest_lock_wait_seconds: 312.5 > 300; since {BEGAN}, resolved at {ALERT['ended_at']}",
        "alert 6c84fb90-12c4-11e1-840d-7b25c5ee775a",
        "acknowledged by alice: (no note)",
        "",
        "What happened",
        "  2026-11-30 01:14:35+00:00   -1:00:05  (cluster)  maintenance: patches",
        "",
        "Scene of db1/main (primary) at 2026-11-30 02:14:40+00:00",
        "  Who waits for whom",
        "    pid 7, user alice, blocks 1",
        "        UPDATE orders",
        "      pid 9, blocked_by 7, waits_seconds 312.51",
        "    and 3 more",
        "  Replication slots: none",
        "  Maintenance: could not be seen: too slow",
        "",
        "Scene of db2/main (standby) at 2026-11-30 02:14:40+00:00",
        "  new_part",
        "    a 1",
    ]


def test_an_incident_of_which_nothing_is_known() -> None:
    told = incident.lines(Incident({**ALERT, "acknowledged_by": None, "ended_at": None}, BEGAN))
    assert told[-3:] == ["  nothing is known", "", incident.NO_SCENE]
