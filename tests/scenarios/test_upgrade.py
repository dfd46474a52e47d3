# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet that a former state of the collection deployed is upgraded by site.yml: nothing is lost, no job twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import HOSTS, ROOT, Fleet

from playbooks import Run

pytestmark = pytest.mark.slow
FORMER = "ad097354e300437aee2b49a73345009a3b59b464"
"""A commit before the library got rooms, the agent's configuration parts, and roles their own targets."""
BASE = "/srv/shared/wal"
DECLARED = {
    "pgops_repository": BASE,
    "pgops_repository_mount": "/srv/shared",
    "pgops_restart": "if_required",
    "pgops_statements": True,
    "pgops_textfile_directory": "/srv/textfile",
    "pgops_slow_query_ms": 250,
    "pgops_collector_settings": {"disks": {"interval": 120}},
    "pgops_settings": {"work_mem": "8MB"},
}
INSTANCES = {"pg15": "15-main", "pg17": "17-main", "pg17b": "17-main", "pg18": "18-main"}
PRIMARY = {"pg15": "pg15", "pg17": "pg17", "pg17b": "pg17", "pg18": "pg18"}
JOBS = "systemctl list-timers --all --no-legend 'pgops-*' | grep -o 'pgops-[a-z0-9-]*[.]timer' | sort"
MISSING = """
SELECT count(*) FROM generate_series(
    date_trunc('minute', '{since}'::timestamptz) + interval '1 minute',
    date_trunc('minute', '{until}'::timestamptz) - interval '1 minute', '1 minute'
) AS m
WHERE NOT EXISTS (SELECT FROM pgops.system_metrics AS s WHERE s.metric_name = 'active_connections'
                  AND s.node LIKE '{host}/%' AND s.collected_at >= m AND s.collected_at < m + interval '1 minute')
"""


@pytest.fixture(scope="module", name="former")
def _former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The former collection, installed as users had it."""
    if subprocess.run(["git", "cat-file", "-e", f"{FORMER}^{{commit}}"], cwd=ROOT, check=False).returncode:
        pytest.skip(f"commit {FORMER[:8]} is not in this clone: git fetch --unshallow brings it")
    folder = tmp_path_factory.mktemp("former")
    source, built = folder / "source", folder / "built"
    source.mkdir()
    archive = subprocess.run(["git", "archive", FORMER], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    galaxy = str(Path(sys.executable).parent / "ansible-galaxy")
    subprocess.run([galaxy, "collection", "build", "--output-path", str(built)], cwd=source, check=True)
    (artifact,) = built.glob("*.tar.gz")
    # The present one, of the same version, is no reason to leave it out.
    install = [galaxy, "collection", "install", "--offline", "--no-deps", "--force", "-p", str(folder), str(artifact)]
    subprocess.run(install, check=True)
    return folder


@pytest.fixture(scope="module", name="pristine")
def _pristine(fleet: Fleet) -> dict[str, list[str]]:
    fleet.reset()
    fleet.on("pg18", "mkdir", "-p", BASE)
    for host in HOSTS:
        fleet.on(host, "mkdir", "-p", DECLARED["pgops_textfile_directory"])
    return fleet.states()


@pytest.fixture(scope="module", name="since")
def _since(fleet: Fleet, pristine: dict[str, list[str]], former: Path) -> dict[str, str]:
    """When all nodes had samples of the former agent, by the clocks of their primaries."""
    assert pristine
    run = site(fleet, collections=former)
    assert run.code == 0, run.text
    assert site(fleet, collections=former).changes == {}
    for host, primary in PRIMARY.items():
        seen = f"SELECT count(*) > 0 FROM pgops.system_metrics WHERE node LIKE '{host}/%'"
        fleet.wait(f"samples of {host}", lambda primary=primary, seen=seen: fleet.sql(primary, seen) == "t")
    return {primary: fleet.sql(primary, "SELECT now()") for primary in set(PRIMARY.values())}


def site(fleet: Fleet, *arguments: str, collections: Path | None = None) -> Run:
    return fleet.play("pgops.fleet.site", "--diff", "-e", json.dumps(DECLARED), *arguments, collections=collections)


def test_site_upgrades_it_in_one_run(fleet: Fleet, since: dict[str, str]) -> None:
    assert since
    jobs = {host: fleet.on(host, "sh", "-c", JOBS) for host in HOSTS}
    predicted = site(fleet, "--check")
    done = site(fleet)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert site(fleet).changes == {}
    for host in HOSTS:  # all that there were, and those of alerting
        assert set(jobs[host].split()) <= set(fleet.on(host, "sh", "-c", JOBS).split())
    for host, instance in INSTANCES.items():
        kept = json.loads(fleet.on(host, "cat", f"/etc/pgops/{instance}/agent.json"))
        assert kept["parts"]["statements"]["slow_query_ms"] == 250
        assert kept["parts"]["metrics"]["collectors"] == {"disks": {"interval": 120}}


def test_no_minute_is_without_a_sample(fleet: Fleet, since: dict[str, str]) -> None:
    for host, primary in PRIMARY.items():
        # The minute that has just ended may still be on its way from a standby.
        until = fleet.sql(primary, "SELECT now()")
        missing = MISSING.format(since=since[primary], until=until, host=host)
        fleet.wait(f"a sample of {host} for each minute", lambda p=primary, m=missing: fleet.sql(p, m) == "0", 70)


def test_every_job_runs_and_tells_how_long_it_took(fleet: Fleet, since: dict[str, str]) -> None:
    assert since
    for host, instance in INSTANCES.items():
        for job in ("maintain", "queries", "inspect", "catalogue", "export", "alerts", "watch"):
            fleet.on(host, "systemctl", "start", f"pgops-{instance}-{job}.service")
        jobs = (
            "SELECT count(DISTINCT additional_info ->> 'job') FROM pgops.system_metrics "
            f"WHERE metric_name = 'job_errors' AND node LIKE '{host}/%'"
        )
        primary = PRIMARY[host]
        fleet.wait(f"eight jobs of {host}", lambda p=primary, j=jobs: fleet.sql(p, j) == "8")


def test_removal_leaves_the_hosts_as_they_were_before_the_former_state(
    fleet: Fleet, since: dict[str, str], pristine: dict[str, list[str]]
) -> None:
    assert since
    removal = ("-e", json.dumps({**DECLARED, "pgops_purge": True}))
    removed = fleet.play("pgops.fleet.remove", *removal)
    assert removed.code == 0, removed.text
    assert fleet.states() == pristine
