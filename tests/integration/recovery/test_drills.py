# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A drill passes with a good backup, says what is wrong with a bad one, and leaves production alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import binaries
import pytest
from archives import Host
from backed import Backed, flip, own, put_back
from drilling import Drilling

from pgops.repository import wal


@pytest.fixture(name="drilling")
def _drilling(major: int, make: Callable[..., Host]) -> Drilling:
    if major not in binaries.TOOLED:
        pytest.skip("pg_waldump reads the WAL of its own version only")
    made = Drilling(Backed.of(make()))
    made.backed.server.psql("CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) AS n")
    made.backed.take()
    return made


def test_a_good_backup_passes(drilling: Drilling) -> None:
    server, host = drilling.backed.server, drilling.backed.host
    server.psql("INSERT INTO item VALUES (0, 'after the backup')")
    host.wait_for(host.switch())
    assertions = {
        "all items are there": {"database": "postgres", "query": "SELECT count(*) = 3001 FROM public.item"},
        "not as a superuser": {
            "database": "postgres",
            "query": "SELECT NOT rolsuper FROM pg_roles WHERE rolname = session_user",
        },
    }
    done = drilling.drill(amcheck=True, assertions=assertions)
    assert (done["status"], done["errors"], done["warnings"]) == ("passed", [], [])
    assert [(one["name"], one["passed"]) for one in done["checks"] if one["name"] != "amcheck"] == [
        ("files", True),
        ("databases", True),
        ("assertion all items are there", True),
        ("assertion not as a superuser", True),
    ]
    assert {"plan", "copy", "verify", "configure", "sync", "recover", "query", "checks"} <= set(done["phases"])
    assert 0 < done["rto_seconds"] < sum(done["phases"].values())
    assert drilling.left == []
    (row,) = drilling.rows
    assert (row["status"], row["backup_name"], row["drill_id"]) == ("passed", done["backup"], done["drill"])
    assert row["rto_seconds"] == pytest.approx(done["rto_seconds"])
    assert [one.id for one in drilling.noted] == [done["drill"]]


def test_it_says_what_would_be_lost(drilling: Drilling) -> None:
    server = drilling.backed.server
    drilling.backed.host.wait_for(drilling.backed.host.switch())
    server.psql("INSERT INTO item VALUES (0, 'not archived')")
    before = server.age()
    done = drilling.drill(assertions={"lost": {"database": "postgres", "query": "SELECT count(*) = 3000 FROM item"}})
    assert done["errors"] == []
    (row,) = drilling.rows
    assert row["rpo_bytes"] > 0
    assert 0 < row["rpo_seconds"] < server.age()
    assert before > 0


def test_an_assertion_that_is_not_true_fails_it(drilling: Drilling) -> None:
    assertions = {
        "false": {"database": "postgres", "query": "SELECT count(*) < 3 FROM item"},
        "an error": {"database": "postgres", "query": "SELECT count(*) FROM absent"},
        "no answer": {"database": "postgres", "query": "SELECT true WHERE false"},
        "not a truth": {"database": "postgres", "query": "SELECT 1"},
        "two at once": {"database": "postgres", "query": "SELECT true; SELECT true"},
        "nowhere": {"database": "absent", "query": "SELECT true"},
    }
    done = drilling.drill(assertions=assertions)
    assert (done["status"], done["reason"]) == ("failed", "checks")
    wrong = [one["name"] for one in done["checks"] if not one["passed"]]
    assert wrong == [f"assertion {name}" for name in assertions]
    assert "false: the answer was False, and not true" in done["errors"][0]
    assert drilling.left == []


