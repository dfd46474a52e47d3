# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to change in a server's settings, what is put back, and the file that ALTER SYSTEM writes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import Conflict, InvalidInput, Managed, Unsupported
from pgops.server import service
from pgops.server.service import Service
from pgops.settings import autoconf, originals, planning, transaction
from pgops.settings.originals import Original
from pgops.settings.parameters import Parameter
from pgops.settings.planning import Desired, SettingsPlan
from pgops.settings.present import Current, Entry, Running

AUTO = "/data/postgresql.auto.conf"
PARAMETERS = [
    Parameter("work_mem", "integer", "kB", "64", "2147483647"),
    Parameter("max_connections", "integer", None, "1", "262143", context="postmaster"),
    Parameter("shared_preload_libraries", "string", context="postmaster"),
    Parameter("log_destination", "string", context="sighup"),
]
RUNS = {"work_mem": "4096", "max_connections": "100", "shared_preload_libraries": "", "log_destination": "stderr"}
SERVER = Current(
    running={
        **{one.name: Running(one, RUNS[one.name], default=RUNS[one.name]) for one in PARAMETERS},
        "data_directory": Running(Parameter("data_directory", "string"), "/data"),
    },
    version_num=170004,
)
LIBRARIES = st.lists(st.sampled_from(["a", "b", "c", "d e"]), unique=True)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "work_mem": st.one_of(st.none(), st.integers(64, 10_000).map(lambda size: f"{size}kB")),
        "max_connections": st.one_of(st.none(), st.integers(1, 500).map(str)),
        "shared_preload_libraries": LIBRARIES.map(tuple),
    },
)


def applied(current: Current, made: SettingsPlan) -> Current:
    """The server after a plan without a restart."""
    entries = list(current.entries)
    for setting in made.settings:
        name = setting.parameter.name
        entries = [entry for entry in entries if not (entry.name == name and entry.automatic)]
        if setting.text is not None:
            entries.append(Entry(name, setting.text, AUTO, len(entries) + 1))
    return replace(current, entries=tuple(entries))


def with_lines(*lines: tuple[str, str], file: str = AUTO) -> Current:
    return replace(
        SERVER, entries=tuple(Entry(name, value, file, place) for place, (name, value) in enumerate(lines))
    )


@given(VALUES, VALUES)
def test_what_was_planned_once_is_not_planned_again(first, second):
    there = applied(SERVER, planning.plan(SERVER, Desired(first)))
    done = applied(there, planning.plan(there, Desired(second)))
    assert planning.plan(done, Desired(second)).settings == []


@given(VALUES, VALUES)
def test_what_was_changed_is_put_back(first, second):
    there = applied(SERVER, planning.plan(SERVER, Desired(first)))
    made = planning.plan(there, Desired(second))
    names = [one.parameter.name for one in made.settings]
    present = {name: entry.value if entry else None for name in names for entry in [there.entry(name)]}
    recorded = originals.after({}, present, {one.parameter.name: one.text for one in made.settings})
    done = applied(there, made)
    back = applied(done, planning.removal(done, recorded, restart=False))
    for name in names:
        entry = back.entry(name)
        assert (entry.value if entry else None) == present[name]


def test_a_list_that_cannot_be_emptied_is_named_with_its_line():
    there = with_lines(("shared_preload_libraries", "a"), file="/etc/postgresql.conf")
    with pytest.raises(Conflict, match="line 0 sets it to a"):
        planning.plan(there, Desired({"shared_preload_libraries": ()}, replace_lists=True))
    ours = with_lines(("shared_preload_libraries", "a"))
    (setting,) = planning.plan(ours, Desired({"shared_preload_libraries": ()}, replace_lists=True)).settings
    assert setting.text is None


def test_lists_other_than_of_libraries_are_as_declared():
    there = with_lines(("log_destination", "stderr, csvlog"))
    (setting,) = planning.plan(there, Desired({"log_destination": ("syslog",)})).settings
    assert (setting.text, setting.words) == ("syslog", None)


def test_a_manager_of_the_settings_is_left_alone():
    managed = replace(SERVER, manager="Patroni")
    assert not planning.plan(managed, Desired({"work_mem": "4MB"})).plan
    with pytest.raises(Managed, match="patronictl edit-config --pg work_mem=8MB"):
        planning.plan(managed, Desired({"work_mem": "8MB"}))


def test_what_waited_before_is_part_of_the_restart():
    waits = replace(SERVER.running["max_connections"], pending=True)
    there = replace(with_lines(("max_connections", "200")), running={**SERVER.running, "max_connections": waits})
    made = planning.plan(there, Desired({"shared_preload_libraries": ("a",)}, restart=True))
    assert made.plan.result()["changes"] == ["update setting shared_preload_libraries", "restart server"]
    assert made.restarts[0].after == {"max_connections": "200", "shared_preload_libraries": "a"}
    assert not planning.plan(there, Desired({"work_mem": "8MB"}, restart=True)).restarts


def test_secrets_are_not_shown():
    secret = Parameter("primary_conninfo", "string", context="sighup")
    there = replace(SERVER, running={**SERVER.running, secret.name: Running(secret, "password=old")})
    made = planning.plan(there, Desired({secret.name: "password=new"}))
    assert "password" not in str(made.plan.result())
    assert made.settings[0].text == "password=new"
    with pytest.raises(Managed) as managed:
        planning.plan(replace(there, manager="Patroni"), Desired({secret.name: "password=new"}))
    assert "password" not in str(managed.value)
    said = 'LOG:  parameter "primary_conninfo" changed to "password=new"\nFATAL:  no'
    error = transaction._refused(made, Unsupported("It ended."), said, "were restored")
    assert "password" not in str(error)
    assert "FATAL:  no" in str(error)


