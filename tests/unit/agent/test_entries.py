# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may read and write the agent's files, as docs/security.md says, and whose password is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import artifact
import pytest

from pgops import sources
from pgops.agent import entries
from pgops.agent.declared import Desired, Instance
from pgops.host.files import Directory, Entry, File, Found, Link
from pgops.instance.configuration import Configuration

BUNDLE = sources.gather(str(artifact.LIBRARY), (".py",))
MINE = "-- collector: mine\n-- metric: my_metric\nSELECT 1 AS my_metric\n"
HERE = Instance(Configuration("main", "shop", "db1/main"), owner="postgres", owner_group="dba")
HOST = Desired((HERE,), BUNDLE, user="agent", group="agents")
DATA = "/var/lib/pgops/main"


def shown(found: list[Entry]) -> dict[str, tuple[str | None, str | None, int]]:
    """Owner, group and mode of files and directories, by their paths."""
    return {one.path: (one.owner, one.group, one.mode) for one in found if isinstance(one, (Directory, File))}


def linked(found: list[Entry]) -> dict[str, str]:
    """Where links lead."""
    return {one.path: one.to for one in found if isinstance(one, Link)}


def test_what_instances_share_is_roots() -> None:
    assert shown(entries.shared_directories(HOST)) == dict.fromkeys(
        ("/usr/local/lib/pgops", "/usr/local/lib/pgops/versions", "/etc/pgops", "/var/lib/pgops"),
        ("root", "root", 0o755),
    )
    assert linked(entries.shared_files(HOST)) == {
        "/usr/local/lib/pgops/current": f"versions/{HOST.program.version}",
        "/usr/local/bin/pgops": "/usr/local/lib/pgops/current/bin/pgops",
    }
    assert shown(entries.shared_files(HOST)) == {}


def test_the_program_that_archives_is_there_where_an_instance_has_a_repository() -> None:
    archiving = replace(HERE, configuration=replace(HERE.configuration, repository="/srv/repository"))
    archiver, *_links = entries.shared_files(replace(HOST, instances=(HERE, archiving), python="/usr/bin/python3"))
    assert shown([archiver]) == {"/usr/local/lib/pgops/archiver": ("root", "root", 0o755)}
    assert isinstance(archiver, File)
    assert archiver.content.startswith(b"#!/usr/bin/python3 -IS\n")


def test_who_may_archive_is_registered_before_the_settings_change() -> None:
    data = {"/srv/pg": "/data/pg", "/srv/pg/pg_wal": "/wal/pg", "/fast": "/data/fast"}
    there = replace(HERE.configuration, repository="/backup/shop", real_paths=data)
    (file,) = entries.registration(HOST, replace(HERE, configuration=there), None)
    assert isinstance(file, File)
    assert shown([file]) == {"/etc/pgops/main/archiving": ("root", "root", 0o644)}
    assert file.content == b"/srv/pg\n/backup/shop\n"
    # Its settings still name the repository of before.
    other = replace(HERE, configuration=replace(there, repository="/new/shop"))
    (later,) = entries.registration(HOST, other, file.as_found(None))
    assert isinstance(later, File)
    assert later.content == b"/srv/pg\n/new/shop\n/backup/shop\n"
    assert entries.registration(HOST, other, later.as_found(None)) == [later]


@pytest.mark.parametrize("without", [{"repository": ""}, {"real_paths": {}}])
def test_nothing_is_registered_of_a_server_that_is_not_known(without: dict[str, Any]) -> None:
    data = {"/srv/pg": "/data/pg", "/srv/pg/pg_wal": "/wal/pg"}
    there = replace(HERE.configuration, **{"repository": "/backup/shop", "real_paths": data, **without})
    assert entries.registration(HOST, replace(HERE, configuration=there), None) == []


def test_the_directories_of_an_instance_are_each_of_who_writes_there() -> None:
    assert shown(entries.directories(HOST, HERE)) == {
        "/etc/pgops/main": ("root", "root", 0o755),
        "/etc/pgops/main/collectors": ("root", "agents", 0o750),
        DATA: ("root", "root", 0o755),
        f"{DATA}/state": ("agent", "agents", 0o750),
        f"{DATA}/keeping": ("postgres", "dba", 0o750),
        f"{DATA}/inspection": ("postgres", "agents", 0o750),
    }
    remote = replace(HERE, owner="", owner_group="")
    assert f"{DATA}/state" in shown(entries.directories(HOST, remote))
    assert f"{DATA}/keeping" not in shown(entries.directories(HOST, remote))


