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
from pgops.settings.parameters import Parameter, elements, joined
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
DESTINATIONS = st.lists(st.sampled_from(["stderr", "csvlog", "syslog"]), unique=True)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "work_mem": st.one_of(st.none(), st.integers(64, 10_000).map(lambda size: f"{size}kB")),
        "max_connections": st.one_of(st.none(), st.integers(1, 500).map(str)),
        "shared_preload_libraries": LIBRARIES.map(tuple),
        "log_destination": st.one_of(st.none(), st.just(""), DESTINATIONS.map(tuple), DESTINATIONS.map(",".join)),
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


@given(LIBRARIES, LIBRARIES, LIBRARIES)
def test_a_list_that_is_replaced_is_as_declared_whatever_a_file_says_and_goes_back(below, there, declared):
    name = "shared_preload_libraries"
    lines = [Entry(name, joined(below), "/etc/postgresql.conf", 1)] if below else []
    lines += [Entry(name, joined(there), AUTO, 2)] if there else []
    found = replace(SERVER, entries=tuple(lines))
    made = planning.plan(found, Desired({name: tuple(declared)}, replace_lists=True))
    done = applied(found, made)
    assert elements(done.configured(name) or "") == tuple(declared)
    assert planning.plan(done, Desired({name: tuple(declared)}, replace_lists=True)).settings == []
    recorded = originals.after(
        {}, {name: found.automatic(name)}, {one.parameter.name: one.text for one in made.settings}
    )
    back = applied(done, planning.removal(done, recorded, restart=False))
    assert back.automatic(name) == found.automatic(name)


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


@pytest.mark.parametrize(
    ("below", "before", "ours", "present", "back"),
    [
        # What was added is taken out, and what others have added since stays.
        (None, "a", "a, b", "a, b", "a"),
        (None, "a", "a, b", "a, b, c", "a, c"),
        (None, "a", "a, b", "c, b, a", "c, a"),
        (None, "a, b", "a, b", "a, b", None),
        # There was no line of ALTER SYSTEM, and there is none again where nothing else remains.
        (None, None, "b", "b", "gone"),
        (None, None, "b", "b, c", "c"),
        ("a", None, "a, b", "a, b", "gone"),
        ("a", None, "a, b", "a, b, c", "a, c"),
        # There was one, though it said no more than the file.
        ("a", "a", "a, b", "a, b", "a"),
    ],
)
def test_of_a_list_only_what_was_added_is_taken_out(below, before, ours, present, back):
    name = "shared_preload_libraries"
    lines = [Entry(name, below, "/etc/postgresql.conf", 3)] if below else []
    there = replace(SERVER, entries=(*lines, Entry(name, present, AUTO, 2)))
    made = planning.removal(there, {name: Original(before, ours)}, restart=False)
    if back is None:
        assert made.settings == []
    else:
        (setting,) = made.settings
        assert setting.text == (None if back == "gone" else back)
        assert setting.words == (None if back == "gone" else tuple(back.split(", ")))
    assert made.warnings == ()


def test_a_list_of_which_nothing_is_left_is_empty_though_a_file_has_some():
    name = "shared_preload_libraries"
    there = replace(SERVER, entries=(Entry(name, "a", "/etc/postgresql.conf", 3), Entry(name, "b", AUTO, 2)))
    (setting,) = planning.removal(there, {name: Original(None, "a, b")}, restart=False).settings
    assert (setting.text, setting.by_file) == ("", True)
    # What we emptied ourselves goes back to what the file says.
    ours = replace(there, entries=(there.entries[0], Entry(name, "", AUTO, 2)))
    (setting,) = planning.removal(ours, {name: Original(None, "")}, restart=False).settings
    assert (setting.text, setting.by_file) == (None, False)


def test_what_somebody_else_has_changed_since_is_told_and_not_touched():
    there = with_lines(("work_mem", "9MB"), ("max_connections", "150"))
    recorded = {name: Original(None, "8MB") for name in ("work_mem", "log_destination", "shared_preload_libraries")}
    made = planning.removal(there, {**recorded, "max_connections": Original(None, "150")}, restart=False)
    assert made.warnings == tuple(f"{name} was changed by somebody else and is not touched." for name in recorded)
    assert [change.line for change in made.written] == ["remove setting max_connections"]
    (setting,) = planning.removal(
        with_lines(("work_mem", "8192kB")), {"work_mem": Original("4MB", "8MB")}, restart=False
    ).settings
    assert setting.text == "4MB"