def test_production_is_untouched(drilling: Drilling, root: Path) -> None:
    """Its files with their inodes, but those of the ops database, which is told; its slots and tablespaces; and the
    backups in the repository."""
    server = drilling.backed.server
    space = root / "space"
    space.mkdir()
    own(space, server)
    server.psql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.psql(
        "CREATE TABLE hot TABLESPACE fast AS SELECT * FROM item; SELECT pg_create_physical_replication_slot('s')"
    )
    for setting in ("autovacuum = off", "primary_slot_name = 's'", "primary_conninfo = 'host=127.0.0.1'"):
        server.psql(f"ALTER SYSTEM SET {setting}")
    server.psql("SELECT pg_reload_conf()")
    drilling.backed.take()
    drilling.backed.host.wait_for(drilling.backed.host.switch())
    server.psql("CHECKPOINT")
    before = {**fingerprints(server.data_dir), **fingerprints(space), **stored(drilling)}
    slots = "SELECT array_agg((slot_name, active, restart_lsn)::text) FROM pg_replication_slots"
    started = "SELECT pg_postmaster_start_time()::text"
    known = server.value(slots), server.value(started)
    done = drilling.drill(
        assertions={"the tablespace": {"database": "postgres", "query": "SELECT count(*) = 3000 FROM hot"}}
    )
    assert (done["status"], done["errors"]) == ("passed", [])
    assert (server.value(slots), server.value(started)) == known
    after = {**fingerprints(server.data_dir), **fingerprints(space), **stored(drilling)}
    told = f"{server.data_dir}/base/{server.value('SELECT oid FROM pg_database WHERE datname = $$pgops$$')}/"
    changed = {path for path in {**before, **after} if before.get(path) != after.get(path)}
    assert {path for path in changed if not path.startswith(told)} == set()


def fingerprints(folder: Path) -> dict[str, tuple[int, str]]:
    """Inode and content of all files that a server does not write by itself while nothing happens."""
    busy = ("pg_wal", "pg_stat_tmp", "pg_logical", "pg_subtrans", "log")
    there = [one for one in folder.rglob("*") if one.is_file() and one.relative_to(folder).parts[0] not in busy]
    return {str(one): (one.stat().st_ino, hashlib.sha256(one.read_bytes()).hexdigest()) for one in there}


def stored(drilling: Drilling) -> dict[str, tuple[int, str]]:
    """The same of the backups in the repository."""
    return fingerprints(drilling.backed.place)


