# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a restored server is configured to do, and not to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgops.recovery import configuring
from pgops.recovery.configuring import Served
from pgops.settings import autoconf

DEBIAN = [
    {"name": "config_file", "path": "/etc/postgresql/17/main/postgresql.conf", "file": "configuration/a"},
    {"name": "hba_file", "path": "/etc/postgresql/17/main/pg_hba.conf", "file": "configuration/b"},
    {"name": "", "path": "/etc/postgresql/17/main/conf.d/own.conf", "file": "configuration/c"},
    {"name": "", "path": "/srv/shared.conf", "file": "configuration/d"},
]
CONF = """\
data_directory = '/var/lib/postgresql/17/main'
hba_file='/etc/postgresql/17/main/pg_hba.conf'
  External_PID_File '/var/run/postgresql/17-main.pid'
# data_directory is above
work_mem = 4MB
include_dir = 'conf.d'
"""


def test_configuration_files_get_their_usual_names_in_a_copy() -> None:
    assert configuring.placed(DEBIAN) == {
        "configuration/a": "postgresql.conf",
        "configuration/b": "pg_hba.conf",
        "configuration/c": "conf.d/own.conf",
    }
    assert configuring.placed([]) == {}


def test_a_copy_does_not_name_the_files_of_its_original(tmp_path: Path) -> None:
    backup, data = tmp_path / "backup", tmp_path / "data"
    (backup / "configuration").mkdir(parents=True)
    data.mkdir()
    for name, text in (("a", CONF), ("b", "local all all peer\n"), ("c", "port = 5433\n"), ("d", "")):
        (backup / "configuration" / name).write_text(text)
    lost = configuring.adopt(str(backup), DEBIAN, Served(str(data), copy=True))
    assert lost == ["/srv/shared.conf"]
    active = [line for line in (data / "postgresql.conf").read_text().splitlines() if not line.startswith("#")]
    assert active == ["work_mem = 4MB", "include_dir = 'conf.d'"]
    assert (data / "conf.d" / "own.conf").read_text() == "port = 5433\n"
    assert (data / "pg_hba.conf").read_text() == "local all all peer\n"


def test_a_copy_archives_nothing_and_acts_on_nobody() -> None:
    settings = configuring.own_settings(Served("/r/d", copy=True))
    assert (settings["archive_mode"], settings["archive_command"], settings["archive_library"]) == ("off", "", "")
    assert settings["max_logical_replication_workers"] == "0"
    assert (settings["listen_addresses"], settings["unix_socket_directories"]) == ("", "/r/d")
    reached = configuring.own_settings(Served("/r/d", copy=True, port=5444))
    assert (reached["listen_addresses"], reached["port"]) == ("localhost", "5444")


def test_a_server_in_its_place_keeps_its_own_settings() -> None:
    assert configuring.own_settings(Served("/d", copy=False)) == {}


def test_settings_of_former_recoveries_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / autoconf.NAME
    path.write_text("work_mem = '8MB'\nrecovery_target_name = 'old'\nrestore_command = 'own'\n")
    (tmp_path / "standby.signal").touch()
    served = Served(str(tmp_path), copy=False)
    settings = {"recovery_target_name": "", "recovery_target_time": "2026-11-29 15:00:00+00"}
    former = configuring.write(served, {"restore_command": "ours", **settings})
    assert former == "own"
    assert list(autoconf.values(path.read_text()).items()) == [
        ("work_mem", "8MB"),
        ("restore_command", "ours"),
        ("recovery_target_name", ""),
        ("recovery_target_time", "2026-11-29 15:00:00+00"),
    ]
    assert (tmp_path / "recovery.signal").exists()
    assert not (tmp_path / "standby.signal").exists()
    configuring.settle(served, former)
    assert autoconf.values(path.read_text()) == {"work_mem": "8MB", "restore_command": "own"}
    assert configuring.write(Served(str(tmp_path), copy=True), settings) is None


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("include_dir = 'conf.d'", False),
        ("include_dir 'there'", True),
        ("include '/etc/absent.conf'  # of the administrator's", False),
        ("include = there", True),
        ("include_if_exists = 'absent'", True),
        ("data_directory = '/var/lib/postgresql/17/main'\t\t# use data in another directory", False),
        ("hba_file='/etc/postgresql/17/main/pg_hba.conf'", False),
        ("data_directory_mode = 0700", True),
        ("shared_buffers = 128MB", True),
    ],
)
def test_a_copy_reads_no_file_of_its_original_and_none_that_is_not_there(line: str, stays: bool) -> None:
    text = configuring.detached(f"{line}\nwork_mem = 4MB\n", lambda path: path == "there")
    assert text == f"{'' if stays else '#pgops restore: '}{line}\nwork_mem = 4MB\n"


def test_what_was_just_flushed_is_not_flushed_file_by_file_when_the_recovery_starts(tmp_path: Path) -> None:
    options = configuring.recovery_options(Served(str(tmp_path), copy=True))
    assert options["recovery_init_sync_method"] == "syncfs"
