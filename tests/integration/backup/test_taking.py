# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups are taken of real servers, and are whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import Host
from backed import Backed, flip, own
from waiting import until

from pgops.errors import Busy, Conflict, HostFailed, InvalidInput
from pgops.repository import backups, segments
from pgops.repository.segments import Stretch

DEBIAN = "/usr/lib/postgresql/15/bin"
TABLE = "CREATE TABLE item AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 1000) AS n"
SUM = "SELECT count(*) || ' ' || md5(string_agg(name, '' ORDER BY id)) FROM item"


@pytest.mark.every_major
def test_a_backup_is_whole_with_its_wal_and_starts(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    backed.server.psql(TABLE)
    before = backed.server.value(SUM)
    taken = backed.take()
    assert (taken["kind"], taken["errors"], taken["warnings"]) == ("full", [], [])
    made = backed.kept(taken).manifest
    assert (made.layout, made.compression, made.parent, made.from_standby) == ("plain", "none", "", False)
    assert (made.id, made.major, made.cluster, made.node) == (
        taken["backup"],
        backed.server.major,
        "shop",
        "db1/main",
    )
    assert made.stored_bytes > made.data_bytes > 10_000_000
    assert made.start_lsn < made.stop_lsn
    where = (str(backed.host.repository), backed.place.parent.name, made.timeline)
    assert segments.absent(Stretch(*where, made.start_lsn, made.stop_lsn, made.segment_bytes)) == []
    assert (made.completed_at - made.started_at).total_seconds() > 0
    assert backed.listing.unfinished == ()
    with backed.restored(taken) as server:
        assert server.value(SUM) == before


@pytest.mark.every_major
@pytest.mark.parametrize("compression", ["gzip"])
def test_a_compressed_backup_is_smaller_and_verified(make: Callable[..., Host], compression: str) -> None:
    backed = Backed.of(make(), compression=compression)
    taken = backed.take()
    made = backed.kept(taken).manifest
    assert (made.layout, made.compression) == ("tar", compression)
    assert made.stored_bytes < made.data_bytes / 2
    found = backed.verify()
    assert (found["verified"], found["errors"]) == (1, [])


@pytest.mark.every_major(until=15)
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_other_compressions_are_verified_where_the_programs_have_them(
    make: Callable[..., Host], compression: str
) -> None:
    if not os.access(f"{DEBIAN}/pg_basebackup", os.X_OK):
        pytest.skip(f"{DEBIAN} has no pg_basebackup: those of the tests have neither lz4 nor zstd")
    backed = Backed.of(make(), compression=compression, bin_directory=DEBIAN)
    taken = backed.take()
    made = backed.kept(taken).manifest
    assert (made.layout, made.compression) == ("tar", compression)
    assert made.stored_bytes < made.data_bytes / 2
    found = backed.verify()
    assert (found["verified"], found["errors"]) == (1, [])
    (file,) = (backed.path(taken) / "data").glob("base.tar.*")
    flip(file)
    assert file.name in backed.verify()["errors"][0]


def test_strange_names_and_tablespaces_are_kept(root: Path, make: Callable[..., Host]) -> None:
    host = make()
    host.base = root / 'base d\'é="x" %p'
    host.base.mkdir()
    own(host.base, host.server)
    backed = Backed.of(host)
    space = host.server.directory / 'space = "ü"'
    space.mkdir()
    own(space, host.server)
    host.server.psql(f"CREATE TABLESPACE odd LOCATION '{space}'")
    host.server.psql('CREATE DATABASE "böse = ""Daten"""')
    host.server.psql(f"{TABLE}; ALTER TABLE item SET TABLESPACE odd")
    taken = backed.take()
    made = backed.kept(taken).manifest
    assert [one.path for one in made.tablespaces] == [str(space)]
    link = backed.path(taken) / "data" / "pg_tblspc" / str(made.tablespaces[0].oid)
    assert os.readlink(link) == f"../../tablespaces/{made.tablespaces[0].oid}"
    assert (link / next(iter(os.listdir(link)))).is_dir()
    assert 'böse = "Daten"' in made.environment["extensions"]
    assert backed.verify()["verified"] == 1


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_tablespace_is_verified_too(make: Callable[..., Host], compression: str) -> None:
    backed = Backed.of(make(), compression=compression)
    space = backed.server.directory / "space"
    space.mkdir()
    own(space, backed.server)
    backed.server.psql(f"CREATE TABLESPACE here LOCATION '{space}'")
    backed.server.psql(f"{TABLE}; ALTER TABLE item SET TABLESPACE here")
    taken = backed.take()
    (oid,) = (one.oid for one in backed.kept(taken).manifest.tablespaces)
    if compression == "none":
        (file,) = [
            path
            for path in (backed.path(taken) / "tablespaces" / str(oid)).rglob("*")
            if path.is_file() and path.stat().st_size > 8192
        ][:1]
        with file.open("ab") as opened:
            opened.write(b"x")
    else:
        (backed.path(taken) / "data" / f"{oid}.tar.gz").unlink()
    found = backed.verify()
    assert found["verified"] == 0
    assert str(oid) in found["damaged"][taken["name"]][0]


def test_configuration_outside_of_the_data_directory_is_kept(make: Callable[..., Host]) -> None:
    host = make()
    backed = Backed.of(host)
    outside = host.server.directory / "etc"
    outside.mkdir()
    extra = host.server.write(outside / "extra.conf", "work_mem = '5MB'\n")
    host.server.configure(
        {
            "hba_file": str(
                host.server.write(outside / "hba.conf", "local all all trust\nlocal replication all trust\n")
            )
        }
    )
    with (host.server.data_dir / "postgresql.conf").open("a") as file:
        file.write(f"include '{extra}'\n")
    own(outside, host.server)
    host.server.stop()
    host.server.start()
    taken = backed.take()
    kept = backed.kept(taken).manifest.environment["configuration"]
    assert {one["path"]: one["name"] for one in kept} == {str(extra): "", str(outside / "hba.conf"): "hba_file"}
    assert (backed.path(taken) / kept[0]["file"]).read_text() == Path(kept[0]["path"]).read_text()
    (backed.path(taken) / kept[0]["file"]).write_text("other")
    assert "another checksum" in backed.verify()["errors"][0]


@pytest.mark.every_major
def test_what_a_restore_elsewhere_needs_is_recorded(make: Callable[..., Host]) -> None:
    host = make()
    backed = Backed.of(host)
    host.server.psql("CREATE EXTENSION pg_stat_statements", "template1")
    host.server.psql("CREATE DATABASE shop")
    around = backed.kept(backed.take()).manifest.environment
    assert "pg_stat_statements" in around["extensions"]["shop"]
    assert "pg_stat_statements" not in around["extensions"]["postgres"]
    assert {one["database"] for one in around["collations"]["databases"]} >= {"shop", "template0"}
    assert around["settings"]["max_connections"] == "50"
    assert json.dumps(around)


def test_without_archiving_nothing_is_copied(make: Callable[..., Host]) -> None:
    host = make()
    backed = Backed.of(host)
    host.server.value("ALTER SYSTEM SET archive_command = 'cp %p /elsewhere/%f'")
    host.server.reload()
    with pytest.raises(Conflict, match="WAL is not archived into"):
        backed.take()
    host.server.value("ALTER SYSTEM RESET archive_command")
    host.server.value("ALTER SYSTEM RESET archive_mode")
    host.server.stop()
    host.server.start()
    with pytest.raises(Conflict, match="archive_mode is off"):
        backed.take()
    assert not backed.directories()


def test_archiving_that_fails_is_told_before_anything_is_copied(make: Callable[..., Host]) -> None:
    host = make()
    backed = Backed.of(host)
    host.register(Path("/nowhere"))
    name = host.switch()
    until(lambda: host.server.value("SELECT last_failed_wal FROM pg_stat_archiver"), "failing", name)
    with pytest.raises(HostFailed, match=f"Archiving fails, for {name} last"):
        backed.take()
    assert not backed.directories()


def test_two_at_once_are_one_too_many(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    backed = Backed.of(make())
    backed.take()
    monkeypatch.setattr("pgops.backup.take.PATIENCE", 0)
    with backups.alone(str(backed.place)), pytest.raises(Busy, match="Another run is taking or expiring backups"):
        backed.take()


def test_other_nodes_are_left_alone(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    assert "db2/main is backed up" in backed.take(source="db2/main")["skipped"]
    assert "db2/main is backed up" in Backed(backed.host, {"source": "db2/main"}).verify()["skipped"]
    assert not backed.directories()


def test_programs_that_are_missing_or_of_another_version_are_named(make: Callable[..., Host], root: Path) -> None:
    backed = Backed.of(make())
    without = root / "without"
    without.mkdir()
    with pytest.raises(HostFailed, match=f"postgresql-client-{backed.server.major}") as caught:
        backed.take(bin_directory=str(without))
    assert str(without / "pg_basebackup") in str(caught.value)
    if (backed.server.bin_dir / "pg_basebackup").exists():
        assert backed.take(bin_directory="")["errors"] == []  # those beside the server's program
    old = root / "old"
    old.mkdir()
    for name in ("pg_basebackup", "pg_verifybackup"):
        (old / name).write_text("#!/bin/sh\necho 'pg_basebackup (PostgreSQL) 14.2'\n")
        (old / name).chmod(0o755)
    with pytest.raises(HostFailed, match="PostgreSQL 14"):
        backed.take(bin_directory=str(old))


def test_names_that_mean_nothing_are_refused(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    with pytest.raises(InvalidInput, match="There are no logical backups"):
        backed.take("logical")
    with pytest.raises(InvalidInput, match="There is no backup elsewhere"):
        backed.verify("elsewhere")
