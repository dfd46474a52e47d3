# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue says what is in the repository, since when WAL is there without a gap, and what is at risk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import binaries
import pytest
from archives import Host, digest
from deploying import configured, deploy, target
from facts_contract import differences
from servers import Server
from waiting import until

from pgops import cli
from pgops.errors import Conflict, HostFailed
from pgops.facts import gathering
from pgops.repository import archiver, catalogue

STATUS = "SELECT wal_filename, archive_path, file_size, checksum, status FROM pgops.wal_archive_status ORDER BY 1"


class Catalogue:
    """A server that archives, and the job that keeps its catalogue."""

    def __init__(self, host: Host, **settings: Any) -> None:
        self.host = host
        place = {"repository": str(host.repository), "superuser": host.server.superuser, **settings}
        self.configuration, self.layout = configured(host.server, host.prefix / "agent", **place)

    def update(self, **options: Any) -> dict[str, Any]:
        done = catalogue.update(self.configuration, **options)
        assert done["errors"] == []
        return done

    def update_without(self, *names: str) -> dict[str, Any]:
        """An update that finds segments gone, and says so."""
        done = catalogue.update(self.configuration)
        (error,) = done["errors"]
        assert "were not removed by pgops.fleet" in error
        assert all(name in error for name in names)
        return done

    def rows(self) -> dict[str, dict[str, Any]]:
        with self.host.server.connect("pgops") as connection:
            cursor = connection.execute(STATUS)
            names = [column.name for column in cursor.description or ()]
            return {row[0]: dict(zip(names, row)) for row in cursor.fetchall()}

    def facts(self) -> dict[str, Any]:
        params = {
            "gather_subset": ["archiving"],
            "database": "pgops",
            "database_sizes": False,
            "prefix": "/absent",
            "max_bytes": 0,
        }
        gathered = gathering.gather(target(self.host.server, statement_timeout=5.0), params)["ansible_facts"][
            "pg_ops"
        ]
        assert differences(gathered) == []
        section: dict[str, Any] = gathered["instances"][0]["archiving"]
        assert section["error"] is None
        return section

    def generation(self) -> str:
        """The generation of the server in the repository."""
        (found,) = self.host.repository.glob("*/generation.json")
        return found.parent.name

    def archive(self, count: int = 1) -> list[str]:
        """Have segments archived; their names."""
        names = [self.host.switch() for _segment in range(count)]
        self.host.wait_for(names[-1])
        # Those behind it may still be on their way, and each is there before the program has ended.
        ready = "SELECT count(*) FROM pg_ls_archive_statusdir() AS f WHERE f.name LIKE '%.ready'"
        until(lambda: self.host.server.value(ready), "archived", 0)
        return names

    def age(self) -> None:
        """Have all directories as old as they are in a repository where nothing happened lately."""
        for folder, _folders, _files in os.walk(self.host.repository):
            os.utime(folder, (time.time() - 3600, time.time() - 3600))


@pytest.fixture(name="kept")
def _kept(make: Callable[..., Host]) -> Catalogue:
    # Segments are small: autovacuum alone would fill one now and then.
    host = make(initdb=("--wal-segsize=1",), settings={"autovacuum": "off"})
    deploy(host.server)
    host.apply()
    return Catalogue(host)


def test_the_catalogue_is_what_is_in_the_repository(kept: Catalogue) -> None:
    names = kept.archive(3)
    done = kept.update()
    assert (done["complete"], done["noted"] >= 3) == (True, True)
    stored = kept.host.archived()
    rows = kept.rows()
    assert set(rows) == {name for name in stored if not name.endswith(".json")}
    for name in names:
        row = rows[name]
        assert (row["status"], row["archive_path"]) == ("archived", str(stored[name]))
        assert (row["checksum"], row["file_size"]) == (digest(stored[name]), stored[name].stat().st_size)
    lsn = kept.host.server.value(
        f"SELECT pg_walfile_name(wal_lsn + 1) FROM pgops.wal_archive_status WHERE wal_filename = '{names[0]}'",
        "pgops",
    )
    assert lsn == names[0]
    again = kept.update()
    assert (again["noted"], again["expired"]) == (0, 0)


def test_facts_say_what_is_safe_and_what_is_at_risk(kept: Catalogue) -> None:
    assert kept.facts()["generation"] is None
    kept.archive(2)
    kept.update()
    found = kept.facts()
    assert (found["repository"], found["segment_bytes"], found["gaps"]) == (str(kept.host.repository), 1 << 20, [])
    oldest = min(path.stat().st_mtime for name, path in kept.host.archived().items() if len(name) == 24)
    since = kept.host.server.value(f"SELECT extract(epoch FROM '{found['continuous_since']}'::timestamptz)")
    assert abs(float(since) - oldest) < 1
    assert found["segments"] == sum(len(name) == 24 for name in kept.host.archived())
    # A segment begins where the last archived one ended.
    assert found["lost_bytes"] < 1 << 20
    kept.host.server.value("CREATE TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 300)")
    more = kept.facts()["lost_bytes"]
    assert more >= found["lost_bytes"] + 300_000
    # What was archived since counts at once.
    kept.archive()
    assert kept.facts()["lost_bytes"] < more


