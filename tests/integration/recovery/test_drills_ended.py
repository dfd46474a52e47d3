# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A drill that is killed, has no room or no time, or meets others leaves nothing, and is recorded as what it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import binaries
import disks
import pytest
from archives import Host
from backed import Backed, own
from drilling import Drilling
from waiting import until

from pgops.errors import Busy, HostFailed
from pgops.host import files
from pgops.host.identity import as_user
from pgops.recovery import drill
from pgops.repository import backups, catalogue, drills


@pytest.fixture(name="drilling")
def _drilling(major: int, make: Callable[..., Host]) -> Drilling:
    if major not in binaries.TOOLED:
        pytest.skip("pg_waldump reads the WAL of its own version only")
    made = Drilling(Backed.of(make()))
    made.backed.server.psql("CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) AS n")
    made.backed.take()
    return made


def sleeping(drilling: Drilling) -> int:
    """The process of a drill whose server is being asked something that takes long."""
    asked = {"long": {"database": "postgres", "query": "SELECT pg_sleep(3600) IS NULL"}}
    child = drilling.forked(assertions=asked)
    until(lambda: any(b"pg_sleep" in words or b"SELECT" in words for words in titles(drilling)), "asked")
    return child


def titles(drilling: Drilling) -> list[bytes]:
    """What the processes of drills are called."""
    numbers = [one for one in drilling.left if one.isdigit()]
    return [Path(f"/proc/{one}/cmdline").read_bytes() for one in numbers if Path(f"/proc/{one}/cmdline").exists()]


def last(drilling: Drilling) -> tuple[str, str | None]:
    """Status and reason of the last drill that the ops database knows."""
    row = drilling.rows[-1]
    return row["status"], row["reason"]


def test_a_killed_one_is_swept_and_recorded_by_the_next(drilling: Drilling) -> None:
    child = sleeping(drilling)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert drilling.left != []
    done = drilling.drill()
    assert (done["status"], len(done["warnings"])) == ("passed", 1)
    assert drilling.left == []
    assert [(one.status, one.reason) for one in drilling.noted] == [("failed", "killed"), ("passed", "")]
    assert sorted((row["status"], row["reason"]) for row in drilling.rows) == [("failed", "killed"), ("passed", None)]


def test_one_that_is_told_to_end_removes_all_and_says_so(drilling: Drilling) -> None:
    child = sleeping(drilling)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    assert drilling.left == []
    assert last(drilling) == ("failed", "killed")


def test_its_server_or_its_worker_may_be_killed(drilling: Drilling) -> None:
    child = sleeping(drilling)
    (worker,) = [int(one) for one in Path(f"/proc/{child}/task/{child}/children").read_text().split()]
    os.kill(worker, signal.SIGKILL)
    os.waitpid(child, 0)
    assert drilling.left == []
    assert last(drilling) == ("failed", "killed")
    child = sleeping(drilling)
    (server,) = [int(path.read_text().split()[0]) for path in drilling.place.glob("drill-*/data/postmaster.pid")]
    os.kill(server, signal.SIGKILL)
    os.waitpid(child, 0)
    assert drilling.left == []
    assert last(drilling) == ("failed", "checks")


def test_one_that_takes_too_long_is_given_up(drilling: Drilling) -> None:
    done = drilling.drill(minutes=0.0)
    assert (done["status"], done["reason"], drilling.left) == ("not_run", "time_limit", [])
    assert last(drilling) == ("not_run", "time_limit")


def test_two_at_once_are_one_and_a_backup_comes_first(drilling: Drilling) -> None:
    child = sleeping(drilling)
    with pytest.raises(Busy):
        drilling.drill()
    assert last(drilling) == ("not_run", "busy")
    assert drilling.left != []
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    with backups.alone(str(drilling.backed.place)):
        assert drilling.drill()["reason"] == "busy"
    assert drilling.drill()["status"] == "passed"
    assert [one["status"] for one in drilling.rows] == ["not_run", "failed", "not_run", "passed"]


