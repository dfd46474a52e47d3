# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The space of the server's disks, as df shows it, and file systems that are full, gone or hang."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import disks
import pytest
import scratch
from deploying import AGENT, BUNDLE, SHIPPED, agent_arguments, collect, deploy, target
from majors import EVERY_MAJOR, make_server
from servers import Server
from waiting import until

from pgops.agent import deploy as agent
from pgops.host import mounts
from pgops.host.identity import acting_as
from pgops.host.mounts import HANGS
from pgops.instance import configuration
from pgops.instance.layout import Layout
from pgops.server.disks import Host, measured, real_paths

DISKS = [one for one in SHIPPED if one.name == "disks"]
MB = 1024 * 1024
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


@dataclass
class Place:
    """A server with its WAL and a tablespace on disks of their own, where these can be mounted."""

    server: Server
    folder: Path
    mounted: bool

    @property
    def wal(self) -> Path:
        return self.folder / "wal"

    @property
    def space(self) -> Path:
        return self.folder / 'a "sp\\ace'

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def needs_mounts(self) -> None:
        if not self.mounted:
            pytest.skip("a small file system cannot be mounted here")

    def collect(self, **settings: Any) -> list[str]:
        """The errors of a collection of disks."""
        errors: list[str] = collect(self.server, self.folder / "prefix", found=DISKS, **settings)["errors"]
        return errors

    def newest(self, disk: str) -> dict[str, Any]:
        """The newest values of a disk, by their metrics' names, and its labels."""
        found = self.server.value(
            "SELECT jsonb_object_agg(metric_name, metric_value) || (array_agg(additional_info))[1] "
            f"FROM pgops.system_metrics WHERE additional_info ->> 'disk' = '{disk}' AND "
            "collected_at = (SELECT max(collected_at) FROM pgops.system_metrics WHERE metric_name LIKE 'disk%')",
            "pgops",
        )
        return dict(found or {})  # type: ignore[call-overload]


@pytest.fixture(name="place", scope="module", params=EVERY_MAJOR)
def _place(request: pytest.FixtureRequest) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="pgops-disks-", dir=scratch.root()))
    folder.chmod(0o755)
    place = Place(Server(request.param, folder, 0), folder, False)
    try:
        place.log.mkdir()
        with disks.small(place.wal, "80m") as one, disks.small(place.space) as other:
            place.mounted = one and other
            if os.geteuid() == 0:
                for path in (place.wal, place.space, place.log):
                    shutil.chown(path, place.server.os_user)
            settings = {"logging_collector": "on", "log_directory": str(place.log)}
            place.server = make_server(
                request.param, initdb=("--waldir", str(place.wal / "pg_wal")), settings=settings
            )
            with place.server as server:
                server.value(f"CREATE TABLESPACE roomy LOCATION '{place.space}'")
                deploy(server)
                yield place
    finally:
        shutil.rmtree(folder)


def df(path: Path) -> dict[str, Any]:
    """What df shows of a path."""
    fields = "size,used,avail,itotal,iused,iavail,target"
    shown = subprocess.check_output(["df", f"--output={fields}", "-B1", str(path)], text=True).splitlines()[1]
    *numbers, mount = shown.split(maxsplit=6)
    size, used, free, inodes, used_inodes, free_inodes = map(int, numbers)
    return {
        "disk_size_mb": pytest.approx(size / MB),
        "disk_free_mb": pytest.approx(free / MB, abs=1000),
        "disk_used_percent": pytest.approx(100 * used / (used + free), abs=1),
        "disk_inodes_used_percent": pytest.approx(100 * used_inodes / (used_inodes + free_inodes), abs=1)
        if inodes
        else None,
        "mount": mount,
    }


