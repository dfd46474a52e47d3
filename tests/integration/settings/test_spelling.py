# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A value is in force however the server spells it, and an empty one is a value."""

from __future__ import annotations

from typing import Any

import pytest
from configured import Host

from pgops.errors import SettingsRefused

IMAGINED = "Zürich"
SPELLED: list[tuple[str, Any, str]] = [
    ("random_page_cost", "1.123456789", "1.12346"),
    ("random_page_cost", 1, "1"),
    ("cursor_tuple_fraction", "2e-1", "0.2"),
    ("default_text_search_config", "german", "german"),
    ("log_timezone", "europe/berlin", "Europe/Berlin"),
    ("log_timezone", "utc", "UTC"),
    ("timezone", "europe/berlin", "Europe/Berlin"),
    ("datestyle", "iso, dmy", "ISO, DMY"),
    ("datestyle", "German", "German, DMY"),
    ("wal_compression", True, "pglz"),
    ("wal_compression", "yes", "pglz"),
    ("log_min_messages", "debug", "debug2"),
    ("client_min_messages", "info", "info"),
    ("log_statement", "DDL", "ddl"),
    ("log_duration", "tru", "on"),
    ("log_file_mode", "0640", "0640"),
    ("log_file_mode", 416, "0640"),
    ("log_destination", "stderr,csvlog", "stderr, csvlog"),
    ("log_rotation_age", "1.5h", "90min"),
    ("log_rotation_size", "0x400", "1MB"),
    ("log_min_duration_sample", 0, "0"),
    ("work_mem", "0.5GB", "512MB"),
    ("work_mem", "1048576kB", "1GB"),
    ("work_mem", " 8 MB ", "8MB"),
    ("statement_timeout", "1.5min", "90s"),
    ("autovacuum_vacuum_cost_delay", "2500us", "2500us"),
    ("log_line_prefix", "%m [%p] it's \\ ", "%m [%p] it's \\ "),
    ("search_path", 'app , "$user",x', 'app, "$user", x'),
    ("application_name", IMAGINED, "Z"),
    ("lc_monetary", "POSIX", "POSIX"),
    ("archive_command", "/bin/true", "(disabled)"),
]
SINCE_19 = {"log_min_messages": "debug", "wal_compression": "zstd"}
"""The former is no enum any more; the latter takes the best that the server was built with."""
AT_START: list[tuple[str, Any, str]] = [
    ("wal_buffers", "-1", "512kB"),
    ("cluster_name", IMAGINED, "Z"),
    ("wal_level", "hot_standby", "replica"),
    ("wal_level", "archive", "replica"),
    ("unix_socket_permissions", "0700", "0700"),
    ("archive_mode", "true", "on"),
    ("huge_pages", "no", "off"),
    ("shared_buffers", "0.02GB", "20MB"),
    ("event_source", "", ""),
    ("max_files_per_process", "1e3", "1000"),
]


def together() -> list[dict[str, tuple[Any, str]]]:
    """All of SPELLED in as few runs as can be: by name, each with a value of its own and how that is shown."""
    runs: list[dict[str, tuple[Any, str]]] = []
    for name, value, shown in SPELLED:
        free = next((run for run in runs if name not in run), None)
        if free is None:
            runs.append(free := {})
        free[name] = (value, shown)
    return runs


@pytest.mark.every_major
def test_what_the_server_spells_in_its_own_way_is_in_force(host: Host) -> None:
    for run in together():
        wanted = {name: value for name, (value, _shown) in run.items()}
        spelled = {name: shown for name, (_value, shown) in run.items()}
        if host.server.major >= 19:
            spelled |= {name: shown for name, shown in SINCE_19.items() if name in spelled}
        before = {name: host.show(name) for name in run}
        done = host.set(**wanted)["changes"]  # by the server's names: DateStyle
        assert sorted(map(str.lower, done)) == sorted(f"update setting {name}" for name in run)
        assert {name: str(host.show(name))[: len(shown)] for name, shown in spelled.items()} == spelled
        assert host.set(**wanted)["changes"] == []
        host.apply(state="absent")
        assert (host.automatic, {name: host.show(name) for name in run}) == ([], before)


@pytest.mark.every_major
@pytest.mark.parametrize("these", [AT_START[::2], AT_START[1::2]], ids=["some", "others"])
def test_so_is_what_counts_from_the_start_on(host: Host, these: list[tuple[str, Any, str]]) -> None:
    before = [host.show(name) for name, _value, _shown in these]
    wanted = {name: value for name, value, _shown in these}
    done = host.set(restart="if_required", max_connections=60, **wanted)
    assert (done["restarted"], done["pending"]) == (True, [])
    assert [str(host.show(name)).startswith(shown) for name, _value, shown in these] == [True] * len(these)
    again = host.set(restart="if_required", max_connections=60, **wanted)
    assert (again["changed"], again["pending"]) == (False, [])
    host.apply(state="absent", restart="if_required")
    assert (host.automatic, [host.show(name) for name, _value, _shown in these]) == ([], before)


