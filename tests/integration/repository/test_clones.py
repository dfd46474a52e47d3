# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A standby that was cloned from a deployed primary has its settings, but nothing was changed on its host: what they
were is known all the same, and the program that archives stays as long as a server names it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import Host
from deploying import install, target
from servers import Server

from pgops.errors import Conflict
from pgops.instance.layout import Layout
from pgops.settings import deploy as settings

ASKED = {"settings": {}, "lists": "merge", "state": "present", "restart": "if_required", "after_primary": False}


def archive_settings(server: Server) -> dict[str, object]:
    names = ("archive_mode", "archive_command", "archive_timeout", "work_mem")
    found = server.psql(f"SELECT name, setting FROM pg_file_settings WHERE name IN {names} AND applied")
    return dict(line.split("|", 1) for line in found.splitlines())


def set_work_mem(host: Host, **other: object) -> dict[str, object]:
    """What pg_ops_settings returns."""
    place = {"instance": host.params.get("instance", "main"), "prefix": str(host.prefix)}
    asked = {**ASKED, **place, "settings": {"work_mem": "8MB"}, **other}
    return settings.converge(target(host.server), asked, False)


@pytest.fixture(name="clone")
def _clone(make: Callable[..., Host], keep: Callable[[Server], Server]) -> Host:
    """As on a host of its own: nothing is recorded there under its name."""
    host = make(settings={"archive_timeout": "1234"})
    host.apply()
    set_work_mem(host)
    return Host(keep(host.server.standby()).start(), host.base, host.prefix, {"instance": "clone"})


def test_what_the_settings_were_is_known_of_a_clone(clone: Host) -> None:
    assert not clone.apply()["changed"]
    assert not set_work_mem(clone)["changed"]
    before = Layout("clone", str(clone.prefix)).before
    assert not os.path.exists(before)
    predicted = clone.apply(check=True, state="absent")
    gone = clone.apply(state="absent")
    assert gone["changes"] == predicted["changes"]
    set_work_mem(clone, settings={}, state="absent")
    assert archive_settings(clone.server) == {"archive_timeout": "1234"}
    assert not (clone.server.data_dir / "pgops.originals.json").exists()
    again = clone.apply(state="absent")
    assert (again["changed"], os.path.exists(before)) == (False, False)


@pytest.mark.parametrize(("access", "mode"), [((), 0o600), (("--allow-group-access",), 0o640)])
def test_who_may_read_the_data_directory_may_read_the_record(
    make: Callable[..., Host], access: tuple[str, ...], mode: int
) -> None:
    """As who makes backups of its files: a single one that cannot be read ends them."""
    host = make(initdb=access)
    host.apply()
    record = host.server.data_dir / "pgops.originals.json"
    there = (record, host.server.data_dir / "postgresql.auto.conf")
    assert [stat.S_IMODE(path.stat().st_mode) for path in there] == [mode, mode]
    assert {path.owner() for path in there} == {host.server.os_user}


def test_a_clone_that_is_changed_later_knows_what_was_before(clone: Host) -> None:
    clone.apply(timeout=300)
    clone.apply(state="absent")
    assert "archive_command" not in archive_settings(clone.server)
    assert archive_settings(clone.server)["archive_timeout"] == "1234"


def test_the_program_is_not_removed_while_a_server_names_it(root: Path, clone: Host) -> None:
    """Though nothing is known of what its settings were, as of one that was cloned from a server set up by hand."""
    (root / "other").mkdir()
    host = Host(clone.server, clone.base, root / "other")
    place = {"socket_directory": str(host.server.socket_dir), "port": host.server.port, "prefix": str(host.prefix)}
    install(**place, python=sys.executable, repository=str(host.repository))
    assert Path(Layout("main", str(host.prefix)).registration).read_text().startswith(f"{host.server.data_dir}\n")
    host.server.value(f"ALTER SYSTEM SET archive_command = $${host.program} push$$")
    predicted = install(check=True, state="absent", **place)
    assert "archive_command of main" in predicted["warnings"][0]
    for running in (True, False):
        if not running:
            host.server.stop()
        with pytest.raises(Conflict, match=r"archive_command of main .* runs") as caught:
            install(state="absent", **place)
        assert "pgops.fleet.remove" in caught.value.hint
        assert host.program.exists()
        assert Path(Layout("main", str(host.prefix)).registration).exists()
    host.server.start()
    host.server.value("ALTER SYSTEM RESET archive_command")
    install(state="absent", **place)
    assert not host.program.exists()


def test_a_repository_is_registered_as_the_command_names_it(root: Path, make: Callable[..., Host]) -> None:
    """However it is written: the program compares texts."""
    host = make()
    written = f"{host.base}//shop/."
    place = {"socket_directory": str(host.server.socket_dir), "port": host.server.port, "prefix": str(root / "other")}
    (root / "other").mkdir()
    install(**place, python=sys.executable, repository=written)
    registered = Path(Layout("main", str(root / "other")).registration).read_text()
    command = str(host.apply(check=True, repository=written)["settings"]["archive_command"])
    assert registered == f"{host.server.data_dir}\n{host.repository}\n"
    assert f" push {host.repository} " in command
