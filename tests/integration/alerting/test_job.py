# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job `alerts`: each minute is evaluated once, those that were missed too; and what people see of it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deploying import collect, configured, rule
from facts_contract import read as contract
from servers import Server

from pgops.alerting import facts, job
from pgops.errors import InvalidInput, QueryFailed
from pgops.instance import endpoints
from pgops.server.session import connect

WANTED = {"name": "locks", "metric": "waiting_locks", "operator": ">", "threshold": 5.0, "lasts": "0"}
LASTING = {**WANTED, "name": "lasting", "lasts": "20m"}
SAMPLE = (
    "INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name, collected_at) "
    "VALUES ('waiting_locks', %s, 'shop', now() - make_interval(mins => %s))"
)
MEASURED = """
SELECT sum(v.sample)::int FROM pgops.samples_between('{alerts_firing}', now() - interval '1 hour', now()) AS v
"""
OPTIONS = {"evaluate": False, "history": None, "acknowledge": None, "note": None, "all": False, "prometheus": False}


def evaluate(server: Server, state: Path, **options: Any) -> dict[str, Any]:
    """One run of the job, as it is scheduled."""
    with connect(endpoints.agent(configured(server, state)[0], "alerts")) as session:
        return job.evaluate(session, **options)


def command(server: Server, state: Path, **options: Any) -> dict[str, Any]:
    """The command as people give it."""
    return job.alerts(*configured(server, state), argparse.Namespace(**{**OPTIONS, **options}))


def sampled(server: Server, *values: tuple[float, float]) -> None:
    """Samples, each with the minutes since when it was."""
    with server.connect("pgops") as session:
        for minutes, value in values:
            session.execute(SAMPLE.encode(), [value, minutes])


def last(server: Server, ago: str) -> None:
    """The last evaluation was so long ago."""
    said = "INSERT INTO pgops.alert_evaluation (evaluated_at) VALUES (now() - %s::interval)"
    with server.connect("pgops") as session:
        session.execute(said.encode(), [ago])


def alerts(server: Server, columns: str) -> list[tuple[Any, ...]]:
    with server.connect("pgops") as session:
        return session.execute(f"SELECT {columns} FROM pgops.alert_history ORDER BY started_at".encode()).fetchall()


@pytest.mark.every_major
def test_what_is_collected_is_evaluated_each_minute(deployed: Server, tmp_path: Path) -> None:
    always = {"metric": "connections_used_percent", "threshold": -1.0, "clear_threshold": -2.0}
    rule(deployed, rules=[{**WANTED, **always}])
    assert collect(deployed, tmp_path)["errors"] == []
    first = evaluate(deployed, tmp_path)
    assert (first["minutes"], first["left"], first["errors"]) == (1, 0, [])
    assert first["fired"] >= 1
    evaluate(deployed, tmp_path)
    # Others may be pending: the server is also that of other tests.
    mine = [row for row in alerts(deployed, "rule_name, alert_status, severity_level, node") if row[0] == "locks"]
    assert mine == [("locks", "firing", "warning", "db1/main")]
    assert collect(deployed, tmp_path)["errors"] == []
    firing = [status for (status,) in alerts(deployed, "alert_status") if status == "firing"]
    assert deployed.value(MEASURED, "pgops") == len(firing)


def test_minutes_that_were_missed_are_evaluated_with_their_samples(deployed: Server, tmp_path: Path) -> None:
    rule(deployed, rules=[WANTED])
    last(deployed, "60 minutes")
    sampled(deployed, (45, 9), (40, 9), (35, 0), (20, 0), (5, 0))
    ran = evaluate(deployed, tmp_path)
    assert ran["minutes"] >= 60
    assert (ran["fired"], ran["left"], ran["errors"]) == (1, 0, [])
    ((status, lasted, ago),) = alerts(
        deployed, "alert_status, extract(EPOCH FROM resolved_at - fired_at)::int, now() - fired_at > '44 minutes'"
    )
    assert (status, lasted, ago) == ("resolved", 600, True)


def test_a_run_that_has_no_more_time_leaves_the_rest_to_the_next(deployed: Server, tmp_path: Path) -> None:
    rule(deployed)
    last(deployed, "10 minutes")
    first = evaluate(deployed, tmp_path, budget=0.0)
    assert first["minutes"] == 1
    assert first["left"] >= 9
    second = evaluate(deployed, tmp_path)
    assert second["minutes"] >= first["left"]
    assert second["left"] == 0


def test_more_than_a_day_is_not_made_up_for_and_told(deployed: Server, tmp_path: Path) -> None:
    rule(deployed, rules=[WANTED])
    last(deployed, "30 hours")
    sampled(deployed, (28 * 60, 9))
    first = evaluate(deployed, tmp_path, budget=0.0)
    assert first["minutes"] + first["left"] in (1439, 1440)
    (error,) = first["errors"]
    assert re.fullmatch(r"rules were not evaluated for more than a day; 6\.\d hours of it stay so", error)
    assert evaluate(deployed, tmp_path, budget=0.0)["errors"] == []


def test_a_clock_that_was_ahead_is_not_waited_for(deployed: Server, tmp_path: Path) -> None:
    rule(deployed, rules=[WANTED])
    last(deployed, "-30 minutes")
    sampled(deployed, (0, 9))
    ran = evaluate(deployed, tmp_path)
    assert (ran["minutes"], ran["fired"], ran["errors"]) == (1, 1, [])
    assert (evaluate(deployed, tmp_path)["fired"], len(alerts(deployed, "1"))) == (0, 1)