@pytest.mark.every_major(since=19)
def test_levels_of_kinds_of_processes_are_in_force_in_any_order(host: Host) -> None:
    asked = ("autovacuum:debug1,   Warning", ["archiver:info", "warning", "autovacuum:DEBUG"])
    for value, shown in zip(asked, ("Warning, autovacuum:debug1", "warning, archiver:info, autovacuum:DEBUG")):
        assert host.set(log_min_messages=value)["changed"]
        assert host.show("log_min_messages") == shown
        for same in (value, shown, shown.lower()):
            assert not host.set(log_min_messages=same)["changed"], same
    host.apply(state="absent")
    assert (host.automatic, host.show("log_min_messages")) == ([], "warning")


@pytest.mark.every_major(since=17)
def test_a_size_that_the_server_chooses_waits_for_nothing(host: Host) -> None:
    sizes = ("transaction_buffers", "subtransaction_buffers", "commit_timestamp_buffers")
    assert host.set(restart="if_required", **dict.fromkeys(sizes, 1024))["restarted"]
    done = host.set(restart="if_required", **dict.fromkeys(sizes, 0))
    assert (done["restarted"], done["pending"]) == (True, [])
    assert host.automatic == [f"{name} = '0'" for name in sizes]
    again = host.set(restart="if_required", **dict.fromkeys(sizes, 0))
    assert (again["changed"], again["pending"]) == (False, [])


def test_what_a_file_already_says_in_other_words_is_not_written(host: Host) -> None:
    there = {"default_text_search_config": "pg_catalog.german", "log_timezone": "Europe/Berlin", "timezone": "UTC"}
    there |= {"random_page_cost": "1.10", "wal_compression": "on", "datestyle": "ISO, DMY"}
    host.server.configure(there)
    host.server.reload()
    said = {"default_text_search_config": "german", "log_timezone": "europe/berlin", "timezone": "utc"}
    said |= {"random_page_cost": 1.1, "datestyle": "iso,dmy"}
    meant, other = ("zstd", "pglz") if host.server.major >= 19 else ("pglz", "zstd")
    assert host.set(**said, wal_compression=meant)["changes"] == []
    if host.server.major >= 19:
        assert host.set(wal_compression=other, check=True)["changes"] == ["update setting wal_compression"]


# --- empty is a value


@pytest.mark.every_major
@pytest.mark.parametrize("value", ["", []])
def test_an_empty_value_is_in_force(host: Host, value: Any) -> None:
    empty = {"search_path": value, "log_destination": value, "local_preload_libraries": value}
    host.server.configure({"local_preload_libraries": "", "temp_tablespaces": ""})
    predicted = host.set(check=True, **empty)
    done = host.set(**empty)
    assert done == predicted
    assert done["changes"] == ["update setting search_path", "update setting log_destination"]
    assert host.show("search_path") in ("", '""')
    assert host.show("log_destination") == ""
    assert not host.set(**empty)["changed"]
    host.apply(state="absent")
    assert (host.automatic, host.show("log_destination")) == ([], "stderr")


@pytest.mark.every_major
def test_a_server_that_listens_nowhere(host: Host) -> None:
    assert host.set(restart="if_required", listen_addresses="")["restarted"]
    assert host.show("listen_addresses") == ""
    assert not host.set(restart="if_required", listen_addresses="")["changed"]
    host.apply(state="absent", restart="if_required")
    assert host.show("listen_addresses") == "127.0.0.1"


@pytest.mark.every_major
def test_a_list_of_libraries_is_emptied_though_a_file_has_some(host: Host) -> None:
    host.server.configure({"shared_preload_libraries": "auto_explain", "session_preload_libraries": "auto_explain"})
    host.server.stop()
    host.server.start()
    wanted = {"shared_preload_libraries": [], "session_preload_libraries": ""}
    given = {"settings": wanted, "lists": "replace", "restart": "if_required"}
    predicted = host.apply(check=True, **given)
    done = host.apply(**given)
    assert {**done, "sessions_ended": 0} == {**predicted, "sessions_ended": 0}
    assert [host.show(name) for name in wanted] == ["", ""]
    assert not host.apply(**given)["changed"]
    host.apply(state="absent", restart="if_required")
    assert host.automatic == []
    assert [host.show(name) for name in wanted] == ["auto_explain", "auto_explain"]


def test_without_a_socket_the_server_could_not_be_reached(host: Host) -> None:
    error = host.refused(SettingsRefused, restart="if_required", unix_socket_directories="")
    assert "unix_socket_directories" in str(error)


# --- what was asked is probed, removals too


def test_a_removal_below_which_the_server_takes_nothing_is_undone(host: Host) -> None:
    host.set(log_timezone="UTC")
    with (host.server.data_dir / "postgresql.conf").open("a") as file:
        file.write("log_timezone = 'Middle/Earth'\n")
    error = host.refused(SettingsRefused, log_timezone=None)
    assert "log_timezone" in str(error)
    assert host.show("log_timezone") == "UTC"
