# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A change of settings is a promise that the server will start with them: what would break it is refused before
anything is written or stopped, and what breaks it all the same is put back to what has started."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from configured import DEFAULTS, Host
from disks import fill, small
from servers import Server, free_port

from pgops.errors import HostFailed, PgOpsError, SettingsRefused
from pgops.server import discovery
from pgops.server.target import Target
from pgops.settings import deploy as settings


def started(host: Host) -> object:
    return host.server.value("SELECT pg_postmaster_start_time()")


def untouched(host: Host, kind: type[PgOpsError], restart: str = "never", **values: Any) -> str:
    """The error of a change that is refused in check mode and in a run, before anything was written or stopped."""
    before = (started(host), host.kept, host.server.value("SELECT pg_conf_load_time()"))
    with pytest.raises(kind) as predicted:
        host.set(check=True, restart=restart, **values)
    refused = host.refused(kind, restart, **values)
    assert str(refused) == str(predicted.value)
    assert (started(host), host.kept, host.server.value("SELECT pg_conf_load_time()")) == before
    return str(refused)


@pytest.mark.every_major
@pytest.mark.parametrize("restart", ["never", "if_required"])
def test_tls_without_its_files_is_refused(host: Host, restart: str) -> None:
    said = untouched(host, SettingsRefused, restart, ssl=True)
    assert 'could not load server certificate file "server.crt"' in said
    assert "Nothing was changed." in said
    host.server.enable_tls()
    host.server.reload()
    host.set(restart=restart, work_mem="8MB")
    said = untouched(host, SettingsRefused, restart, ssl_cert_file="/nowhere/server.crt")
    assert '"/nowhere/server.crt": No such file or directory' in said


def test_a_key_of_another_certificate_is_refused(host: Host) -> None:
    host.server.enable_tls()
    host.server.reload()
    host.server.write(host.server.directory / "other.key", (host.server.directory / "server.key").read_text())
    host.server.enable_tls()  # another pair
    said = untouched(host, SettingsRefused, ssl_key_file=str(host.server.directory / "other.key"))
    assert "key values mismatch" in said
    (host.server.directory / "other.key").chmod(0o644)
    said = untouched(host, SettingsRefused, ssl_key_file=str(host.server.directory / "other.key"))
    assert "has group or world access" in said


@pytest.mark.every_major
def test_settings_that_cannot_be_together_are_refused(host: Host) -> None:
    assert "wal_level" in untouched(host, SettingsRefused, "if_required", wal_level="minimal")
    said = untouched(host, SettingsRefused, "never", superuser_reserved_connections=60)
    assert "must be less than" in said
    assert "shared_buffers = 7TB" in untouched(host, SettingsRefused, "if_required", shared_buffers="7TB")


@pytest.mark.every_major
def test_a_library_that_cannot_be_loaded_is_refused(host: Host) -> None:
    library = host.server.write(host.server.directory / "hollow.so", "nothing", 0o644)
    for name in ("shared_preload_libraries", "session_preload_libraries"):
        said = untouched(host, SettingsRefused, "if_required", **{name: [str(library)]})
        assert "hollow.so" in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"log_directory": "/nowhere/log"}, "log_directory"),
        ({"log_directory": "/root/log"}, "log_directory"),
        ({"log_directory": "postgresql.conf"}, "log_directory"),
        ({"unix_socket_directories": "/nowhere"}, "unix_socket_directories"),
        ({"hba_file": "/nowhere/pg_hba.conf"}, "hba_file"),
        ({"listen_addresses": "no.such.host.invalid"}, "listen_addresses"),
        ({"listen_addresses": "192.0.2.1"}, "listen_addresses"),
    ],
)
def test_places_that_are_not_there_are_refused(host: Host, values: dict[str, str], said: str) -> None:
    host.server.configure({"logging_collector": "on"})
    for restart in ("never", "if_required"):
        assert said in untouched(host, SettingsRefused, restart, **values)


def test_a_directory_that_the_server_can_make_is_none_to_refuse(host: Host) -> None:
    host.server.configure({"logging_collector": "on"})
    assert host.set(restart="if_required", log_directory="own_log", max_connections=60)["restarted"]
    assert (host.server.data_dir / "own_log").is_dir()