@pytest.mark.every_major
def test_each_disk_is_as_df_shows_it(place: Place) -> None:
    with place.server.connect() as session:
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute("CREATE TABLESPACE inside LOCATION ''")
    assert place.collect(repository="/dev/shm") == []
    paths = {
        "data": place.server.data_dir,
        "wal": place.wal,
        "tablespace": place.space,
        "repository": Path("/dev/shm"),
        "log": place.log,
    }
    for disk, path in paths.items():
        found = place.newest(disk)
        assert {key: found.get(key) for key in df(path)} == df(path), disk
    assert place.newest("tablespace")["tablespace"] == "roomy"
    count = "SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'disk_free_mb'"
    assert place.server.value(count, "pgops") == len(paths)


def test_a_log_in_the_data_directory_is_on_no_disk_of_its_own(place: Place) -> None:
    place.server.value("ALTER SYSTEM SET log_directory = 'log'")
    place.server.reload()
    assert place.collect() == []
    assert place.newest("data")
    assert place.newest("log") == {}


def test_a_full_disk_is_full(place: Place) -> None:
    place.needs_mounts()
    assert place.collect() == []
    assert place.newest("tablespace")["disk_used_percent"] < 80
    disks.fill(place.space)
    try:
        assert place.collect() == []
        found = place.newest("tablespace")
        assert (found["disk_free_mb"], found["disk_used_percent"]) == (0, 100)
        assert found["mount"] == str(place.space)
    finally:
        (place.space / "filler").unlink()


@needs_root
def test_an_agent_that_may_not_enter_finds_what_is_mounted_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the agent's own user, to whom the data directory is closed, and with it where pg_wal leads to."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("there is no Python here that others may use")
    monkeypatch.setattr("sys.executable", python)
    monkeypatch.setattr(mounts, "__file__", shutil.copy(mounts.__file__, place.folder))
    known = real_paths(target(place.server))
    data = str(place.server.data_dir)
    assert known == {data: data, f"{data}/pg_wal": str(place.wal / "pg_wal"), str(place.space): str(place.space)}
    assert place.collect() == []
    seen = place.newest("wal")
    (place.folder / "other").mkdir()
    shutil.chown(place.folder / "other", "daemon")
    place = replace(place, folder=place.folder / "other")
    deploy(place.server, os_user="daemon")
    try:
        with acting_as(pwd.getpwnam("daemon").pw_uid):
            assert place.collect(real_paths=known) == []
            found = place.newest("wal")
            assert found["mount"] == seen["mount"]
            assert found["disk_size_mb"] == seen["disk_size_mb"]
            # Where pg_wal leads to cannot be measured: not a guess, but none.
            (error,) = place.collect()
            assert place.newest("wal") == {}
            assert place.newest("data")["mount"] == df(place.server.data_dir)["mount"]
        assert error == f"the disk of {data}/pg_wal cannot be measured: Permission denied"
    finally:
        deploy(place.server)


def test_a_place_that_is_gone_is_an_error_that_names_it_and_no_value(place: Place) -> None:
    assert place.collect(repository="/nowhere/shop") == [
        "the disk of /nowhere/shop cannot be measured: No such file or directory"
    ]
    assert place.newest("repository") == {}
    assert place.newest("data")
    errors = (
        "SELECT metric_value FROM pgops.system_metrics WHERE metric_name = 'collector_errors' "
        "AND additional_info ->> 'collector' = 'disks' ORDER BY collected_at DESC LIMIT 1"
    )
    assert place.server.value(errors, "pgops") == 1


