# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a look makes of what it sees: answers of servers, file systems, records of jobs, calendars."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from pgops.alerting import duties, looks
from pgops.alerting.courses import Finding
from pgops.alerting.ledger import Work
from pgops.host import calendars, cron
from pgops.instance.configuration import Peer
from pgops.instance.layout import Layout
from pgops.instance.records import Record
from pgops.server.greeting import ABSENT, FULL, READY, REFUSES, SILENT, UNKNOWN, Greeting

TODAY = date(2026, 11, 30)
DISK = {
    "disk": "data",
    "mount": "/srv",
    "disk_size_mb": 1000.0,
    "disk_free_mb": 5.0,
    "disk_used_percent": 99.0,
    "disk_inodes_used_percent": 1.0,
}


def wrong(found: list[Finding]) -> dict[str, bool | None]:
    return {one.rule: one.wrong for one in found}


@pytest.mark.parametrize(
    ("answer", "down", "hung", "full", "refused"),
    [
        (Greeting(READY), False, False, False, None),
        (Greeting(READY, "", True), False, False, False, False),
        (Greeting(READY, "", False, ""), False, False, False, False),
        (Greeting(READY, "", False, "no"), False, False, False, True),
        (Greeting(FULL), False, False, True, None),
        (Greeting(REFUSES), True, False, None, None),
        (Greeting(ABSENT), True, False, None, None),
        (Greeting(SILENT), False, True, None, None),
        (Greeting(UNKNOWN), None, None, None, None),
    ],
)
def test_answers(
    answer: Greeting, down: bool | None, hung: bool | None, full: bool | None, refused: bool | None
) -> None:
    assert wrong(looks.of_server(answer)) == {
        "instance_down": down,
        "instance_hung": hung,
        "connections_exhausted": full,
        "writes_refused": refused,
    }


@pytest.mark.parametrize(
    ("used", "free", "inodes", "full"),
    [
        (98.0, 5, 1, True),
        (97.9, 5, 1, None),
        (94.9, 5, 1, False),
        (99.0, 20_000, 1, False),
        (1.0, 900, 98.0, True),
        (1.0, 900, 96.0, None),
        (1.0, 900, None, False),
        (None, 0, None, False),
    ],
)
def test_file_systems(used: float | None, free: float, inodes: float | None, full: bool | None) -> None:
    row = {**DISK, "disk_used_percent": used, "disk_free_mb": free, "disk_inodes_used_percent": inodes}
    (found,) = looks.of_disks([row, {**row, "disk": "WAL"}])
    assert (found.wrong, dict(found.labels)) == (full, {"mount": "/srv"})
    assert found.text.startswith("/srv (data, WAL) is full: ")


def worked(age: float, sound: float, proven: bool = True) -> Work:
    return Work(1.0, 1.0, -age, -sound, proven)


@pytest.mark.parametrize(
    ("work", "ill", "covered", "stale", "failing"),
    [
        (worked(10, 10), False, False, False, False),
        (worked(301, 301), False, False, True, False),
        (worked(10, 901), False, False, False, True),
        (worked(301, 301), True, False, None, False),
        (worked(10, 901), False, True, False, None),
        (worked(301, 301), False, True, None, False),
    ],
)
def test_jobs(work: Work, ill: bool, covered: bool, stale: bool | None, failing: bool | None) -> None:
    found = looks.of_jobs({"collect": work}, {"collect": 300.0}, 0.0, ill, covered)
    assert wrong(found) == {"job_stale": stale, "job_failing": failing}


def test_only_what_the_ops_database_has_a_rule_for_is_left_to_it() -> None:
    found = looks.of_jobs({"notify": worked(301, 301)}, {"notify": 300.0}, 0.0, False, True)
    assert wrong(found)["job_stale"] is True