def test_a_port_that_is_taken_is_refused(host: Host) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = untouched(host, SettingsRefused, "if_required", port=port)
    assert f"127.0.0.1:{port}" in said
    assert "in use" in said


def test_a_server_that_could_not_start_again_is_not_stopped(host: Host) -> None:
    host.server.enable_tls()
    host.server.reload()
    (host.server.directory / "server.crt").rename(host.server.directory / "gone.crt")
    said = untouched(host, SettingsRefused, "if_required", max_connections=60)
    assert "server.crt" in said
    # What needs no restart is done, with a warning.
    predicted = host.set(check=True, work_mem="8MB")
    done = host.set(work_mem="8MB")
    assert done == predicted
    (warning,) = done["warnings"]
    assert "could not start again" in warning
    assert "server.crt" in warning
    # A right declaration mends it.
    gone = str(host.server.directory / "gone.crt")
    done = host.set(restart="if_required", max_connections=60, ssl_cert_file=gone)
    assert (done["restarted"], "warnings" in done) == (True, False)
    assert host.show("max_connections") == "60"


def test_access_rules_that_the_server_cannot_read_keep_it_from_being_stopped(host: Host) -> None:
    host.server.write_hba("local all all trust\nlocal all all perhaps\n")
    said = untouched(host, SettingsRefused, "if_required", max_connections=60)
    assert "pg_hba.conf, line 2" in said
    assert host.set(work_mem="8MB")["changed"]
    # Rules that cannot match are none of these.
    host.server.write_hba("local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
    assert host.set(restart="if_required", max_connections=60)["restarted"]


def test_a_server_that_does_not_come_up_all_the_same_is_put_back(
    host: Host, new_server: Callable[..., Server], major: int, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = new_server(major).start()
    port = free_port()
    pid = (other.data_dir / "postmaster.pid").read_text().split()[0]
    host.server.write(
        host.server.directory / f".s.PGSQL.{port}.lock", "\n".join([pid, str(other.data_dir), "1", str(port), "", ""])
    )
    error = host.refused(SettingsRefused, restart="if_required", port=port, work_mem="8MB")
    assert "lock file" in str(error)
    assert "The server runs with its old settings." in str(error)
    assert (host.show("work_mem"), host.kept) == ("4MB", [])


def test_what_is_put_back_is_what_has_started(
    host: Host, new_server: Callable[..., Server], major: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that vanishes after the change, and after every question was asked."""
    host.server.enable_tls()
    host.server.reload()
    certificate = host.server.directory / "server.crt"
    second = host.server.write(host.server.directory / "second.crt", certificate.read_text())
    host.set(ssl_cert_file=str(second))
    restart = settings.transaction.service.restart

    def vanishing(found: object) -> None:
        second.unlink(missing_ok=True)
        restart(found)

    monkeypatch.setattr(settings.transaction.service, "restart", vanishing)
    with pytest.raises(SettingsRefused, match=r"second\.crt") as caught:
        host.set(restart="if_required", max_connections=60)
    assert "with which it last started" in str(caught.value)
    assert (host.show("max_connections"), host.show("ssl_cert_file")) == ("50", str(certificate))
    assert host.automatic == []


def test_a_server_that_is_left_down_is_recovered_by_a_right_declaration(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.server.enable_tls()
    host.server.reload()
    pair = {name: host.server.directory / name for name in ("server.crt", "server.key")}
    kept = host.server.write(host.server.directory / "kept.crt", pair["server.crt"].read_text())
    restart = settings.transaction.service.restart

    def vanishing(found: object) -> None:
        pair["server.crt"].unlink(missing_ok=True)
        restart(found)

    monkeypatch.setattr(settings.transaction.service, "restart", vanishing)
    with pytest.raises(SettingsRefused, match="The server is down") as caught:
        host.set(restart="if_required", max_connections=60)
    assert "server.crt" in str(caught.value)
    assert discovery.postmaster(str(host.server.data_dir), host.server.data_dir.stat().st_uid) is None
    monkeypatch.undo()
    with pytest.raises(SettingsRefused, match="The server is down"):
        host.set(restart="if_required", max_connections=60)
    done = host.set(restart="if_required", max_connections=60, ssl_cert_file=str(kept))
    assert done["changed"]
    assert (host.show("max_connections"), host.show("ssl_cert_file")) == ("60", str(kept))
    assert not host.set(restart="if_required", max_connections=60, ssl_cert_file=str(kept))["changed"]
    host.server.write(pair["server.crt"], kept.read_text())
    host.apply(state="absent", restart="if_required")
    assert (host.automatic, host.show("max_connections"), host.kept) == ([], "50", [])


# --- what can refuse, asked before


def test_a_file_that_the_server_cannot_read_is_named_before_anything_is_written(host: Host) -> None:
    automatic = host.server.data_dir / "postgresql.auto.conf"
    os.chown(automatic, 0, 0)
    automatic.chmod(0o600)
    said = untouched(host, HostFailed, work_mem="8MB")
    assert "postgresql.auto.conf" in said
    assert "Nothing was changed." in said


def test_a_directory_that_the_server_cannot_write_is_named(host: Host) -> None:
    host.server.data_dir.chmod(0o500)
    try:
        said = untouched(host, HostFailed, work_mem="8MB")
    finally:
        host.server.data_dir.chmod(0o700)
    assert str(host.server.data_dir) in said


def test_a_full_disk_is_named(major: int, new_server: Callable[..., Server], tmp_path: Path) -> None:
    server = new_server(major)
    wal, away = server.data_dir / "pg_wal", server.directory / "disk"
    with small(away, "64m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        shutil.copytree(wal, away / "pg_wal")
        server.run("true")
        for path in (away, *away.rglob("*")):
            shutil.chown(path, server.os_user)
        shutil.rmtree(wal)
        wal.symlink_to(away / "pg_wal")
        host = Host(server.start(), tmp_path)
        fill(away)
        said = untouched(host, HostFailed, "if_required", max_connections=60)
        server.stop("immediate")
    assert "is full" in said


def test_a_host_without_room_for_its_record_changes_nothing(
    major: int, new_server: Callable[..., Server], small_disk: Path
) -> None:
    host = Host(new_server(major).start(), small_disk)
    fill(small_disk)
    error = host.refused(HostFailed, "if_required", max_connections=60)
    assert "No space left" in str(error)
    assert "Nothing was changed." in str(error)
    assert host.kept == []


def test_what_was_not_written_is_not_put_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system becomes read-only between the question and the answer."""
    from pgops.settings import writing

    def readonly(*_: object) -> None:
        raise HostFailed("The file system is read-only.")

    monkeypatch.setattr(writing.SettingChange, "apply", readonly)
    error = host.refused(SettingsRefused, work_mem="8MB")
    assert "Nothing was changed." in str(error)
    assert host.kept == []


# --- over the network


def test_over_the_network_tls_is_tried(host: Host) -> None:
    target = Target(host="127.0.0.1", port=str(host.server.port), user="postgres")
    params = {**DEFAULTS, "instance": None, "prefix": "/", "settings": {"ssl": True}}
    with pytest.raises(SettingsRefused, match="TLS") as caught:
        settings.converge(target, params, False)
    assert "were restored" in str(caught.value)
    assert host.automatic in ([], ["ssl = 'off'"])
    assert host.show("ssl") == "off"


def test_a_place_over_the_network_is_looked_at_by_the_server(host: Host) -> None:
    host.server.enable_tls()
    host.server.reload()
    target = Target(host="127.0.0.1", port=str(host.server.port), user="postgres")
    params = {**DEFAULTS, "instance": None, "prefix": "/", "settings": {"ssl_cert_file": "/nowhere/x.crt"}}
    with pytest.raises(SettingsRefused, match="No such file or directory"):
        settings.converge(target, params, True)
    with pytest.raises(SettingsRefused, match="Nothing was changed"):
        settings.converge(target, params, False)
    assert host.automatic == []