def test_below_another_prefix_all_is_of_who_runs_it() -> None:
    demo = replace(HOST, prefix="/srv/demo")
    found = [
        *entries.shared_directories(demo),
        *entries.directories(demo, HERE),
        *entries.instance_files(demo, replace(HERE, password="secret"), None, None),
        entries.configuration_file(demo, HERE),
    ]
    assert {(owner, group) for owner, group, _mode in shown(found).values()} == {(None, None)}
    assert "/srv/demo/usr/local/bin" in shown(found)
    assert all(path.startswith("/srv/demo/") for path in shown(found))


def test_a_users_collectors_are_read_by_the_agent_and_by_nobody_else() -> None:
    own = replace(HOST, collectors=(MINE,))
    (collector,) = entries.instance_files(own, HERE, None, None)
    assert shown([collector]) == {"/etc/pgops/main/collectors/mine.sql": ("root", "agents", 0o640)}
    assert isinstance(collector, File)
    assert (collector.content, collector.secret) == (MINE.encode(), False)


def test_a_collector_with_a_password_is_not_shown() -> None:
    text = MINE.replace("1", "(SELECT x FROM dblink('host=a password=hunter2', 'SELECT 1') AS t (x int))")
    (collector,) = entries.instance_files(replace(HOST, collectors=(text,)), HERE, None, None)
    assert isinstance(collector, File)
    assert collector.secret


def test_the_configuration_is_roots_and_holds_no_secret() -> None:
    found = entries.configuration_file(HOST, replace(HERE, password="secret"))
    assert shown([found]) == {"/etc/pgops/main/agent.json": ("root", "root", 0o644)}
    assert found.content == HERE.configuration.text().encode()
    assert b"secret" not in found.content


def passfile(given: str | None, kept: str | None, drawn: str | None, host: str = "") -> File | None:
    """The password file of an instance whose module has one, whose host has one, or for which one was drawn."""
    one = replace(HERE, password=given, configuration=replace(HERE.configuration, host=host, database="ops"))
    there = Found("file", 0o600, "agent", "agents", f"*:*:ops:pgops:{kept}\n".encode()) if kept else None
    found = entries.instance_files(HOST, one, there, drawn)
    assert len(found) <= 1
    return found[0] if found else None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("given", "kept", "drawn", "host", "line"),
    [
        ("new", None, None, "", "*:*:ops:pgops:new\n"),
        ("new", "old", "drawn", "", "*:*:ops:pgops:new\n"),
        (None, "old", "drawn", "", "*:*:ops:pgops:old\n"),
        (None, None, "drawn", "", None),  # only a remote instance needs one in any case
        (None, None, None, "", None),
        (None, None, "drawn", "db9", "*:*:*:pgops:drawn\n"),
        (None, "old", "drawn", "db9", "*:*:*:pgops:old\n"),
        ("new", "old", "drawn", "db9", "*:*:*:pgops:new\n"),
    ],
)
def test_a_password_is_kept_until_there_is_a_new_one(
    given: str | None, kept: str | None, drawn: str | None, host: str, line: str | None
) -> None:
    made = passfile(given, kept, drawn, host)
    assert (made.content.decode() if made else None) == line
    if made:
        assert shown([made]) == {"/etc/pgops/main/pgpass": ("agent", "agents", 0o600)}
        assert made.secret


def test_node_exporter_reads_a_file_of_the_agent_through_a_link() -> None:
    assert entries.exported(HOST, HERE, None) == []
    one = replace(HERE, configuration=replace(HERE.configuration, textfile_directory="/srv/textfiles"))
    fresh = entries.exported(HOST, one, None)
    assert shown(fresh) == {
        f"{DATA}/export": ("agent", "agents", 0o755),
        f"{DATA}/export/pgops.prom": ("agent", "agents", 0o644),
    }
    assert linked(fresh) == {"/srv/textfiles/pgops_main.prom": f"{DATA}/export/pgops.prom"}
    there = Found("file", 0o644, "agent", "agents", b"pgops_up 1\n")
    contents = [
        one.content for made in (fresh, entries.exported(HOST, one, there)) for one in made if isinstance(one, File)
    ]
    assert contents == [b"", b"pgops_up 1\n"]