def test_without_room_it_is_not_made(drilling: Drilling, root: Path) -> None:
    with disks.small(root / "disk", "20m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        own(root / "disk", drilling.backed.server)
        done = drilling.drill(directory=str(root / "disk"))
        assert (done["status"], done["reason"]) == ("not_run", "disk_space")
        assert "MB are free" in done["errors"][0]
        assert not (root / "disk" / "main").exists()


def test_a_disk_that_fills_meanwhile_ends_it(drilling: Drilling, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgops.recovery.restore.check_space", lambda needs: dict.fromkeys(needs, NOTHING))
    with disks.small(root / "disk", "20m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        own(root / "disk", drilling.backed.server)
        done = drilling.drill(directory=str(root / "disk"))
        assert (done["status"], done["reason"]) == ("not_run", "disk_space")
        assert "No space left on device" in done["errors"][0]
        assert not (root / "disk" / "main").exists()
        done = drilling.drill(directory=str(root / "disk"), reserve_mb=1024.0)
        assert (done["status"], done["reason"]) == ("not_run", "disk_space")
        assert not (root / "disk" / "main").exists()


NOTHING = {"needed": 0, "free": 1 << 40}


def test_what_could_not_be_tried_is_no_failure_and_no_proof(drilling: Drilling, root: Path) -> None:
    backed = drilling.backed
    for declared, reason in (
        ({"directory": str(root / "absent")}, "place"),
        ({"directory": str(backed.server.data_dir)}, "place"),
        ({"max_load": 1e-9}, "load"),
    ):
        done = drilling.drill(**declared)
        assert (done["status"], done["reason"]) == ("not_run", reason), done
    backed.host.repository.rename(root / "away")
    assert drilling.drill()["reason"] == "repository"
    (root / "away").rename(backed.host.repository)
    backed.server.stop()
    done = drilling.drill()
    assert (done["status"], done["reason"], len(done["warnings"])) == ("not_run", "server", 1)
    backed.server.start()
    assert len(drilling.rows) == 4
    catalogue.update(drilling.configuration(), keeping=backed.layout.keeping)
    assert [row["reason"] for row in drilling.rows] == [one.reason for one in drilling.noted]
    assert len(drilling.rows) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_makes_none(drilling: Drilling) -> None:
    with pytest.raises(HostFailed, match="never runs as root"):
        drill.drill(drilling.configuration(), drilling.backed.layout)
    assert (drilling.noted, drilling.left) == ((), [])


def test_on_schedule_it_is_made_when_it_is_due_and_where_it_is_declared(drilling: Drilling) -> None:
    assert "db2/main has drills" in drilling.drill(node="db2/main")["skipped"]
    assert drilling.rows == []
    assert drilling.drill(scheduled=True)["status"] == "passed"
    assert "not due" in drilling.drill(scheduled=True)["skipped"]
    assert drilling.drill()["status"] == "passed"


def test_drills_of_other_nodes_are_found_in_the_repository(drilling: Drilling) -> None:
    backed = drilling.backed
    (own_drill,) = [drilling.drill()] and drilling.noted
    other = replace(own_drill, id="00000000-0000-4000-8000-000000000001", node="db2/main", host="db2")
    as_user(backed.user, lambda: drills.add(str(backed.place.parent), [other]))
    for _time in range(2):
        catalogue.update(drilling.configuration())
        assert sorted(row["node"] for row in drilling.rows) == ["db1/main", "db2/main"]


def test_a_note_that_cannot_be_read_says_nothing(drilling: Drilling) -> None:
    note = Path(drilling.backed.layout.keeping) / drills.NOTE
    for text in ("", "{", "[]", '{"format": 1, "running": null, "over": [{"id": 1}]}', '{"format": 2}'):
        note.write_text(text)
        assert drills.read(str(note.parent)) == drills.Drills()
    assert drilling.drill()["status"] == "passed"
    with files.exclusive(f"{note.parent}/{drill.LOCK}", 0):
        pass