def test_how_old_a_record_is_is_told_by_when_it_was_seen() -> None:
    jobs: dict[str, Work] = {}
    for now, ended in ((10.0, 5e8), (70.0, 5e8), (130.0, 4e8), (190.0, 9e9)):
        looks.update(jobs, {"collect": 300.0}, {"collect": Record(ended, 1.0, 0, ended)}, now)
    assert jobs["collect"] == Work(9e9, 9e9, 190.0, 190.0, True)
    looks.update(jobs, {"notify": 300.0}, {}, 200.0)
    assert jobs == {"notify": Work(None, None, 200.0, 200.0)}


def test_the_ops_database_works_where_both_jobs_were_seen_to() -> None:
    both = {"alerts": worked(10, 10), "notify": worked(10, 10)}
    assert looks.database_works(both, 0.0)
    assert not looks.database_works({**both, "notify": worked(10, 201)}, 0.0)
    assert not looks.database_works({**both, "alerts": worked(10, 10, proven=False)}, 0.0)
    assert not looks.database_works({"alerts": worked(10, 10)}, 0.0)


@pytest.mark.parametrize(
    ("word", "covered", "gone"),
    [
        (ABSENT, False, True),
        (SILENT, False, True),
        (SILENT, True, None),
        (READY, True, False),
        (REFUSES, False, False),
        (FULL, False, False),
    ],
)
def test_peers(word: str, covered: bool, gone: bool | None) -> None:
    found = looks.of_peer(Peer("db2", 5432), Greeting(word, "why"), covered)
    assert (found.wrong, dict(found.labels), found.text) == (gone, {"peer": "db2:5432"}, "db2:5432: why")


# --- calendars


@pytest.mark.parametrize(
    ("job", "calendar", "seconds"),
    [
        ("alerts", "minutely", 300),
        ("inspect", "*:0/10", 1200 + 290),
        ("maintain", "hourly", 7200 + 300),
        ("maintain", "Mon..Fri *-*-* 06:30:00", 2 * 3 * 86_400 + 300),
        ("backup", "*-*-* 01:30:00", 3 * 86_400),
        ("backup", "weekly", 14 * 86_400 + 172_800),
        ("maintain", "*-02-29 00:00", 2 * 800 * 86_400 + 300),
    ],
)
def test_a_job_may_miss_a_turn(job: str, calendar: str, seconds: float) -> None:
    assert duties.patience(job, calendars.parse(calendar), TODAY) == seconds


def test_timers_and_crontabs_say_what_is_scheduled(tmp_path: Path) -> None:
    layout = Layout("a", str(tmp_path))
    assert duties.scheduled(layout) == {}
    units = Path(layout.units)
    units.mkdir(parents=True)
    for unit, instance, job, calendar in (
        ("pgops-a-collect", "a", "collect", "minutely"),
        ("pgops-a-alerts", "a", "alerts", "*:*:40"),
        ("pgops-a-b-notify", "a-b", "b-notify", "minutely"),
        ("pgops-a-queries", "a", "queries", "Mon *-*-1 *:*"),
        ("pgops-a-own", "a", "own", "minutely"),
    ):
        (units / f"{unit}.timer").write_text(
            f"[Timer]\nOnCalendar={calendar}\n[X-Pgops]\nInstance={instance}\nJob={job}\n"
        )
    every = calendars.parse("minutely")
    assert duties.scheduled(layout) == {"collect": every, "alerts": every}


@pytest.mark.parametrize("calendar", ["minutely", "*:0/5", "Mon..Fri *-*-* 06:30", "*-01,07-01 00:00", "1..5:00"])
def test_a_crontab_says_the_same_as_the_calendar_that_it_was_made_of(tmp_path: Path, calendar: str) -> None:
    layout = Layout("a", str(tmp_path))
    Path(layout.crontab).parent.mkdir(parents=True)
    command = ["/usr/local/lib/pgops/current/bin/pgops", "--instance", "a", "--scheduled", "inspect"]
    parsed = calendars.parse(calendar)
    Path(layout.crontab).write_bytes(cron.text("a", [cron.line(parsed.cron, "postgres", command, 5, 290)]))
    assert duties.scheduled(layout) == {"inspect": parsed}