def test_where_no_process_can_be_started_all_else_is_collected(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python3")
    outcome = collect(place.server, place.folder / "prefix")
    assert outcome["errors"] == [
        "disks in pgops: The process that measures disks cannot be started: No such file or directory."
    ]
    assert outcome["samples"] > 100
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    data = place.server.data_dir
    assert f"the disk of {data} cannot be measured: exit code 1 of {mounts.__file__}" in place.collect()


def test_disks_can_be_left_out(place: Place) -> None:
    before = place.newest("data")
    assert place.collect(collectors={"disks": {"enabled": False}}) == []
    assert place.newest("data") == before


@needs_root
def test_a_file_system_that_hangs_holds_up_neither_the_run_nor_the_next_ones(tmp_path: Path) -> None:
    gone, host = tmp_path / "gone", Host(str(tmp_path / "lock"), str(tmp_path / "gone"))
    data = [{"disk": "data", "path": "/"}]
    with disks.hanging(gone) as mounted:
        if not mounted:
            pytest.skip("FUSE is not to be had here")
        rows, wrong = measured(host, data, 0.5)
        assert wrong == [f"the disk of {gone} cannot be measured: no answer for 0.5 seconds"]
        left = children()
        for _minute in range(3):
            rows, wrong = measured(host, data, 10)
            assert [row["disk"] for row in rows] == ["data"]
            # Who waited for it again would say that there was no answer.
            assert wrong == [f"the disk of {gone} cannot be measured: {HANGS}"]
        assert children() == left
    # Whoever waited is let go, and what is there now is looked at again.
    until(lambda: measured(host, data, 10)[1], "known again", [])


BROKEN = ("disks", "temporary_files", "table_size", "index_activity", "database_size")
SPREAD = """
CREATE TABLE public.good AS SELECT g FROM generate_series(1, 10000) AS g;
CREATE INDEX good_index ON public.good (g);
CREATE TABLE public.lost TABLESPACE broken AS SELECT g FROM generate_series(1, 10000) AS g;
CREATE INDEX lost_index ON public.lost (g);
CREATE TABLE public.half AS SELECT g FROM generate_series(1, 10000) AS g;
CREATE INDEX half_index ON public.half (g) TABLESPACE broken;
CREATE TABLE public.parted (g integer) PARTITION BY LIST ((g % 2));
CREATE TABLE public.odd PARTITION OF public.parted FOR VALUES IN (1) TABLESPACE broken;
CREATE TABLE public.even PARTITION OF public.parted FOR VALUES IN (0);
INSERT INTO public.parted SELECT g FROM generate_series(1, 10000) AS g;
"""


@pytest.fixture(name="broken")
def _broken(place: Place) -> Iterator[Path]:
    """The directory of a tablespace `broken` with some of what is in the database `shop`."""
    path = Path(tempfile.mkdtemp(prefix="broken-", dir=place.folder))
    if os.geteuid() == 0:
        shutil.chown(path, place.server.os_user)
    with place.server.connect() as session:
        session.execute(f"CREATE TABLESPACE broken LOCATION '{path}'".encode())
        session.execute(b"CREATE DATABASE shop")
    place.server.psql(SPREAD, "shop")
    place.server.value("VACUUM", "shop")
    place.server.value("CHECKPOINT")
    yield path
    place.server.value("DROP DATABASE shop WITH (FORCE)")
    place.server.value("DROP TABLESPACE broken")


@contextlib.contextmanager
def no_link(link: Path) -> Iterator[None]:
    target = link.readlink()
    link.unlink()
    try:
        yield
    finally:
        link.symlink_to(target)


@contextlib.contextmanager
def no_target(link: Path) -> Iterator[None]:
    target = link.readlink()
    target.rename(f"{target}.away")
    try:
        yield
    finally:
        Path(f"{target}.away").rename(target)


@contextlib.contextmanager
def closed(link: Path) -> Iterator[None]:
    target = link.readlink()
    target.chmod(0)
    try:
        yield
    finally:
        target.chmod(0o700)


@pytest.mark.every_major
@pytest.mark.parametrize("damage", [no_link, no_target, closed])
def test_a_tablespace_that_cannot_be_read_costs_only_what_is_in_it(
    place: Place, broken: Path, tmp_path: Path, damage: Callable[[Path], AbstractContextManager[None]]
) -> None:
    server, found = place.server, [one for one in SHIPPED if one.name in BROKEN]
    oid = server.value("SELECT oid FROM pg_tablespace WHERE spcname = 'broken'")
    server.value("TRUNCATE pgops.round", "pgops")
    with damage(server.data_dir / "pg_tblspc" / str(oid)):
        outcome = collect(server, tmp_path, found=found)
    assert (outcome["sink"], outcome["spooled"]) == ("local", 0)
    assert outcome["errors"]
    assert all("broken" in error for error in outcome["errors"]), outcome["errors"]
    assert _measured(server, "table_size_mb", "table_name") == {"good", None}  # and the remainder
    assert _measured(server, "index_size_mb", "index_name") == {"good_index", "lost_index"}
    assert "shop" in _measured(server, "database_size_mb", "database_name")
    spaces = "SELECT count(*) FROM pgops.system_metrics WHERE metric_name = '{}' AND additional_info ->> '{}' = '{}'"
    assert server.value(spaces.format("disk_free_mb", "disk", "data"), "pgops") == 1
    assert server.value(spaces.format("disk_free_mb", "tablespace", "roomy"), "pgops") == 1
    assert server.value(spaces.format("temp_files_now_mb", "tablespace", "pg_default"), "pgops") == 1
    # And once it is there again, so is all of it.
    assert collect(server, tmp_path, found=found)["errors"] == []
    assert _measured(server, "table_size_mb", "table_name") == {"good", "lost", "half", "parted", None}


def _measured(server: Server, metric: str, label: str) -> set[Any]:
    """What of the database `shop` has values, none of which is 0."""
    found = server.value(
        f"SELECT jsonb_agg(jsonb_build_array({label}, metric_value)) FROM pgops.system_metrics "
        f"WHERE database_name = 'shop' AND metric_name = '{metric}'",
        "pgops",
    )
    assert isinstance(found, list)
    assert all(size > 0 for _name, size in found)
    return {name for name, _size in found}


@needs_root
def test_a_tablespace_that_hangs_holds_up_no_deployment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at before is found; where all else is stays as it was known."""
    place.needs_mounts()
    monkeypatch.setattr("pgops.server.disks.FINDING", 5)
    (place.server.data_dir / "pg_tblspc" / "99999").symlink_to(place.folder / "gone")
    try:
        with disks.hanging(place.folder / "gone") as mounted:
            if not mounted:
                pytest.skip("FUSE is not to be had here")
            known = real_paths(target(place.server))  # which could wait for ever
    finally:
        (place.server.data_dir / "pg_tblspc" / "99999").unlink()
    assert known[str(place.folder / "gone")] is None
    assert known[str(place.space)] == str(place.space)


def children() -> int:
    """How many processes this one has, those included that are gone but for what hangs."""
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_the_agent_is_told_where_the_directories_are_and_keeps_it_while_the_server_is_down(
    place: Place, tmp_path: Path
) -> None:
    layout = Layout("main", str(tmp_path))
    wish = {**AGENT, "prefix": str(tmp_path), "sources": BUNDLE}
    wish.update(port=place.server.port, socket_directory=str(place.server.socket_dir))
    agent.converge(agent_arguments(wish), False)
    known = configuration.load(layout).real_paths
    assert known[f"{place.server.data_dir}/pg_wal"] == str(place.wal / "pg_wal")
    place.server.stop()
    try:
        assert not agent.converge(agent_arguments(wish), False)["changed"]
        assert configuration.load(layout).real_paths == known
    finally:
        place.server.start()


def test_mount_points_are_read_as_the_kernel_writes_them() -> None:
    text = (
        b"22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        b"30 27 0:27 / /data rw - ext4 /dev/vdb rw\n"
        b"31 27 0:28 / /data/with\\040space\\134 rw - xfs /dev/vdc rw\n"
    )
    known = mounts.mount_points(text)
    assert known == ["/proc", "/", "/data", "/data/with space\\"]
    places = {"/data": "/data", "/data/with space\\/x": "/data/with space\\", "/database/x": "/", "/data/w": "/data"}
    assert {path: mounts.mount_point(path, known) for path in places} == places
    assert mounts.mount_point("/data", []) == ""