def test_what_cannot_be_derived_keeps_no_other_rule_from_its_work(deployed: Server, tmp_path: Path) -> None:
    rule(deployed, rules=[WANTED])
    deployed.value("ALTER FUNCTION pgops.slots_unused(timestamptz) RENAME TO slots_gone", "pgops")
    sampled(deployed, (1, 9))
    ran = evaluate(deployed, tmp_path)
    assert ran["fired"] == 1
    (error,) = ran["errors"]
    assert "cannot be derived" in error


def test_a_standby_leaves_it_to_its_primary(deployed: Server, tmp_path: Path) -> None:
    with deployed.standby() as standby:
        assert "primary" in evaluate(standby, tmp_path)["skipped"]


def test_people_see_what_fires(deployed: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(deployed, tmp_path) == {"printed": True, "errors": []}
    assert capsys.readouterr().out.splitlines()[1].startswith("No rule is enabled")
    rule(deployed, rules=[WANTED, LASTING])
    command(deployed, tmp_path)
    assert "never been evaluated" in capsys.readouterr().out
    sampled(deployed, (1, 9))
    evaluate(deployed, tmp_path)
    command(deployed, tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(r"  warning   firing      .*  locks on db1/main \(database shop\)  9 > 5$", line)
    command(deployed, tmp_path, all=True)
    assert "pending" in capsys.readouterr().out
    last_one = line.split()[0]
    command(deployed, tmp_path, history=last_one)
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["warning locks on db1/main (database shop)", "waiting_locks: 9 > 5"]
    assert re.search(r"inactive -> firing  9$", shown[2])


def test_an_alert_is_acknowledged_once_until_it_ends(
    deployed: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule(deployed, rules=[WANTED, LASTING])
    sampled(deployed, (1, 9))
    evaluate(deployed, tmp_path)
    ids = dict(alerts(deployed, "rule_name, alert_id::text"))
    command(deployed, tmp_path, acknowledge=ids["locks"], note="I look at it")
    command(deployed, tmp_path, acknowledge=ids["locks"])
    assert "already" in capsys.readouterr().out
    command(deployed, tmp_path)
    assert "[acknowledged by " in capsys.readouterr().out
    command(deployed, tmp_path, history=ids["locks"])
    assert "I look at it" in capsys.readouterr().out
    with pytest.raises(QueryFailed, match="pending"):
        command(deployed, tmp_path, acknowledge=ids["lasting"])
    for wrong in ("", "5", "6c84fb90-12c4-11e1-840d-7b25c5ee775a"):
        with pytest.raises(InvalidInput):
            command(deployed, tmp_path, history=wrong)
    with pytest.raises(InvalidInput):
        command(deployed, tmp_path, acknowledge="")


def test_operators_acknowledge_in_sql_and_others_cannot(deployed: Server, tmp_path: Path) -> None:
    rule(deployed, rules=[WANTED])
    sampled(deployed, (1, 9))
    evaluate(deployed, tmp_path)
    ((alert,),) = alerts(deployed, "alert_id")
    acknowledge = b"SELECT pgops.acknowledge_alert(%s, 'mine')"
    with deployed.connect("pgops") as session:
        session.execute("SET ROLE pgops_reader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(acknowledge, [alert])
        session.execute("SET ROLE pgops_operator")
        assert session.execute(acknowledge, [alert]).fetchone() == (True,)
        assert session.execute(acknowledge, [alert]).fetchone() == (False,)
    assert alerts(deployed, "acknowledged_by, acknowledgement") == [(deployed.superuser, "mine")]


def test_old_alerts_are_forgotten_with_their_transitions(deployed: Server, tmp_path: Path) -> None:
    rule(deployed, rules=[WANTED, LASTING], retention_days=30)
    sampled(deployed, (1, 9))
    evaluate(deployed, tmp_path)
    forget = "SELECT pgops.forget_alerts()"
    assert deployed.value(forget, "pgops") == 0
    ended = "UPDATE pgops.alert SET ended_at = now() - interval '{}' WHERE rule_name = '{}' RETURNING 1"
    deployed.value(ended.format("29 days", "locks"), "pgops")
    deployed.value(ended.format("8 days", "lasting"), "pgops")
    assert deployed.value(forget, "pgops") == 1  # the one that never fired
    deployed.value(ended.format("31 days", "locks"), "pgops")
    assert deployed.value(forget, "pgops") == 1
    assert deployed.value("SELECT count(*) FROM pgops.alert_transition", "pgops") == 0


def test_facts_tell_what_fires_and_when_it_was_evaluated(deployed: Server, tmp_path: Path) -> None:
    rule(deployed, rules=[WANTED, LASTING])
    sampled(deployed, (1, 9))
    evaluate(deployed, tmp_path)
    with deployed.connect("pgops") as session:
        session.execute("SET ROLE pgops_reader")
        cursor = session.execute(facts.ALERTS.encode())
        found = dict(zip([column.name for column in cursor.description or ()], cursor.fetchone() or ()))
    assert (found["firing_count"], found["pending_count"]) == (1, 1)
    (firing,) = found["firing"]
    assert (firing["rule"], firing["value"], firing["labels"]["database"]) == ("locks", 9, "shop")
    assert set(firing) == set(contract()["instances[].alerts.firing[]"])
    assert {one["source"]: one["rules"] for one in found["rules"]}["inventory"] == 2
    assert found["evaluated_at"] is not None
    assert found["evaluated_age_s"] >= 0
