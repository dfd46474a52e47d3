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

USER = 65534 if os.geteuid() == 0 else os.geteuid()
"""Who runs servers, which root cannot."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is somebody else's")


@pytest.fixture
def root() -> Iterator[Path]:
    """A host's root; its path is short, since a socket's has at most 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="host-"))
    made.chmod(0o755)
    (made / "var/run/postgresql").mkdir(parents=True)
    (made / "tmp").mkdir()
    yield made
    shutil.rmtree(made)


def _cluster(root: Path, version: str, name: str, configuration: str) -> Path:
    folder = root / "etc/postgresql" / version / name
    folder.mkdir(parents=True)
    (folder / "postgresql.conf").write_text(configuration)
    return folder


def _listen(directory: Path, port: int, locked: bool = True, uid: int = USER) -> socket.socket:
    """As a server's user does; a pooler has no lock file."""
    server = socket.socket(socket.AF_UNIX)
    path = directory / f".s.PGSQL.{port}"
    server.bind(str(path))
    server.listen()
    lock = directory / f".s.PGSQL.{port}.lock"
    lock.unlink(missing_ok=True)
    if locked:
        lock.write_text(f"{os.getpid()}\n")
    if os.geteuid() == 0:
        for made in (path, lock):
            if made.exists():
                os.chown(made, uid, uid)
    return server


def _give(*paths: Path) -> None:
    """To the server's user, with all in it."""
    if os.geteuid() == 0:
        for path in paths:
            for one in [path, *path.rglob("*")]:
                os.chown(one, USER, USER, follow_symlinks=False)


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


@as_root
def test_socket_of_anybody_is_no_server(root):
    (root / "tmp").chmod(0o1777)
    with _listen(root / "tmp", 6000):
        assert discovery.instances(str(root)) == []
        assert not discovery.trusted(str(root / "tmp"), 6000)
        assert discovery.trusted(str(root / "tmp"), 6000, USER)
        assert not discovery.trusted(str(root / "tmp"), 6000, 1)


@as_root
def test_nor_is_that_of_a_group_s_member(root):
    sockets = root / "var/run/postgresql"
    os.chown(sockets, 1, 1)
    sockets.chmod(0o2775)
    with _listen(sockets, 6000):
        assert discovery.instances(str(root)) == []
    with _listen(sockets, 6001, uid=1):
        assert [found.port for found in discovery.instances(str(root))] == [6001]


@as_root
def test_nor_is_that_of_root(root):
    with _listen(root / "tmp", 6000, uid=0):
        assert discovery.instances(str(root)) == []


def test_a_pooler_is_no_server(root):
    sockets = root / "var/run/postgresql"
    _cluster(root, "17", "main", f"port = 5432\nunix_socket_directories = '{sockets}'\n")
    _give(root / "etc/postgresql/17")
    with _listen(sockets, 5432), _listen(sockets, 6432, locked=False):
        assert [found.name for found in discovery.instances(str(root))] == ["17-main"]
        (pooler,) = discovery.poolers(str(root))
    assert (pooler["port"], pooler["socket_directory"]) == (6432, str(sockets))


@as_root
def test_a_pooler_at_a_cluster_s_port_is_not_the_cluster(root):
    sockets = root / "var/run/postgresql"
    _cluster(root, "17", "main", f"port = 5432\nunix_socket_directories = '{sockets}'\n")
    _give(root / "etc/postgresql/17")
    with _listen(sockets, 5432, locked=False):
        (found,) = discovery.instances(str(root))
    assert not found.socket
    with _listen(root / "tmp", 5432):
        os.chown(root / "tmp/.s.PGSQL.5432.lock", 1, 1)
        assert not discovery.trusted(str(root / "tmp"), 5432)


# --- files of another user's


@as_root
def test_root_reads_nothing_that_a_cluster_s_owner_may_not(root):
    secret = root / "secret.conf"
    secret.write_text("port = 7777\n")
    secret.chmod(0o600)
    folder = _cluster(root, "16", "main", f"port = 1\ninclude '{secret}'\n")
    (folder / "start.conf").symlink_to(secret)
    assert discovery.instances(str(root))[0].port == 7777  # of root's own
    _give(root / "etc/postgresql/16")
    (found,) = discovery.instances(str(root))
    assert (found.port, found.start, found.owner) == (1, "auto", "nobody")