def test_a_library_that_is_not_on_the_server_is_named():
    there = replace(SERVER, missing={"shared_preload_libraries": ("b", "d")})
    with pytest.raises(InvalidInput, match="shared_preload_libraries: library b was not found"):
        planning.plan(there, Desired({"shared_preload_libraries": ("a", "b", "c")}))
    with pytest.raises(InvalidInput, match="library d, b was not found"):
        planning.plan(there, Desired({"shared_preload_libraries": "d, b"}))
    assert planning.plan(there, Desired({"shared_preload_libraries": ("a",)})).settings


def test_libraries_are_added_to_those_that_are_there_unless_the_list_is_replaced():
    there = with_lines(("shared_preload_libraries", "a, b"))
    for declared in (("c", "a"), "c, a"):
        (added,) = planning.plan(there, Desired({"shared_preload_libraries": declared})).settings
        assert (added.text, added.words) == ("a, b, c", ("a", "b", "c"))
        (replaced,) = planning.plan(
            there, Desired({"shared_preload_libraries": declared}, replace_lists=True)
        ).settings
        assert (replaced.text, replaced.words) == ("c, a", ("c", "a"))
    assert planning.plan(there, Desired({"shared_preload_libraries": ("b",)})).settings == []


def test_elements_are_quoted_where_the_server_quotes_them_itself():
    (libraries,) = planning.plan(SERVER, Desired({"shared_preload_libraries": ("a", "d e")})).settings
    assert (libraries.text, libraries.words) == ('a, "d e"', ("a", "d e"))
    (log,) = planning.plan(SERVER, Desired({"Log_Destination": ("syslog", "csv log")})).settings
    assert (log.text, log.words) == ("syslog, csv log", None)


def test_a_list_on_the_server_that_is_none_is_refused():
    there = with_lines(("shared_preload_libraries", 'a, "b'))
    with pytest.raises(Conflict, match="is not a list of words"):
        planning.plan(there, Desired({"shared_preload_libraries": ("c",)}))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("work_mem", ("4MB",), "work_mem is not a list"),
        ("work_mem", "lots", "work_mem = 'lots' is not valid"),
        ("shared_preload_libraries", 'a, "b', "is not valid"),
        ("data_directory", "/elsewhere", "data_directory cannot be changed by ALTER SYSTEM"),
        ("Config_File", "/elsewhere", "cannot be changed by ALTER SYSTEM"),
        ("block_size", "8192", "block_size cannot be changed by ALTER SYSTEM"),
        ("wrok_mem", "4MB", "PostgreSQL 17 has no setting wrok_mem"),
    ],
)
def test_what_cannot_be_set_is_refused(name, value, said):
    fixed = Parameter("block_size", "integer", context="internal")
    config = Parameter("config_file", "string", context="postmaster")
    there = replace(
        SERVER,
        running={**SERVER.running, "block_size": Running(fixed, "8192"), "config_file": Running(config, "/etc/a")},
    )
    with pytest.raises(InvalidInput, match=said):
        planning.plan(there, Desired({name: value}))


def test_the_command_line_of_the_server_is_not_overridden():
    pinned = replace(SERVER.running["work_mem"], value="4096", source="command line")
    there = replace(SERVER, running={**SERVER.running, "work_mem": pinned})
    with pytest.raises(Conflict, match="Work_Mem = 4096 is set on the server's command line"):
        planning.plan(there, Desired({"Work_Mem": "8MB"}))
    assert planning.plan(there, Desired({"work_mem": "4MB"})).settings == []
    # What the file says may go.
    leftover = replace(there, entries=(Entry("work_mem", "8MB", AUTO, 1),))
    assert [one.text for one in planning.plan(leftover, Desired({"work_mem": None})).settings] == [None]


def test_a_server_that_does_not_allow_alter_system_is_told_what_to_set_by_hand():
    switch = Running(Parameter("allow_alter_system", "bool"), "off")
    there = replace(SERVER, running={**SERVER.running, "allow_alter_system": switch})
    with pytest.raises(Conflict, match="does not allow ALTER SYSTEM") as error:
        planning.plan(there, Desired({"work_mem": "8MB", "max_connections": "50"}))
    assert "work_mem, max_connections" in error.value.hint
    assert planning.plan(there, Desired({"work_mem": "4MB"})).settings == []
    both = replace(there, entries=(Entry("work_mem", "8MB", AUTO, 1),))
    with pytest.raises(Conflict, match="does not allow ALTER SYSTEM"):
        planning.removal(both, {"work_mem": Original(None, "8MB")}, restart=False)
    allowed = replace(there, running={**there.running, "allow_alter_system": replace(switch, value="on")})
    assert planning.plan(allowed, Desired({"work_mem": "8MB"})).settings


