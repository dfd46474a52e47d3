"""Instances found by files and sockets of a made-up host."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgops.server import discovery


@pytest.fixture
def root() -> Iterator[Path]:
    """A host's root; its path is short, since a socket's has at most 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="host-", dir="/tmp"))
    (made / "var/run/postgresql").mkdir(parents=True)
    (made / "tmp").mkdir()
    yield made
    shutil.rmtree(made)


def _cluster(root: Path, version: str, name: str, configuration: str) -> Path:
    folder = root / "etc/postgresql" / version / name
    folder.mkdir(parents=True)
    (folder / "postgresql.conf").write_text(configuration)
    return folder


def _listen(directory: Path, port: int) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(directory / f".s.PGSQL.{port}"))
    server.listen()
    return server


def test_host_without_postgresql(tmp_path):
    assert discovery.instances(str(tmp_path)) == []


def test_cluster_that_is_down(root):
    _cluster(root, "17", "main", "port = 5433\nunix_socket_directories = '/nowhere, /tmp'\n")
    (found,) = discovery.instances(str(root))
    assert (found.name, found.port, found.socket_directory, found.socket) == ("17-main", 5433, "/nowhere", False)
    assert (found.version, found.role, found.system_identifier) == ("17", None, None)


@pytest.mark.parametrize(
    ("text", "start"),
    [("", "auto"), ("# manual\n\n", "auto"), ("# how\nmanual # by hand\n", "manual"), ("disabled", "disabled")],
)
def test_how_a_cluster_is_started(root, text, start):
    folder = _cluster(root, "17", "main", "")
    assert discovery.instances(str(root))[0].start == "auto"
    (folder / "start.conf").write_text(text)
    assert discovery.instances(str(root))[0].start == start


def test_cluster_that_runs_is_not_found_again_by_its_socket(root):
    sockets = root / "var/run/postgresql"
    _cluster(root, "15", "main", f"unix_socket_directories = '{sockets}'  # a comment\n")
    with _listen(sockets, 5432):
        (found,) = discovery.instances(str(root))
    assert (found.name, found.port, found.socket) == ("15-main", 5432, True)


def test_other_servers_are_found_by_their_sockets(root):
    with _listen(root / "tmp", 6000), _listen(root / "var/run/postgresql", 6001):
        found = discovery.instances(str(root))
    assert [(instance.name, instance.socket) for instance in found] == [("port-6001", True), ("port-6000", True)]


def test_socket_that_a_server_left_behind(root):
    _listen(root / "tmp", 6000).close()
    (found,) = discovery.instances(str(root))
    assert (found.name, found.socket) == ("port-6000", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket that is somebody else's")
def test_socket_of_anybody_is_no_server(root):
    (root / "tmp").chmod(0o1777)
    with _listen(root / "tmp", 6000):
        os.chown(root / "tmp/.s.PGSQL.6000", 65534, 65534)
        assert discovery.instances(str(root)) == []
        assert not discovery.trusted(str(root / "tmp"), 6000)
        assert discovery.trusted(str(root / "tmp"), 6000, 65534)


def test_later_and_included_settings_win(root):
    data = root / "data"
    data.mkdir()
    folder = _cluster(
        root, "16", "two", f"port = 1\nPORT 2\nport='3'\ninclude_dir 'conf.d'\ndata_directory = '{data}'\n#port = 9\n"
    )
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "10-port.conf").write_text("port = 5555\n")
    (folder / "conf.d" / ".hidden.conf").write_text("port = 8\n")
    assert discovery.instances(str(root))[0].port == 5555
    (data / "postgresql.auto.conf").write_text("port = '6666'\n")
    assert discovery.instances(str(root))[0].port == 6666


def test_files_that_include_each_other_end(root):
    folder = _cluster(root, "16", "loop", "include 'postgresql.conf'\nport = 5439\n")
    assert folder.exists()
    assert discovery.instances(str(root))[0].port == 5439


def test_what_a_running_server_says_wins(root):
    data = root / "data"
    data.mkdir()
    _cluster(root, "16", "main", f"port = 1\ndata_directory = '{data}'\n")
    lock = f"{{}}\n{data}\n0\n7777\n{root}/tmp\nlocalhost\n"
    (data / "postmaster.pid").write_text(lock.format(os.getpid()))
    assert discovery.instances(str(root))[0].port == 7777
    (data / "postmaster.pid").write_text(lock.format(999999999))
    assert discovery.instances(str(root))[0].port == 1


def test_role_and_identity_come_from_the_data_directory(root):
    data = root / "data"
    (data / "global").mkdir(parents=True)
    _cluster(root, "16", "main", f"data_directory = '{data}'\n")
    (data / "global" / "pg_control").write_bytes(struct.pack("=Q", 7642011472967116994) + bytes(100))
    (found,) = discovery.instances(str(root))
    assert (found.role, found.system_identifier) == ("primary", "7642011472967116994")
    (data / "standby.signal").touch()
    assert discovery.instances(str(root))[0].role == "standby"


@pytest.mark.parametrize("configuration", ["", "port = none\n", "port =\n", "=\n'\n\x00\n", "port = 99999999999\n"])
def test_no_file_is_so_broken_that_it_fails(root, configuration):
    _cluster(root, "16", "main", configuration)
    (found,) = discovery.instances(str(root))
    assert found.socket is False
