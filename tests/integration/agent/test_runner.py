# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every job is measured: how long it took, its errors, and since when it has not been without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from deploying import configured
from disks import fill
from servers import Server

from pgops import cli
from pgops.agent import runner
from pgops.capabilities import JOBS
from pgops.host.files import exclusive

MEASURED = """
SELECT additional_info ->> 'job' AS job, metric_name, metric_value FROM pgops.system_metrics
WHERE metric_name LIKE 'job\\_%' AND collected_at = (
    SELECT max(s.collected_at) FROM pgops.system_metrics AS s WHERE s.metric_name = 'job_errors')
"""


class Agent:
    """The agent of a server, with a configuration on the host."""

    def __init__(self, server: Server, prefix: Path) -> None:
        self.server = server
        settings, self.layout = configured(server, prefix, superuser=server.superuser)
        for folder in (self.layout.configuration, self.layout.keeping, self.layout.inspection):
            Path(folder).mkdir(parents=True, exist_ok=True)
        Path(self.layout.agent_file).write_text(settings.text())
        self.arguments = ["--prefix", str(prefix), "--instance", "main", "--scheduled"]

    def run(self, *job: str) -> int:
        return cli.main([*self.arguments, *job])

    def measured(self) -> dict[str, dict[str, float]]:
        """What the newest collection says of each job."""
        with self.server.connect("pgops") as session:
            found: dict[str, dict[str, float]] = {}
            for job, metric, value in session.execute(MEASURED):
                found.setdefault(job, {})[metric] = float(value)
            return found


@pytest.fixture(name="agent")
def _agent(deployed: Server, tmp_path: Path) -> Agent:
    return Agent(deployed, tmp_path)


def test_the_runs_of_all_jobs_are_metrics(agent: Agent) -> None:
    assert [agent.run(job) for job in ("collect", "maintain", "inspect")] == [runner.DONE] * 3
    for file in Path(agent.layout.state).glob("collect.json"):
        file.unlink()  # due again
    assert agent.run("collect") == runner.DONE
    found = agent.measured()
    assert set(found) == {"collect", "maintain", "inspect"}
    for values in found.values():
        assert set(values) == {"job_duration_ms", "job_errors", "job_age_seconds"}
        assert values["job_errors"] == 0


def test_a_failing_job_counts_its_errors_and_goes_on_ageing(agent: Agent, capsys: Any) -> None:
    assert agent.run("maintain") == runner.DONE
    agent.server.value("ALTER FUNCTION pgops.maintain_partitions(integer) RENAME TO away", "pgops")
    assert agent.run("maintain") == runner.FAILED
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["job"], said["ok"], said["instance"]) == ("maintain", False, "main")
    record = Path(agent.layout.state) / "job.maintain.json"
    kept = json.loads(record.read_text())
    record.write_text(json.dumps({**kept, "sound": kept["sound"] - 3600}))
    assert agent.run("maintain") == runner.FAILED
    assert agent.run("collect") == runner.DONE
    values = agent.measured()["maintain"]
    assert values["job_errors"] == 1
    assert values["job_age_seconds"] >= 3600
    agent.server.value("ALTER FUNCTION pgops.away(integer) RENAME TO maintain_partitions", "pgops")
    assert agent.run("maintain") == runner.DONE
    assert json.loads(record.read_text())["errors"] == 0


def test_a_job_that_still_runs_is_not_run_a_second_time_and_keeps_its_record(agent: Agent) -> None:
    assert agent.run("maintain") == runner.DONE
    record = Path(agent.layout.state) / "job.maintain.json"
    before = record.read_text()
    with exclusive(f"{agent.layout.state}/maintain.lock", seconds=0):
        assert agent.run("maintain") == runner.BUSY
    assert record.read_text() == before


def test_what_a_person_runs_is_no_run_of_the_schedule(agent: Agent) -> None:
    assert agent.run("maintain") == runner.DONE
    record = Path(agent.layout.state) / "job.maintain.json"
    before = record.read_text()
    agent.server.value("ALTER FUNCTION pgops.maintain_partitions(integer) RENAME TO away", "pgops")
    assert cli.main([*agent.arguments[:-1], "maintain"]) == runner.FAILED
    assert record.read_text() == before


def test_a_full_disk_costs_the_record_and_not_the_job(deployed: Server, small_disk: Path, capsys: Any) -> None:
    agent = Agent(deployed, small_disk)
    assert agent.run("maintain") == runner.DONE
    before = (Path(agent.layout.state) / "job.maintain.json").read_text()
    fill(small_disk)
    assert agent.run("maintain") == runner.DONE
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["ok"], "No space left on device" in said["unrecorded"]) == (True, True)
    assert (Path(agent.layout.state) / "job.maintain.json").read_text() == before


@pytest.mark.parametrize("job", JOBS)
def test_a_job_takes_its_own_flags_only(agent: Agent, job: str, capsys: Any) -> None:
    for other in JOBS.values():
        for flag in other.flags:
            if flag not in JOBS[job].flags:
                with pytest.raises(SystemExit) as ended:
                    agent.run(job, flag.name)
                assert ended.value.code == runner.USAGE
    capsys.readouterr()


def test_of_several_instances_one_is_to_be_named(agent: Agent, capsys: Any) -> None:
    os.mkdir(f"{agent.layout.configurations}/other")
    assert cli.main(["--prefix", agent.layout.prefix, "maintain"]) == runner.USAGE
    assert "main, other" in capsys.readouterr().err


def test_help_says_what_exit_codes_mean(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{code}: {meaning}" in said for code, meaning in runner.EXITS.items())
    assert all(job in said for job in JOBS)