CONNECTIONS = SERVER.running["max_connections"]


@pytest.mark.parametrize(
    ("line", "pending", "broken"),
    [
        (Entry("port", "x", "/etc/a.conf", 7, "setting could not be applied"), False, True),
        (Entry("port", "x", "/etc/a.conf", 7), False, False),
        (Entry(None, None, "/etc/a.conf", 7, "syntax error"), False, True),
        (Entry(None, None, "/etc/a.conf", 7, "syntax error"), True, True),
        # Shown as an error, and only waits for the restart.
        (Entry("Max_Connections", "200", "/etc/a.conf", 7, "setting could not be applied"), True, False),
        (Entry("max_connections", "x", "/etc/a.conf", 7, "setting could not be applied"), False, True),
        # A line that was removed.
        (Entry(None, None, None, None, "setting could not be applied"), True, False),
        (Entry(None, None, None, None, "setting could not be applied"), False, True),
    ],
)
def test_nothing_is_written_where_the_server_would_not_reload(line, pending, broken):
    running = {**SERVER.running, "max_connections": replace(CONNECTIONS, pending=pending)}
    there = replace(SERVER, entries=(line,), running=running)
    if broken:
        with pytest.raises(Conflict, match=f"until {line.file}, line {line.line} is corrected: {line.error}"):
            planning.plan(there, Desired({"work_mem": "8MB"}))
    else:
        assert planning.plan(there, Desired({"work_mem": "8MB"})).settings
    assert planning.plan(there, Desired({"work_mem": "4MB"})).settings == []


def test_what_waits_for_a_restart_is_shown_with_where_it_comes_from():
    waits = replace(CONNECTIONS, pending=True)
    there = replace(
        SERVER,
        running={**SERVER.running, "max_connections": waits},
        entries=(Entry("max_connections", "200", "/etc/a.conf", 7),),
    )
    (line,) = planning.plan(there, Desired({"work_mem": "8MB"})).pending
    assert line == {"name": "max_connections", "running": "100", "configured": "200", "source": "/etc/a.conf:7"}
    (ours,) = planning.plan(there, Desired({"Max_Connections": "300"})).pending
    assert (ours["configured"], ours["source"]) == ("300", AUTO)
    # Back to what runs: nothing waits any more.
    assert planning.plan(there, Desired({"max_connections": "100"})).pending == ()
    (default,) = planning.plan(replace(there, entries=()), Desired({})).pending
    assert (default["configured"], default["source"]) == ("100", "default")
    both = planning.plan(there, Desired({"shared_preload_libraries": ("a",)}))
    assert [one["name"] for one in both.pending] == ["max_connections", "shared_preload_libraries"]


def test_what_waits_is_shown_in_the_units_that_people_use():
    buffers = Parameter("shared_buffers", "integer", "8kB", "16", "1073741823", context="postmaster")
    there = replace(SERVER, running={**SERVER.running, "shared_buffers": Running(buffers, "16384", default="1024")})
    (line,) = planning.plan(there, Desired({"shared_buffers": "1GB"})).pending
    assert (line["running"], line["configured"]) == ("128MB", "1GB")
    assert planning.plan(there, Desired({"shared_buffers": "131072kB"})).pending == ()


def test_a_server_is_restarted_only_where_that_is_allowed_and_a_declared_setting_needs_it():
    there = SERVER
    declared = {"work_mem": "8MB", "max_connections": "50"}
    assert not planning.plan(there, Desired(declared)).restarts
    made = planning.plan(there, Desired(declared, restart=True))
    assert [one["name"] for one in made.pending] == ["max_connections"]
    (restart,) = made.restarts
    assert (restart.line, restart.before, restart.after) == (
        "restart server",
        {"max_connections": "100"},
        {"max_connections": "50"},
    )
    assert not planning.plan(there, Desired({"work_mem": "8MB"}, restart=True)).restarts
    # It was written by a run before.
    written = with_lines(("max_connections", "50"))
    waits = {**SERVER.running, "max_connections": replace(CONNECTIONS, pending=True)}
    again = planning.plan(replace(written, running=waits), Desired({"Max_Connections": "50"}, restart=True))
    assert (again.settings, len(again.restarts)) == ([], 1)
    # Taken back to a default that runs already.
    assert not planning.plan(written, Desired({"max_connections": None}, restart=True)).restarts