@as_root
def test_root_s_directory_makes_no_server_root_s(root):
    folder = _cluster(root, "16", "main", "data_directory = '/root'\n")
    assert discovery.instances(str(root))[0].owner is None
    _give(root / "etc/postgresql/16")
    assert discovery.instances(str(root))[0].owner == "nobody"
    os.chown(folder, 0, 0)
    assert discovery.instances(str(root))[0].owner == "nobody"


@as_root
def test_who_keeps_the_configuration_need_not_run_the_server(root):
    sockets, data = root / "tmp", root / "data"
    data.mkdir(mode=0o700)
    (data / "postgresql.auto.conf").write_text("port = 7777\n")
    _cluster(root, "16", "main", f"unix_socket_directories = '{sockets}'\ndata_directory = '{data}'\n")
    _give(data)
    for path in (root / "etc/postgresql/16").rglob("*"):
        os.chown(path, 1, 1)
    with _listen(sockets, 7777):
        (found,) = discovery.instances(str(root))
    assert (found.name, found.port, found.owner, found.socket) == ("16-main", 7777, "nobody", True)


@as_root
def test_nor_need_who_runs_the_server_keep_the_configuration(root):
    data, secret = root / "data", root / "secret"
    data.mkdir()
    secret.write_text("port = 7777\n")
    secret.chmod(0o600)
    (data / "postgresql.auto.conf").symlink_to(secret)
    _cluster(root, "16", "main", f"data_directory = '{data}'\n")
    assert discovery.instances(str(root))[0].port == 7777
    _give(data)
    (found,) = discovery.instances(str(root))
    assert (found.port, found.owner) == (5432, "nobody")


@as_root
def test_a_configuration_that_another_user_links_to_is_read_as_that_user(root):
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "postgresql.conf").write_text("port = 7777\n")
    (elsewhere / "postgresql.conf").chmod(0o600)
    version = root / "etc/postgresql/16"
    version.mkdir(parents=True)
    (version / "main").symlink_to(elsewhere)
    assert discovery.instances(str(root))[0].port == 7777
    os.chown(version, USER, USER)
    assert discovery.instances(str(root))[0].port == 5432


@as_root
def test_another_s_socket_is_not_a_cluster_s(root):
    sockets, data = root / "tmp", root / "data"
    data.mkdir()
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n0\n7777\n{sockets}\nlocalhost\n")
    _cluster(root, "16", "main", f"port = 1\ndata_directory = '{data}'\n")
    _give(root / "etc/postgresql/16", data)
    with _listen(sockets, 7777, uid=1):
        found = next(one for one in discovery.instances(str(root)) if one.name == "16-main")
        assert (found.port, found.socket) == (7777, False)
    with _listen(sockets, 7778):
        assert discovery.listening_at(str(data), USER) is None
        (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n0\n7778\n{sockets}\nlocalhost\n")
        assert discovery.listening_at(str(data), USER) == (7778, str(sockets))
        found = next(one for one in discovery.instances(str(root)) if one.name == "16-main")
        assert (found.port, found.socket) == (7778, True)


def test_pipes_and_endless_files_are_not_read(root):
    folder = _cluster(root, "16", "main", "include 'pipe.conf'\ninclude 'endless.conf'\nport = 5439\n")
    os.mkfifo(folder / "pipe.conf")
    os.mkfifo(folder / "start.conf")
    with (folder / "endless.conf").open("wb") as file:
        file.write(b"port = 1\n")
        file.truncate(1 << 40)
    _give(root / "etc/postgresql/16")
    (found,) = discovery.instances(str(root))
    assert (found.port, found.start) == (5439, "auto")


def test_a_configuration_that_includes_itself_over_and_over_ends(root):
    _cluster(root, "16", "main", "port = 5439\n" + "include 'postgresql.conf'\n" * 1000)
    _give(root / "etc/postgresql/16")
    assert discovery.instances(str(root))[0].port == 5439


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


def test_a_server_that_has_ended_and_was_not_reaped_does_not_run(root):
    data = root / "data"
    data.mkdir()
    _cluster(root, "16", "main", f"port = 1\ndata_directory = '{data}'\n")
    child = os.fork()
    if not child:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        (data / "postmaster.pid").write_text(f"{child}\n{data}\n0\n7777\n{root}/tmp\nlocalhost\n")
        assert discovery.instances(str(root))[0].port == 1
    finally:
        os.waitpid(child, 0)
