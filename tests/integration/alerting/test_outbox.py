# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told to whom, and when: messages in the outbox, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from notified import Notified, said
from psycopg.types.json import Jsonb
from servers import Server

HOUR = 3600
MINUTE = 60


@pytest.fixture(name="notified")
def _notified(deployed: Server) -> Iterator[Notified]:
    with deployed.connect("pgops") as session:
        yield Notified(session)


# --- what is told


def test_an_alert_is_told_once_when_it_fires_and_once_when_it_has_ended(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    assert [notified.fire(0), notified.at(60), notified.at(120)] == [1, 0, 0]
    assert notified.told() == [[("firing", "shop")]]
    assert notified.history() == [("firing", True, ["ops"])]
    assert [notified.end(HOUR), notified.at(HOUR + 60)] == [1, 0]
    assert notified.told() == [[("resolved", "shop")]]
    assert [notified.at(9 * HOUR), notified.claim()] == [0, []]


def test_what_was_told_to_nobody_is_not_said_to_be(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(0)
    assert notified.history() == [("firing", False, [])]
    notified.note(notified.claim(), "failed", "refused")
    assert notified.history() == [("firing", False, [])]


def test_all_series_of_a_rule_are_told_in_one_message(notified: Notified) -> None:
    notified.rule()
    notified.rule("other_load", "warning")
    notified.channel()
    databases = [f"db{number}" for number in range(500)]
    assert notified.fire(0, *databases) == 2
    documents = [attempt[4] for attempt in notified.claim()]
    assert [document["events"] for document in documents] == [{"firing": 500}] * 2
    assert [len(document["alerts"]) for document in documents] == [20, 20]


def test_what_happens_soon_after_a_message_waits_for_the_next(notified: Notified) -> None:
    notified.rule()
    notified.channel(group_interval="5 minutes")
    notified.fire(0, "shop")
    notified.told()
    assert [notified.fire(60, "bank"), notified.fire(120, "mail"), notified.end(180, "mail")] == [0, 0, 0]
    assert notified.at(300) == 1
    assert notified.told() == [[("firing", "bank"), ("passed", "mail"), ("repeated", "shop")]]


def test_what_goes_on_is_told_again_until_somebody_acknowledges_it(notified: Notified) -> None:
    notified.rule()
    notified.channel(repeat_interval="1 hour")
    notified.fire(0)
    notified.told()
    assert [notified.at(HOUR - 1), notified.at(HOUR)] == [0, 1]
    assert notified.told() == [[("repeated", "shop")]]
    notified.session.execute(b"UPDATE pgops.alert SET acknowledged_at = now(), acknowledged_by = 'ann'")
    assert notified.at(3 * HOUR) == 0
    notified.end(4 * HOUR)
    assert notified.told() == [[("resolved", "shop")]]


def test_what_fired_and_ended_before_anybody_was_told_is_told_as_that(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.channel("new", created_at="now")
    moment = "SELECT pgops.evaluate_alerts_at(%s::timestamptz + make_interval(secs => %s))"
    for second, value in ((0, 9), (60, 1)):
        notified.load(second, value)
        notified.value(moment, notified.start, second)
    assert notified.at(120) == 1
    assert notified.told() == [[("passed", "shop")]]
    assert notified.history() == [("resolved", True, ["ops"])]
    assert [notified.at(200), notified.at(HOUR)] == [0, 0]


def test_a_rule_says_whom_and_a_channel_says_what(notified: Notified) -> None:
    notified.rule("a", notification_channels='["dba"]')
    notified.rule("b", notification_channels='["gone"]')
    notified.rule("c", severity="info")
    for name, columns in {
        "ops": {"severities": ["warning", "critical"]},
        "dba": {"is_default": False},
        "bank": {"labels": {"database": "bank", "rule_name": "c"}},
        "off": {"is_enabled": False},
    }.items():
        notified.channel(name, **columns)
    notified.fire(0, "shop", "bank")
    found = notified.rows("SELECT channel, rule_name FROM pgops.notifications ORDER BY channel, rule_name")
    assert found == [("bank", "c"), ("dba", "a"), ("ops", "b")]
    assert notified.told("bank") == [[("firing", "bank")]]


def test_a_channel_may_want_to_know_of_no_end(notified: Notified) -> None:
    notified.rule()
    notified.channel(send_resolved=False)
    notified.fire(0)
    notified.told()
    assert [notified.end(HOUR), notified.at(2 * HOUR)] == [0, 0]
    assert notified.fire(3 * HOUR) == 1


def test_a_clock_that_was_ahead_delays_nothing(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(30 * HOUR)
    notified.told()
    notified.end(60)
    assert notified.told() == [[("resolved", "shop")]]


def test_a_channel_that_is_removed_takes_its_messages_along(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(0)
    notified.session.execute(b"DELETE FROM pgops.notification_channel")
    notified.at(60)
    assert notified.rows("SELECT status FROM pgops.notifications") == [("dead",)]
    notified.end(120)
    assert notified.value("SELECT bool_and(closed) FROM pgops.alert_notice") is True


# --- of what nobody is told


def test_nobody_is_told_of_what_is_silenced_but_of_its_end_if_they_knew(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(0, "shop")
    notified.told()
    silence = "SELECT pgops.silence_alerts(%s, '2 hours', 'we know', %s)"
    notified.value(silence, Jsonb({"rule_name": "high_load"}), notified.start)
    assert notified.fire(HOUR, "bank") == 0
    assert notified.end(HOUR + 60, "shop", "bank") == 1
    assert notified.told() == [[("resolved", "shop")]]
    assert notified.history() == [("resolved", True, ["ops"]), ("resolved", False, [])]


def test_what_still_fires_after_a_silence_is_told(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    query = "SELECT pgops.silence_alerts(%s, '1 hour', 'we know', %s)"
    notified.value(query, Jsonb({"database": "shop", "severity": "critical"}), notified.start)
    assert [notified.fire(0, "shop", "bank"), notified.at(HOUR - 1), notified.at(HOUR)] == [1, 0, 0]
    assert notified.told() == [[("firing", "bank")]]
    assert notified.at(HOUR + 60) == 1
    assert notified.told() == [[("firing", "shop"), ("repeated", "bank")]]


def test_a_silence_can_be_ended_and_those_of_the_inventory_there(notified: Notified) -> None:
    silence = notified.value("SELECT pgops.silence_alerts('{\"node\": \"db1\"}', '1 hour', 'we know')")
    assert notified.rows("SELECT is_active, labels FROM pgops.silences") == [(True, {"node": "db1"})]
    ended = [notified.value("SELECT pgops.end_silence(%s)", silence) for _time in range(2)]
    assert ended == [True, False]
    notified.insert(
        "silence",
        kind="maintenance",
        labels={"a": "b"},
        ends_at="infinity",
        comment="x",
        source="inventory",
        name="x",
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to the inventory"):
        notified.value("SELECT pgops.end_silence(silence_id) FROM pgops.silences WHERE source = 'inventory'")


def test_silences_are_for_operators_who_may_change_nothing_else(notified: Notified) -> None:
    notified.session.execute(b"SET ROLE pgops_operator")
    notified.value("SELECT pgops.silence_alerts('{\"node\": \"db1\"}', '1 hour', 'we know')")
    assert notified.rows("SELECT kind, created_by FROM pgops.silences") == [("silence", "postgres")]
    for query in (
        "DELETE FROM pgops.silence",
        "SELECT FROM pgops.notification",
        "SELECT pgops.queue_notifications()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            notified.session.execute(query.encode())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("silence_alerts('{}', '1 hour', 'all')", "silence_labels_check"),
        ("silence_alerts('{\"a\": \"b\"}', '0', 'why')", "silence_check"),
        ("silence_alerts('{\"a\": \"b\"}', '1 hour', '')", "silence_comment_check"),
        ("maintenance('{\"a\": \"b\"}', '{7}', '01:00', '1 hour', 'Middle-Earth/Bree', 'x')", "no time zone"),
        ("maintenance('{\"a\": \"b\"}', '{8}', '01:00', '1 hour', 'UTC', 'x')", "silence_weekdays_check"),
        ("maintenance('{\"a\": \"b\"}', '{7}', '01:00', '1 month', 'UTC', 'x')", "silence_duration_check"),
    ],
)
def test_a_silence_that_cannot_be_meant_is_refused(notified: Notified, call: str, words: str) -> None:
    with pytest.raises(psycopg.Error, match=words):
        notified.session.execute(f"SELECT pgops.{call}".encode())


SUNDAY = {"days": "{7}", "zone": "Europe/Berlin", "of_month": None}


@pytest.mark.parametrize(
    ("window", "open_at", "closed_at"),
    [
        pytest.param(
            {**SUNDAY, "start": "02:00", "duration": "2 hours"},
            ["2026-07-05 00:00Z", "2026-07-05 01:59:59Z", "2026-12-06 01:00Z"],
            ["2026-07-04 23:59:59Z", "2026-07-05 02:00Z", "2026-12-06 00:59Z", "2026-07-06 00:30Z"],
            id="in summer and in winter",
        ),
        pytest.param(
            {**SUNDAY, "start": "23:00", "duration": "3 hours", "zone": "America/New_York"},
            ["2026-07-06 03:00Z", "2026-07-06 05:59Z"],
            ["2026-07-06 02:59Z", "2026-07-06 06:00Z"],
            id="over midnight and the end of a week",
        ),
        pytest.param(
            {**SUNDAY, "start": "02:30", "duration": "1 hour"},
            ["2026-03-29 01:30Z", "2026-03-29 02:29Z", "2026-10-25 01:30Z"],
            ["2026-03-29 00:59Z", "2026-03-29 02:30Z", "2026-10-25 00:30Z"],
            id="the hour that is skipped, and the one that is shown twice",
        ),
        pytest.param(
            {**SUNDAY, "start": "00:00", "duration": "1 day", "zone": "UTC", "of_month": "{1,2,3,4,5,6,7}"},
            ["2026-11-01 12:00Z", "2026-12-06 12:00Z"],
            ["2026-11-08 12:00Z", "2026-12-01 12:00Z"],
            id="the first Sunday of each month",
        ),
        pytest.param(
            {**SUNDAY, "days": "{1}", "start": "12:00", "duration": "7 days", "zone": "UTC"},
            ["2026-11-02 11:59Z", "2026-11-02 12:00Z"],
            [],
            id="a whole week",
        ),
    ],
)
def test_maintenance_windows_recur_by_the_clock_of_their_time_zone(
    notified: Notified, window: dict[str, str | None], open_at: list[str], closed_at: list[str]
) -> None:
    query = "SELECT pgops.maintenance('{\"node\": \"db1\"}', %s, %s, %s, %s, 'patches', %s)"
    notified.value(query, *(window[name] for name in ("days", "start", "duration", "zone", "of_month")))
    notified.session.execute(b"UPDATE pgops.silence SET starts_at = '2026-01-01'")
    active = "SELECT pgops.silence_active(s, %s) FROM pgops.silence AS s"
    assert {moment: notified.value(active, moment) for moment in open_at} == dict.fromkeys(open_at, True)
    assert {moment: notified.value(active, moment) for moment in closed_at} == dict.fromkeys(closed_at, False)


def test_a_critical_alert_silences_its_warning(notified: Notified) -> None:
    notified.rule(threshold_value=50)
    notified.rule(severity="warning")
    notified.channel(group_interval="0")
    notified.load(0, 99, "shop")
    notified.load(0, 9, "bank")
    notified.at(0)
    assert sorted(notified.told()) == [[("firing", "bank")], [("firing", "shop")]]
    notified.load(60, 9, "shop")  # the critical one ends, and the warning goes on
    notified.at(60)
    assert sorted(notified.told()) == [[("firing", "shop"), ("repeated", "bank")], [("resolved", "shop")]]


def test_an_instance_that_is_down_silences_its_others(notified: Notified) -> None:
    notified.rule(severity="warning")
    notified.load(0, 1, metric="down")
    notified.rule("instance_down", metric_name="down", condition_operator=">", threshold_value=0)
    notified.channel()
    notified.fire(0, "shop", "bank")
    assert notified.rows("SELECT rule_name FROM pgops.notifications") == [("instance_down",)]
    notified.load(60, 0, metric="down")
    notified.at(60)
    assert ("high_load",) in notified.rows("SELECT rule_name FROM pgops.notifications")


# --- what becomes of a message


def test_a_message_is_sent_by_one_at_a_time_and_to_each_target_until_it_has_it(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(0)
    first = notified.claim("ops", "mail", "slack")
    assert [(attempt[2], attempt[3]) for attempt in first] == [("mail", False), ("slack", False)]
    assert notified.claim("ops", "mail", "slack") == []
    assert notified.note(first[:1]) == ["waiting"]
    assert notified.history() == [("firing", True, ["ops"])]
    assert notified.note(first[1:], "failed", "refused") == ["waiting"]
    assert notified.claim("ops", "mail", "slack") == []  # not yet
    notified.hurry()
    again = notified.claim("ops", "mail", "slack")
    assert [(attempt[2], attempt[3]) for attempt in again] == [("slack", False)]
    assert notified.note(again) == ["sent"]
    assert again[0][4]["notification_id"] == first[0][4]["notification_id"]
    (attempts,) = notified.rows("SELECT attempts FROM pgops.notifications")[0]
    assert [(one["target"], one["outcome"], one["error"]) for one in attempts] == [
        ("mail", "sent", None),
        ("slack", "failed", "refused"),
        ("slack", "sent", None),
    ]


def test_what_a_sender_never_said_the_end_of_is_sent_again_and_marked(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(0)
    (lost,) = notified.claim(lease="0")
    (second,) = notified.claim()
    assert (lost[3], second[3]) == (False, True)
    # It was only slow, and says so now: then it is known.
    assert notified.note([lost]) == ["waiting"]
    assert notified.note([second]) == ["sent"]
    assert notified.claim() == []


def test_a_message_whose_senders_all_die_is_given_up_and_told_elsewhere(notified: Notified) -> None:
    notified.rule()
    notified.channel(attempts=3, fallback_channel="desk", fallback_after=2)
    notified.channel("desk", is_default=False)
    notified.fire(0)
    for _sender in range(3):
        assert len(notified.claim(lease="0")) == 1
    assert notified.at(60) == 1
    assert notified.told("desk") == [[("firing", "shop")]]
    assert len(notified.claim(lease="0")) == 1
    notified.at(120)
    assert notified.claim() == []
    statuses = "SELECT channel, status FROM pgops.notifications ORDER BY channel"
    assert notified.rows(statuses) == [("desk", "sent"), ("ops", "dead")]


def test_what_is_critical_is_sent_first(notified: Notified) -> None:
    for name, severity in (("a", "warning"), ("b", "info"), ("c", "critical")):
        notified.rule(name, severity)
    notified.channel()
    notified.fire(0)
    sent = [notified.claim(most=1)[0][4]["alerts"][0]["severity"] for _time in range(3)]
    assert sent == ["critical", "warning", "info"]


def test_what_is_ambiguous_is_marked(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(0)
    notified.note(notified.claim(), "ambiguous", "no answer in time")
    notified.hurry()
    assert [attempt[3] for attempt in notified.claim()] == [True]


def test_attempts_are_ever_farther_apart_and_end(notified: Notified) -> None:
    notified.rule()
    notified.channel(attempts=9)
    notified.fire(0)
    pauses = []
    for _attempt in range(8):
        assert notified.note(notified.claim(), "failed", "no") == ["waiting"]
        pauses.append(
            notified.value("SELECT round(extract(EPOCH FROM next_attempt_at - now()) / 30) FROM pgops.notifications")
        )
        notified.hurry()
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 120]
    assert notified.note(notified.claim(), "failed", "no") == ["dead"]
    assert notified.rows("SELECT dead, waiting FROM pgops.notification_channels") == [(1, 0)]


def test_the_hundredth_attempt_is_the_last(notified: Notified) -> None:
    notified.rule()
    notified.channel(attempts=100)
    notified.fire(0)
    notified.session.execute(b"UPDATE pgops.notification SET attempts = 98")
    assert notified.note(notified.claim(), "failed", "no") == ["waiting"]
    notified.hurry()
    assert notified.note(notified.claim(), "failed", "no") == ["dead"]


def test_the_fallback_channel_is_told_what_a_channel_cannot_be(notified: Notified) -> None:
    notified.rule()
    notified.channel(fallback_channel="desk", fallback_after=2, attempts=3)
    notified.channel("desk", is_default=False, fallback_channel="ops", group_interval="0")
    notified.fire(0)
    for second in (60, 120):
        assert notified.at(second) == 0
        notified.note(notified.claim(), "failed", "no")
        notified.hurry()
    # What has fired meanwhile waits behind the message that cannot be sent.
    assert notified.fire(180, "bank") == 1
    assert notified.told("desk") == [[("firing", "bank"), ("firing", "shop")]]
    assert notified.history() == [("firing", True, ["desk"])] * 2
    assert notified.note(notified.claim(), "failed", "no") == ["dead"]
    notified.end(600, "shop", "bank")
    assert notified.told("desk") == [[("resolved", "bank"), ("resolved", "shop")]]
    # It works again: it is told what it has missed.
    assert notified.told() == [[("passed", "bank"), ("resolved", "shop")]]


def test_senders_claim_at_once_and_get_different_messages(deployed: Server, notified: Notified) -> None:
    for number in range(6):
        notified.rule(f"rule{number}")
    notified.channel()
    notified.fire(0)
    with deployed.connect("pgops") as other, other.transaction():
        rest = Notified.claim(notified, most=4)
        query = (
            b"SELECT document ->> 'notification_id' FROM pgops.claim_notifications(gen_random_uuid(), %s, '1 min', 9)"
        )
        others = other.execute(query, [Jsonb({"ops": ["mail"]})]).fetchall()
    mine = {attempt[4]["notification_id"] for attempt in rest}
    assert (len(mine), len(others)) == (4, 2)
    assert mine.isdisjoint(one for (one,) in others)


# --- Alertmanager


CLAIM_ALL = "SELECT pgops.claim_alertmanager(%s, 'am', '1 minute')"
NOTE_ALL = "SELECT pgops.note_alertmanager(%s, 'am', %s, %s, %s)"
ME, OTHER = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"


def alertmanager(notified: Notified, error: str | None = None) -> list[tuple[str, str]]:
    """What an Alertmanager is told, by each alert's event and database."""
    found = notified.value(CLAIM_ALL, ME)
    by = {
        event: [one["alert_id"] for one in found if one["event"] == event and not error]
        for event in ("firing", "resolved")
    }
    notified.value(NOTE_ALL, ME, by["firing"], by["resolved"], error)
    return said({"alerts": found})


def test_an_alertmanager_is_told_all_that_fires_each_time_and_what_has_ended_once(notified: Notified) -> None:
    notified.rule()
    notified.channel("am", "alertmanager")
    assert notified.fire(0) == 0
    assert [alertmanager(notified), alertmanager(notified)] == [[("firing", "shop")]] * 2
    assert notified.history() == [("firing", True, ["am"])]
    notified.end(60)
    assert alertmanager(notified, "refused") == [("resolved", "shop")]
    assert [alertmanager(notified), alertmanager(notified)] == [[("resolved", "shop")], []]


def test_one_sender_tells_an_alertmanager(notified: Notified) -> None:
    notified.rule()
    notified.channel("am", "alertmanager")
    notified.fire(0)
    assert notified.value(CLAIM_ALL, OTHER) is not None
    assert notified.value(CLAIM_ALL, ME) is None
    notified.value(NOTE_ALL, OTHER, [], [], None)
    assert notified.value(CLAIM_ALL, ME) is not None


def test_what_ends_while_an_alertmanager_is_told_is_told_afterwards(notified: Notified) -> None:
    notified.rule()
    notified.channel("am", "alertmanager")
    notified.fire(0)
    ids = [one["alert_id"] for one in notified.value(CLAIM_ALL, ME)]
    notified.end(60)
    notified.value(NOTE_ALL, ME, ids, [], None)
    assert alertmanager(notified) == [("resolved", "shop")]


def test_where_an_alertmanager_does_not_answer_the_fallback_channel_is_told(notified: Notified) -> None:
    notified.rule()
    notified.channel("am", "alertmanager", fallback_channel="desk", fallback_after=2)
    notified.channel("desk", is_default=False)
    notified.fire(0)
    for _time in range(2):
        assert notified.at(60) == 0
        alertmanager(notified, "refused")
    assert notified.at(120) == 1
    assert notified.told("desk") == [[("firing", "shop")]]


# --- much of it


def test_old_messages_are_forgotten_and_the_truth_about_alerts_is_not(notified: Notified) -> None:
    notified.rule()
    notified.channel()
    notified.fire(0)
    notified.told()
    notified.session.execute(b"UPDATE pgops.notification SET ended_at = now() - interval '32 days'")
    assert notified.value("SELECT pgops.forget_notifications()") == 1
    assert notified.value("SELECT count(*) FROM pgops.notification_attempt") == 0
    assert notified.history() == [("firing", True, ["ops"])]


ALERTS = """
INSERT INTO pgops.alert (
    alert_id, rule_id, rule_name, metric_name, severity_level, condition_operator, threshold_value, series_id,
    cluster, node, labels, status, metric_value, started_at, fired_at
)
SELECT gen_random_uuid(), r.rule_id, r.rule_name, 'load', s.severity, '>', 5, 1, 'shop', 'n' || n %% 100,
       jsonb_build_object('node', 'n' || n %% 100, 'table', 't' || n), 'firing', 9, now(), now()
FROM generate_series(1, %s) AS n, pgops.alert_rule AS r, (VALUES ('warning'), ('critical')) AS s (severity)
"""


def test_what_goes_on_is_counted_and_not_listed_again_and_again(notified: Notified) -> None:
    notified.rule()
    notified.channel(repeat_interval="1 hour")
    notified.fire(0, *(f"db{number}" for number in range(100)))
    notified.told()
    assert notified.at(HOUR) == 1
    (attempt,) = notified.claim()
    assert attempt[4]["events"] == {"repeated": 100}
    assert len(attempt[4]["alerts"]) == 20
    assert notified.value("SELECT count(*) FROM pgops.notification_alert") == 120


def test_thousands_of_alerts_are_a_message_for_each_rule_and_channel(notified: Notified) -> None:
    notified.rule()
    for channel in ("ops", "dba"):
        notified.channel(channel)
    notified.value("SELECT pgops.silence_alerts('{\"table\": \"t1\"}', '1 hour', 'we know')")
    notified.session.execute(ALERTS.encode(), [5000])
    assert notified.value("SELECT pgops.queue_notifications()") == 2
    muted = notified.rows("SELECT muted_by, count(*) FROM pgops.alert_notice GROUP BY 1 ORDER BY 1")
    assert muted == [("severity", 9998), ("silence", 4), (None, 9998)]