def test_a_file_that_is_gone_leaves_a_gap(kept: Catalogue) -> None:
    names = kept.archive(5)
    kept.update()
    before = kept.facts()["continuous_since"]
    kept.host.archived()[names[2]].unlink()
    assert kept.update_without(names[2])["expired"] == 1
    found = kept.facts()
    assert [(gap["first_wal"], gap["last_wal"], gap["segments"]) for gap in found["gaps"]] == [
        (names[2], names[2], 1)
    ]
    assert found["continuous_since"] > before
    assert kept.rows()[names[2]]["status"] == "expired"
    # It is put back from somewhere.
    source = kept.host.server.data_dir / "pg_wal" / names[2]
    shutil.copy(source, kept.host.archived()[names[1]].parent / names[2])
    kept.update()
    assert (kept.facts()["gaps"], kept.facts()["continuous_since"]) == ([], before)


def test_a_torn_file_is_not_relied_on(kept: Catalogue) -> None:
    names = kept.archive(3)
    torn = kept.host.archived()[names[1]]
    content = torn.read_bytes()
    torn.write_bytes(content[:5000])
    kept.update()
    found = kept.facts()
    assert (found["failed"], [gap["first_wal"] for gap in found["gaps"]]) == ([names[1]], [names[1]])
    kept.age()
    kept.update()
    torn.write_bytes(content)
    kept.update()
    assert (kept.facts()["failed"], kept.facts()["gaps"]) == ([], [])