def test_a_setting_is_changed_by_its_meaning_and_shown_as_it_is_written():
    there = with_lines(("work_mem", "8MB"))
    assert planning.plan(there, Desired({"work_mem": "8192kB"})).settings == []
    (change,) = planning.plan(there, Desired({"work_mem": "9MB"})).written
    assert (change.line, change.before, change.after, change.known) == ("update setting work_mem", "8MB", "9MB", True)
    (change,) = planning.plan(there, Desired({"work_mem": None})).written
    assert (change.line, change.before, change.after) == ("remove setting work_mem", "8MB", None)
    # Only what ALTER SYSTEM has written can be taken back.
    elsewhere = with_lines(("work_mem", "8MB"), file="/etc/a.conf")
    assert planning.plan(elsewhere, Desired({"work_mem": None})).settings == []
    assert planning.plan(elsewhere, Desired({"work_mem": "8MB"})).settings == []
    (change,) = planning.plan(SERVER, Desired({"auto_explain.log_timing": "off"})).written
    assert (change.line, change.known) == ("create setting auto_explain.log_timing", False)


def test_a_list_is_emptied_in_the_file_itself_where_another_has_some():
    there = with_lines(("shared_preload_libraries", "a"), file="/etc/postgresql.conf")
    (setting,) = planning.plan(there, Desired({"shared_preload_libraries": ()}, replace_lists=True)).settings
    assert (setting.text, setting.words, setting.by_file) == ("", None, True)
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
    left = replace(with_lines(("work_mem", "8MB")), manager="Patroni")
    with pytest.raises(Managed, match=r"patronictl edit-config --pg work_mem=null$"):
        planning.plan(left, Desired({"work_mem": None}))
    text = Parameter("log_destination", "string", context="sighup")
    odd = replace(managed, running={**SERVER.running, "x.y": Running(replace(text, name="x.y"), "a")})
    with pytest.raises(Managed, match=r"""--pg 'x\.y="null"'$"""):
        planning.plan(odd, Desired({"x.y": "null"}))
    with pytest.raises(Managed, match=r"""--pg 'x\.y=""'$"""):
        planning.plan(odd, Desired({"x.y": ""}))


def test_what_waited_before_is_part_of_the_restart():
    waits = replace(SERVER.running["max_connections"], pending=True)
    there = replace(with_lines(("max_connections", "200")), running={**SERVER.running, "max_connections": waits})
    made = planning.plan(there, Desired({"shared_preload_libraries": ("a",)}, restart=True))
    assert made.plan.result()["changes"] == ["update setting shared_preload_libraries", "restart server"]
    assert made.restarts[0].after == {"max_connections": "200", "shared_preload_libraries": "a"}
    assert not planning.plan(there, Desired({"work_mem": "8MB"}, restart=True)).restarts


def test_secrets_are_not_shown():
    secret = Parameter("primary_conninfo", "string", context="sighup")
    there = replace(SERVER, running={**SERVER.running, secret.name: Running(secret, "password=former")})
    made = planning.plan(there, Desired({secret.name: "password=hunter2"}))
    assert "former" not in str(made.plan.result())
    assert "hunter2" not in str(made.plan.result())
    assert made.plan.result()["prediction"][0]["after"] == "password=(hidden)"
    assert made.settings[0].text == "password=hunter2"
    with pytest.raises(Managed) as managed:
        planning.plan(replace(there, manager="Patroni"), Desired({secret.name: "password=hunter2"}))
    assert "hunter2" not in str(managed.value)
    said = 'LOG:  parameter "primary_conninfo" changed to "password=hunter2"\nFATAL:  no'
    error = transaction._refused(made, Unsupported("It ended."), said, "were restored")
    assert "hunter2" not in str(error)
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
    made = planning.plan(standby, Desired({"Max_Connections": "50", "work_mem": "8MB"}))
    assert [one.parameter.name for one in made.settings] == ["work_mem"]
    assert made.deferred == ({"name": "max_connections", "wanted": "50", "primary": 100, "running": "100"},)
    assert planning.plan(standby, Desired({"max_connections": "100"})).deferred == ()
    assert planning.plan(replace(standby, in_recovery=False), Desired({"max_connections": "50"})).settings
    # Over the network the primary's value is not known: the standby keeps its own.
    unknown = replace(standby, primary={})
    (deferred,) = planning.plan(unknown, Desired({"max_connections": "99"})).deferred
    assert (deferred["primary"], deferred["running"]) == (None, "100")
    assert planning.plan(unknown, Desired({"max_connections": "101"})).settings
    # Back to the default, which is less.
    (deferred,) = planning.plan(with_standby(), Desired({"max_connections": None})).deferred
    assert (deferred["wanted"], deferred["primary"]) == (None, 150)
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
    # What is kept goes back to what it was before; and that archive_mode was ours is remembered.
    mode_now = Original(None, None if mode == "on" else "on")
    assert made.originals == ({"archive_mode": mode_now, "Archive_Command": Original("", "cp")} if kept else {})
    assert bool(made.restarts) == (restart and not kept)
    again = planning.removal(applied(there, made), made.originals, restart)
    assert (again.kept, again.settings, again.originals) == (kept, [], made.originals)