def test_only_root_restarts_a_unit(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 26)
    service.check_rights(Service("/data", "/bin", 26))
    for other in (Service("/data", "/bin", 26, unit="postgresql.service"), Service("/data", "/bin", 27)):
        with pytest.raises(Unsupported, match="Only root may restart"):
            service.check_rights(other)


def with_standby() -> Current:
    there = with_lines(("max_connections", "150"))
    return replace(there, in_recovery=True, primary={"max_connections": 150})


def test_a_standby_waits_for_its_primary():
    standby = replace(SERVER, in_recovery=True, primary={"max_connections": 100})
    made = planning.plan(standby, Desired({"max_connections": "50", "work_mem": "8MB"}))
    assert [one.parameter.name for one in made.settings] == ["work_mem"]
    assert made.deferred[0]["primary"] == 100
    assert planning.plan(standby, Desired({"max_connections": "150"})).settings
    gone = planning.removal(with_standby(), {"max_connections": Original(None, "150")}, restart=False)
    assert (gone.settings, gone.deferred[0]["name"]) == ([], "max_connections")
    lowered = replace(standby, primary={"max_connections": 50})
    assert planning.plan(lowered, Desired({"max_connections": "50"})).settings


MODE = Parameter("archive_mode", "enum", choices=("always", "on", "off"), context="postmaster")
COMMAND = Parameter("archive_command", "string", context="sighup")


@pytest.mark.parametrize(
    ("mode", "library", "restart", "kept"),
    [
        ("on", "", False, ("Archive_Command",)),
        ("on", "", True, ()),
        ("always", "", True, ("Archive_Command",)),  # somebody else's since, so that no restart switches it off
        ("on", "of others", False, ()),
    ],
)
def test_a_command_stays_while_wal_would_pile_up(mode, library, restart, kept):
    there = with_lines(("archive_mode", mode), ("archive_command", "cp"), ("archive_library", library))
    running = {"archive_mode": Running(MODE, mode, default="off"), "archive_command": Running(COMMAND, "cp")}
    there = replace(there, running={**SERVER.running, **running})
    recorded = {"archive_mode": Original(None, "on"), "Archive_Command": Original("", "cp")}
    made = planning.removal(there, recorded, restart)
    assert made.kept == kept
    assert sorted(made.originals) == (sorted(recorded) if kept else [])
    assert bool(made.restarts) == (restart and not kept)
    again = planning.removal(applied(there, made), made.originals, restart)
    assert (again.kept, again.settings, again.originals) == (kept, [], made.originals)


def test_a_command_that_is_taken_away_before_the_restart_is_warned_of():
    there = with_lines(("archive_mode", "on"), ("archive_command", "cp"))
    running = {"archive_mode": Running(MODE, "on", default="off"), "archive_command": Running(COMMAND, "cp")}
    there = replace(there, running={**SERVER.running, **running})
    both = {"archive_mode": None, "archive_command": None}
    assert planning.plan(there, Desired(both)).warnings == (planning.PILES_UP,)
    assert planning.plan(there, Desired({"archive_command": ""})).warnings == (planning.PILES_UP,)
    assert not planning.plan(there, Desired(both, restart=True)).warnings
    assert not planning.plan(there, Desired({"archive_mode": None, "archive_command": "mv"})).warnings
    assert not planning.plan(there, Desired({"work_mem": "8MB"})).warnings


def test_unknown_parameters_are_those_of_libraries():
    assert planning.plan(SERVER, Desired({"auto_explain.log_timing": "off"})).settings
    with pytest.raises(InvalidInput, match="PostgreSQL 17 has no setting"):
        planning.plan(SERVER, Desired({"log_timing": "off"}))


# What was there before


def test_the_first_value_is_the_one_to_go_back_to():
    first = originals.after({}, {"a": "1"}, {"a": "2"})
    assert originals.after(first, {"a": "2"}, {"a": "3"}) == {"a": Original("1", "3")}
    assert originals.after(first, {"a": "by hand"}, {"a": "3"}) == {"a": Original("by hand", "3")}


def test_capabilities_keep_their_own(tmp_path):
    path = str(tmp_path / "before.json")
    originals.write(path, "settings", {"a": Original(None, "1")})
    originals.write(path, "statements", {"b": Original("x", "y")})
    originals.write(path, "settings", {})
    assert originals.read(path, "settings") == {}
    assert originals.read(path, "statements") == {"b": Original("x", "y")}
    originals.write(path, "statements", {})
    assert not (tmp_path / "before.json").exists()


# The file


def test_lines_of_others_stay_as_they_are():
    text = "# Do not edit\nwork_mem = '8MB'\nWORK_MEM = '9MB'\nport='1'\nx.y = 'it''s'"
    made = autoconf.replaced(text, {"work_mem": None, "x.Y": "a'b\\c"})
    assert made == "# Do not edit\nport='1'\nx.Y = 'a''b\\\\c'\n"


@given(st.dictionaries(st.sampled_from(["a", "b", "c.d"]), st.one_of(st.none(), st.text("ab'\\ =", max_size=5))))
def test_putting_in_twice_is_as_once(values):
    once = autoconf.replaced("keep = '1'\n", values)
    assert autoconf.replaced(once, values) == once
    assert once.startswith("keep = '1'\n")