def missing(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def another_label(path: Path) -> None:
    text = path.read_text()
    path.write_text(re.sub(r"(START WAL LOCATION: )\S+", r"\g<1>0/1000028", text))


def flip_header(path: Path) -> None:
    flip(path, 3)


def test_each_defect_is_caught_and_named(drilling: Drilling, root: Path) -> None:
    """Each is put back, and what was good passes again."""
    backed, server = drilling.backed, drilling.backed.server
    space = root / "space"
    space.mkdir()
    own(space, server)
    server.psql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.psql("CREATE TABLE hot TABLESPACE fast AS SELECT * FROM item")
    taken = backed.take()
    backed.host.wait_for(backed.host.switch())
    after = backed.host.switch()
    backed.host.wait_for(after)
    path = backed.path(taken)
    relation = path / "data" / str(server.value("SELECT pg_relation_filepath('item')"))
    (hot,) = [one for one in path.glob("tablespaces/*/*/*/*") if one.stat().st_size == relation.stat().st_size]
    made = backed.kept(taken).manifest
    first, size = backed.host.archived(), made.segment_bytes
    own_segment = first[wal.name(made.timeline, made.start_lsn // size, size)]
    defects: list[tuple[Path, Callable[[Path], None], str]] = [
        (relation, flip, relation.name),
        (relation, missing, relation.name),
        (hot, missing, hot.name),
        (path / "data" / "backup_manifest", cut, "backup_manifest is damaged"),
        (path / "data" / "backup_label", another_label, "backup_label"),
        (path / "data" / "backup_label", missing, "backup_label"),
        (path / "data" / "PG_VERSION", emptied, "PG_VERSION"),
        (path / "data" / "global" / "pg_control", cut, "pg_control"),
        (path / "manifest.json", cut, taken["name"]),
        (own_segment, missing, own_segment.name),
        (own_segment, cut, own_segment.name),
        (first[after], flip_header, after),
    ]
    for place, hurt, named in defects:
        with put_back(place):
            hurt(place)
            done = drilling.drill()
            assert done["status"] == "failed"
            assert named in done["errors"][0], (place, hurt)
            assert drilling.left == []
    assert drilling.drill()["errors"] == []
    assert [row["status"] for row in drilling.rows] == ["failed"] * len(defects) + ["passed"]


def test_a_segment_that_is_missing_in_the_middle_fails_it(drilling: Drilling) -> None:
    host = drilling.backed.host
    names = [host.switch() for _number in range(2)]
    for name in names:
        host.wait_for(name)
    with put_back(host.archived()[names[0]]) as segment:
        segment.unlink()
        done = drilling.drill()
    assert (done["status"], done["reason"]) == ("failed", "plan")
    assert names[0] in done["errors"][0]


def test_an_older_backup_does_not_hide_that_the_newest_is_damaged(drilling: Drilling) -> None:
    backed = drilling.backed
    older = backed.listing.backups[-1]
    taken = backed.take()
    flip(backed.path(taken) / "data" / "global" / "pg_filenode.map")
    assert backed.verify()["errors"] != []
    done = drilling.drill()
    assert (done["status"], done["reason"]) == ("failed", "plan")
    assert drilling.drill(backup=older.name)["status"] == "passed"
    assert drilling.drill(backup="absent")["status"] == "failed"


def test_a_chain_is_combined(drilling: Drilling) -> None:
    server = drilling.backed.server
    if server.major < 17:
        pytest.skip("incremental backups begin with 17")
    server.psql("ALTER SYSTEM SET summarize_wal = on")
    server.psql("SELECT pg_reload_conf()")
    drilling.backed.take("full")
    server.psql("DELETE FROM item WHERE n > 10")
    taken = drilling.backed.take("incremental", incremental=True, unsafe_incremental=True)
    drilling.backed.host.wait_for(drilling.backed.host.switch())
    done = drilling.drill(assertions={"few": {"database": "postgres", "query": "SELECT count(*) = 10 FROM item"}})
    assert (done["status"], done["backup"]) == ("passed", taken["name"])
    assert "combine" in done["phases"]
    full = drilling.backed.listing.backups[-2]
    (drilling.backed.place / full.name / "manifest.json").unlink()
    assert drilling.drill()["status"] == "failed"


def test_what_was_wrong_before_the_backup_is_found_by_amcheck(major: int, make: Callable[..., Host]) -> None:
    """The backup is a good one, by its checksums, of a table whose index lacks a row."""
    if major not in binaries.TOOLED:
        pytest.skip("pg_waldump reads the WAL of its own version only")
    made = Drilling(Backed.of(make(initdb=("--no-data-checksums",) if major >= 18 else ())))
    server = made.backed.server
    if not server.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'"):
        pytest.skip("the extension amcheck is not there")
    server.psql("CREATE TABLE item AS SELECT n FROM generate_series(1, 3000) AS n")
    server.psql("CREATE INDEX item_n ON item (n); CHECKPOINT")
    index = server.data_dir / str(server.value("SELECT pg_relation_filepath('item_n')"))
    server.stop()
    content = bytearray(index.read_bytes())
    # The keys of a leaf are at its end: the last bytes of them, in another order.
    content[2 * 8192 - 16 - 8 : 2 * 8192 - 16] = content[8192 + 4096 : 8192 + 4104]
    index.write_bytes(bytes(content))
    server.start()
    made.backed.take()
    made.backed.host.wait_for(made.backed.host.switch())
    assert made.drill()["status"] == "passed"
    done = made.drill(amcheck=True)
    assert (done["status"], done["reason"]) == ("failed", "checks")
    assert "amcheck: it found corruption: " in done["errors"][0]
    assert "item_n" in done["errors"][0]