def test_archiving_without_a_command_that_was_so_before_is_only_warned_of():
    there = with_lines(("archive_mode", "on"), ("archive_command", "cp"))
    running = {"archive_mode": Running(MODE, "on", default="off"), "archive_command": Running(COMMAND, "cp")}
    there = replace(there, running={**SERVER.running, **running})
    made = planning.removal(there, {"archive_command": Original(None, "cp")}, restart=False)
    assert (made.kept, made.warnings) == ((), (planning.PILES_UP,))
    assert [change.line for change in made.written] == ["remove setting archive_command"]
    # Somebody has switched it off already, and the server has not been restarted yet.
    off = replace(there, entries=(Entry("archive_mode", "off", AUTO, 1), there.entries[1]))
    made = planning.removal(off, {"archive_command": Original(None, "cp")}, restart=False)
    assert (made.kept, made.warnings) == (("archive_command",), (planning.STAYS,))
    # It is off: nothing piles up.
    stopped = replace(there, running={**there.running, "archive_mode": Running(MODE, "off", default="off")})
    made = planning.removal(stopped, {"archive_command": Original(None, "cp")}, restart=False)
    assert (made.kept, made.warnings) == ((), ())


def test_what_is_recorded_of_a_kept_command_is_all_that_was_before():
    there = with_lines(("archive_mode", "always"), ("archive_command", "cp"))
    running = {"archive_mode": Running(MODE, "always", default="off"), "archive_command": Running(COMMAND, "cp")}
    there = replace(there, running={**SERVER.running, **running})
    recorded = {
        "archive_mode": Original("off", "always"),
        "archive_command": Original("", "cp"),
        "work_mem": Original(None, "8MB"),
    }
    made = planning.removal(there, recorded, restart=False)
    assert made.originals == {"archive_mode": Original("off", "off"), "archive_command": Original("", "cp")}


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


def test_what_is_recorded_is_what_to_go_back_to_and_what_is_ours():
    recorded = {"b": Original("x", "y")}
    assert originals.after(recorded, {"a": None, "b": "y"}, {"a": "1", "b": None}) == {
        "a": Original(None, "1"),
        "b": Original("x", None),
    }
    assert recorded == {"b": Original("x", "y")}


# The file


def test_a_file_without_an_end_of_line_gets_one():
    assert autoconf.replaced("a = '1'\nb = '2'", {"c": "3"}) == "a = '1'\nb = '2'\nc = '3'\n"
    assert autoconf.replaced("b = '2'", {}) == "b = '2'\n"
    assert autoconf.replaced("", {"c": "3"}) == "c = '3'\n"
    assert autoconf.replaced("", {}) == ""
    assert autoconf.replaced("  a 1\n=x\n", {"A": None}) == "=x\n"


def test_lines_of_others_stay_as_they_are():
    text = "# Do not edit\nwork_mem = '8MB'\nWORK_MEM = '9MB'\nport='1'\nx.y = 'it''s'"
    made = autoconf.replaced(text, {"work_mem": None, "x.Y": "a'b\\c"})
    assert made == "# Do not edit\nport='1'\nx.Y = 'a''b\\\\c'\n"


@given(st.dictionaries(st.sampled_from(["a", "b", "c.d"]), st.one_of(st.none(), st.text("ab'\\ =", max_size=5))))
def test_putting_in_twice_is_as_once(values):
    once = autoconf.replaced("keep = '1'\n", values)
    assert autoconf.replaced(once, values) == once
    assert once.startswith("keep = '1'\n")
