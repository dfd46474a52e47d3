# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an instance is, and why."""

from __future__ import annotations

from typing import Any

import pytest

from pgops.reports import judging
from pgops.reports.judging import Reason

SECTION: dict[str, Any] = {"error": None, "hidden": {}}
STORED: dict[str, Any] = {"node": "db1/main", "cluster": "shop", "error": None, "panels": {}}


def facts(**sections: Any) -> dict[str, Any]:
    """The facts of an instance that is well, but for some sections."""
    well: dict[str, Any] = {
        "role": "primary",
        "running": True,
        "major": 18,
        "support": "supported",
        "error": None,
        "agent": {"configured": True, "repository": "/backups/shop"},
        "monitoring": {"nodes": [{"node": "db1/main", "newest_age_s": 20}]},
        "alerts": {"firing": [], "evaluated_age_s": 30, "evaluated_at": "2026-01-31T03:12:00Z"},
        "backups": {"recoverable": True, "backups": 0, "obstacle": None, "seen_at": None, "failure": None},
        "archiver": {"failing": False},
        "archiving": {"gaps": []},
        "replication": {"receiver": None, "slots": []},
        "server": {"recovery": None},
        "jobs": {"list": [{"name": "collect", "active": True, "last_result": "success"}]},
        "settings": {"pending_restart": []},
        "schema": {"drifted": []},
    }
    changed = {**well, **{name: value for name, value in sections.items() if not isinstance(value, dict)}}
    for name, value in sections.items():
        if isinstance(value, dict):
            changed[name] = {**(well.get(name) or {}), **value}
    return {name: {**SECTION, **one} if isinstance(one, dict) else one for name, one in changed.items()}


def alert(**other: Any) -> dict[str, Any]:
    labels = {"node": "db1/main", "cluster": "shop", "database": "crm"}
    return {
        "rule": "deadlocks",
        "severity": "warning",
        "node": "db1/main",
        "labels": labels,
        "fired_at": "2026-01-31T03:12:00Z",
        "acknowledged_by": None,
        **other,
    }


def test_one_that_is_well_has_no_reason() -> None:
    assert judging.reasons(facts(), STORED) == []
    assert judging.level([]) == "ok"


@pytest.mark.parametrize(
    ("sections", "level", "words"),
    [
        ({"alerts": {"firing": [alert()]}}, "warning", "Alert deadlocks (database crm)"),
        ({"alerts": {"firing": [alert(severity="critical")]}}, "critical", "deadlocks"),
        ({"alerts": {"firing": [alert(severity="info")]}}, "ok", "deadlocks"),
        ({"alerts": {"firing": [alert(acknowledged_by="ann")]}}, "warning", "acknowledged by ann"),
        ({"alerts": {"evaluated_age_s": 301}}, "warning", "not evaluated"),
        ({"backups": {"recoverable": False, "obstacle": "missing segment 1A"}}, "critical", "missing segment 1A"),
        ({"backups": {"recoverable": None}}, "unknown", "No backups"),
        ({"backups": {"recoverable": None, "backups": 1}}, "unknown", "the job catalogue"),
        ({"backups": {"recoverable": None}, "agent": {"repository": None}}, "ok", "No backups"),
        (
            {"backups": {"failure": {"newest": True, "message": "no room", "ended_at": None}}},
            "warning",
            "no room",
        ),
        (
            {"backups": {"drill": {"status": "failed", "message": "page 7", "ended_at": None}}},
            "critical",
            "page 7",
        ),
        ({"backups": {"drill": {"status": "not_run", "message": "busy", "ended_at": None}}}, "ok", ""),
        ({"backups": {"drills_declared": True, "recovery": "unproven"}}, "warning", "No recovery drill"),
        (
            {"archiver": {"failing": True, "last_failed_wal": "0000", "last_failed_at": None}},
            "critical",
            "0000",
        ),
        ({"archiving": {"gaps": [{"first_wal": "00AB", "noticed_at": None}]}}, "warning", "00AB"),
        ({"server": {"recovery": {"paused": True}}}, "warning", "paused"),
        ({"role": "standby"}, "warning", "no stream"),
        ({"replication": {"slots": [{"name": "s1", "wal_status": "lost"}]}}, "warning", "s1 is lost"),
        ({"agent": {"configured": False}}, "unknown", "Not monitored"),
        ({"monitoring": {"nodes": [{"node": "db1/main", "newest_age_s": 301}]}}, "warning", "No sample for 301 s"),
        ({"monitoring": {"nodes": [{"node": "db1/main", "newest_age_s": None}]}}, "warning", "in the last day"),
        ({"jobs": {"list": [{"name": "backup", "active": False}]}}, "warning", "backup does not run"),
        (
            {"jobs": {"list": [{"name": "b", "active": True, "last_result": "timeout"}]}},
            "warning",
            "b failed: timeout",
        ),
        ({"jobs": {"error": {"code": "host_failed", "message": "no right"}}}, "unknown", "without jobs: no right"),
        ({"settings": {"pending_restart": ["wal_level"]}}, "ok", "wal_level"),
        ({"schema": {"drifted": ["function x"]}}, "ok", "function x"),
        ({"support": "too new"}, "ok", "too new"),
    ],
)
def test_what_is_wrong_is_said(sections: dict[str, Any], level: str, words: str) -> None:
    found = judging.reasons(facts(**sections), STORED)
    assert judging.level(found) == level
    assert words in "".join(one.text for one in found[:1]), found


def test_without_a_session_nothing_else_is_known() -> None:
    error = {"code": "unreachable", "message": "no socket"}
    found = judging.reasons(facts(error=error, running=False, settings={"pending_restart": ["x"]}), STORED)
    assert found == [Reason("critical", "Down: no socket")]
    refused = judging.reasons(facts(error=error), STORED)
    assert refused == [Reason("critical", "Running, but no session can be opened: no socket")]


def test_alerts_of_other_nodes_are_theirs() -> None:
    assert judging.reasons(facts(alerts={"firing": [alert(node="db2/main")]}), STORED) == []


def test_a_panel_that_failed_makes_it_partial() -> None:
    stored = {**STORED, "panels": {"queries": {"rows": [], "error": {"message": "too slow"}}}}
    (found,) = judging.reasons(facts(), stored)
    assert (found.level, "queries" in found.text, "too slow" in found.text) == ("unknown", True, True)
    (unread,) = judging.reasons(facts(), {**STORED, "error": {"message": "no right"}})
    assert (unread.level, "no right" in unread.text) == ("unknown", True)


def test_the_worst_comes_first_and_tells_the_status() -> None:
    sections = {"alerts": {"firing": [alert()]}, "backups": {"recoverable": False, "obstacle": "no base backup"}}
    found = judging.reasons(facts(**sections, settings={"pending_restart": ["x"]}), STORED)
    assert [one.level for one in found] == ["critical", "warning", "notice"]
    assert judging.level(found) == "critical"