def test_only_what_was_changed_is_looked_at(kept: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.archive(3)
    kept.age()
    kept.update()
    looked: list[str] = []
    listing = catalogue.listing
    monkeypatch.setattr(catalogue, "listing", lambda wal, name: (looked.append(name), listing(wal, name))[1])
    kept.update()
    assert looked == []
    name = kept.archive()[0]
    kept.update()
    assert looked == [name[:16]]
    looked.clear()
    # It was changed a moment ago: another change in the same moment would not show.
    kept.update()
    assert looked == [name[:16]]
    assert kept.update(rebuild=True)["noted"] == len(kept.rows())


def test_a_run_that_is_cut_short_is_carried_on(kept: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.archive(6)
    monkeypatch.setattr(catalogue, "BATCH", 2)

    def cut() -> bool:
        """Whether an update was cut short, after two steps of its clock."""
        ticks = iter([0.0, 1.0, 3.0])
        with monkeypatch.context() as patched:
            clock = SimpleNamespace(monotonic=lambda: next(ticks, 9.0), time_ns=time.time_ns)
            patched.setattr(catalogue, "time", clock)
            done = kept.update(budget=2)
        return not done["complete"]

    for _time in range(2):
        assert cut()
        assert kept.facts()["continuous_since"] is None
    until(cut, "complete", False)
    assert kept.facts()["gaps"] == []
    assert {row["status"] for row in kept.rows().values()} == {"archived"}


def test_what_cannot_be_archived_is_named(kept: Catalogue) -> None:
    kept.archive()
    away = kept.host.repository.with_name("away")
    stored = kept.host.repository / kept.generation() / "wal"
    stored.rename(away)
    stored.write_text("in the way")
    name = kept.host.switch()
    failed = f"SELECT last_failed_wal = '{name}' FROM pg_stat_archiver"
    until(lambda: kept.host.server.value(failed), "failed")
    with kept.host.server.stopped("archiver"):  # which tries again every second
        assert kept.host.server.value(failed) is True
        stored.unlink()
        away.rename(stored)
        kept.update()
        assert kept.facts()["failed"] == [name]
    kept.host.wait_for(name)
    kept.update()
    assert kept.facts()["failed"] == []


def test_an_unmounted_repository_is_an_error_and_no_loss(kept: Catalogue) -> None:
    kept.archive(2)
    kept.update()
    before = kept.rows()
    away = kept.host.repository.with_name("away")
    kept.host.repository.rename(away)
    with pytest.raises(HostFailed, match="Is it mounted"):
        catalogue.update(kept.configuration)
    assert kept.rows() == before
    away.rename(kept.host.repository)
    kept.update()
    assert set(before) <= set(kept.rows())


def test_nothing_is_there_before_archiving_is(make: Callable[..., Host]) -> None:
    host = make()
    deploy(host.server)
    assert "yet" in Catalogue(host).update()["skipped"]
    host.apply(restart="never")
    assert Catalogue(host).update()["noted"] == 0
    assert Catalogue(host).facts()["continuous_since"] is None


def test_the_catalogue_follows_a_promotion(make: Callable[..., Host], keep: Callable[[Server], Server]) -> None:
    host = make(initdb=("--wal-segsize=1",))
    deploy(host.server)
    host.apply(compression="gzip")
    first = Catalogue(host)
    standby = keep(host.server.standby()).start()
    other = Host(standby, host.base, host.prefix, {"instance": "standby"})
    second = Catalogue(other, superuser="postgres")
    other.apply(compression="gzip")
    assert "standby" in second.update()["skipped"]
    names = [host.switch() for _segment in range(3)]
    until(lambda: any(name.startswith(names[-1]) for name in host.archived()), "archived")
    first.update()
    since = first.facts()["continuous_since"]
    # The catalogue does not wait for the disk.
    last = str(host.server.value("SELECT pg_current_wal_insert_lsn()"))
    until(lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{last}'"), "replayed")
    assert second.facts()["lost_bytes"] is None
    away = host.repository.rename(host.base / "away")
    with pytest.raises(HostFailed, match="after a failover it could not archive"):
        second.update()
    away.rename(host.repository)
    host.server.stop()
    until(lambda: any(name.startswith("0000000100000000000000") for name in host.archived()), "archived")
    standby.promote()
    assert other.apply(compression="gzip")["proven"]
    second.update()
    found = second.facts()
    assert (found["gaps"], found["continuous_since"]) == ([], since)
    name = other.switch()
    until(lambda: f"{name}.gz" in other.archived(), "archived")
    second.update()
    assert {name, "00000002.history"} <= set(second.rows())
    assert (second.facts()["gaps"], second.facts()["continuous_since"]) == ([], since)


def test_generations_of_the_past_stay_until_they_are_gone(kept: Catalogue) -> None:
    kept.archive()
    kept.update()
    mine = kept.generation()
    past = kept.host.repository / "7000000000000000001-14"
    shutil.copytree(kept.host.repository / mine, past)
    identity = (past / "generation.json").read_text().replace(mine.partition("-")[0], "7000000000000000001")
    (past / "generation.json").write_text(identity)
    count = len(kept.rows())
    assert kept.update()["noted"] >= count
    select = "SELECT count(*) FROM pgops.wal_archive_status WHERE status = 'archived' AND generation <> '{}'"
    assert kept.host.server.value(select.format(mine), "pgops") == count
    shutil.rmtree(past)
    assert kept.update_without()["expired"] == count
    assert kept.facts()["gaps"] == []
    assert kept.host.server.value(select.format(mine), "pgops") == 0


def test_pg_upgrade_opens_a_generation_and_the_old_one_stays(root: Path, new_server: Callable[..., Server]) -> None:
    older = Path("/usr/lib/postgresql/15/bin")
    if not (older / "pg_controldata").exists():
        pytest.skip("pg_upgrade needs all programs of the older version: the package postgresql-15 has them")
    host = Host(new_server(15).start(), root / "base", root / "prefix")
    deploy(host.server)
    host.apply()
    before = Catalogue(host)
    (name,) = before.archive()
    before.update()
    past, stored = before.generation(), {path: digest(path) for path in host.archived().values()}
    host.server.stop()
    major = max(set(binaries.TOOLED) & set(binaries.MAJORS))
    server = new_server(major, initdb=("--no-data-checksums",))
    newer = server.client_dir
    places = ("-b", older, "-B", newer, "-d", host.server.data_dir, "-D", server.data_dir, "-s", server.directory)
    server.run(newer / "pg_upgrade", *places, "-U", server.superuser, "--no-sync")
    upgraded = Host(server.start(), root / "base", root / "prefix")
    assert deploy(server)["changed"]
    assert upgraded.apply()["proven"]
    after = Catalogue(upgraded)
    after.update()
    found = after.facts()
    assert (found["generation"].endswith(f"-{major}"), found["gaps"]) == (True, [])
    assert {path: digest(path) for path in stored} == stored
    select = f"SELECT status FROM pgops.wal_archive_status WHERE wal_filename = '{name}' AND generation = '{past}'"
    assert server.value(select, "pgops") == "archived"
    back = root / "back"
    assert archiver.main(["fetch", str(host.repository), past, name, str(back)]) == 0
    assert digest(back) == stored[host.archived()[name]]


def test_a_database_of_somebody_else_is_left_alone(make: Callable[..., Host]) -> None:
    host = make()
    host.server.value("CREATE DATABASE pgops")
    with pytest.raises(Conflict, match="was not created by"):
        catalogue.update(Catalogue(host).configuration)


def test_the_command(kept: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    layout = kept.layout
    Path(layout.configuration).mkdir(parents=True)
    Path(layout.agent_file).write_text(kept.configuration.text())
    Path(layout.keeping).mkdir(parents=True)
    arguments = ["--prefix", layout.prefix, "--instance", "main", "catalogue", "--rebuild"]
    assert cli.main(arguments) == 0
    assert '"complete": true' in capsys.readouterr().out
    assert (Path(layout.keeping) / "agent.log").exists()
    Path(layout.agent_file).write_text(configured(kept.host.server, kept.host.prefix / "agent")[0].text())
    assert cli.main(arguments) == 1
    assert "no repository" in capsys.readouterr().out
