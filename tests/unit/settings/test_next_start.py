# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is made of the answers to whether a server could start, and what it is started with if it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.settings import autoconf, originals, places, transaction, trial
from pgops.settings.journal import Journal
from pgops.settings.originals import Started
from pgops.settings.parameters import Parameter
from pgops.settings.places import Places
from pgops.settings.present import Current, Entry, Running
from pgops.settings.writing import Setting, by_file

AUTO = "/data/postgresql.auto.conf"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("151\n0\n", ("", 151)),
        ("LOG:  a library says hello\n151\n0\n", ("", 151)),
        ("0\n", ("", 0)),
        ('FATAL:  could not load "x"\n1\n', ('could not load "x"', 0)),
        ("LOG:  starting PostgreSQL\nLOG:  bad value\nFATAL:  errors\n1\n", ("bad value errors", 0)),
        ("postgres: too many\n1\n", ("too many", 0)),
        ("139\n", ("its program ends with exit code 139", 0)),
        ("postgres: error while loading shared libraries: libx.so\n127\n", ("", 0)),
        ("FATAL:  no socket created for listening\n1\n", ("no socket created for listening", 0)),
    ],
)
def test_the_answer_of_the_servers_program(output, found):
    assert trial.answer(output) == found


def test_memory_that_no_host_could_give():
    host = {"HugePages_Total": 0}
    assert places.too_much(100, 100, Places(), host) == ""
    assert "of 101 MB cannot be allocated: this host has 100 MB" in places.too_much(101, 100, Places(), host)
    for value, refused in (("on", True), ("YES", True), ("try", False), ("off", False)):
        assert bool(places.too_much(1, 100, Places({"huge_pages": value}), host)) == refused
    assert places.too_much(1, 100, Places({"huge_pages": "on"}), {"HugePages_Total": 5}) == ""
    assert places.too_much(1, 100, Places({"huge_pages": "on"}), {}) == ""


def test_only_lines_about_what_is_set_say_that_it_is_not_used():
    tls = Setting(Parameter("ssl_cert_file", "string"), "/etc/x.crt")
    memory = Setting(Parameter("work_mem", "integer", "kB"), "8MB")
    line = '12:00 LOG:  could not load server certificate file "/etc/x.crt": No such file or directory'
    (said,) = transaction.not_used([line], [tls])
    assert said.startswith('could not load server certificate file "/etc/x.crt"')
    assert list(transaction.not_used(["LOG:  SSL configuration was not reloaded"], [tls])) == ["was not reloaded"]
    assert list(transaction.not_used([line, "LOG:  SSL configuration was not reloaded"], [memory])) == []
    changed = 'LOG:  parameter "work_mem" changed to "8MB"'
    assert list(transaction.not_used([changed], [memory])) == []
    assert list(transaction.not_used(["ERROR:  could not open file /etc/x.crt"], [memory])) == []


@pytest.mark.parametrize(
    "line",
    [
        'app@shop ERROR:  invalid value for parameter "work_mem": "lots"',
        'app@shop FATAL:  invalid value for parameter "work_mem": "lots"',
        "app@shop STATEMENT:  SELECT 'could not set', current_setting('work_mem')",
        "app@shop LOG:  statement: SET work_mem = 'lots' -- could not set",
        "app@shop LOG:  statement: SELECT 1,\n\t'could not set work_mem'",
    ],
)
def test_what_goes_wrong_for_clients_says_nothing_about_the_servers_settings(line: str):
    """A run would put the settings back for that."""
    memory = Setting(Parameter("work_mem", "integer", "kB"), "8MB")
    assert list(transaction.not_used(line.splitlines(), [memory])) == []
    servers = 'LOG:  invalid value for parameter "work_mem": "8MB"'
    assert len(list(transaction.not_used([*line.splitlines(), servers], [memory]))) == 1


def test_the_latest_settings_that_can_be_restored_come_first():
    journal = Journal({"a": "1"}, "settings")
    started = Started("b = '2'\n", 5.0)
    made = transaction.candidates(journal, started, None, {"c": "3"})
    assert [one.of("a = '9'\n") for one in made] == ["a = '1'\n", "b = '2'\n", "a = '1'\nc = '3'\n"]
    assert [one.name for one in transaction.candidates(journal, None, None)] == ["its old settings"]


def test_what_a_server_has_started_with_is_what_was_there_before_its_start():
    assert originals.after_start(None, began=10, text="new", changed=9) == Started("new", 10)
    assert originals.after_start(None, began=10, text="new", changed=11) is None
    former = Started("old", 5)
    assert originals.after_start(former, began=10, text="new", changed=11) == former
    assert originals.after_start(former, began=10, text="new", changed=9) == Started("new", 10)
    # Recorded after the very start: what was written since has not been tried.
    assert originals.after_start(Started("old", 10), began=10, text="new", changed=9) == Started("old", 10)


def test_the_last_start_is_recorded_beside_the_originals(tmp_path):
    path = str(tmp_path / "before.json")
    assert originals.last_start(path) is None
    one = {"a": originals.Original(None, "1")}
    originals.write(path, "settings", one, Started("a = '1'\n", 3.5))
    originals.write(path, "statements", {"b": originals.Original("x", "y")})
    assert originals.last_start(path) == Started("a = '1'\n", 3.5)
    assert originals.before_all(path) == {"a": None, "b": "x"}
    originals.write(path, "settings", {})
    originals.write(path, "statements", {})
    assert originals.last_start(path) is None


@pytest.mark.parametrize(
    ("name", "text", "so"),
    [
        ("shared_preload_libraries", "", True),
        ("Unix_Socket_Directories", " ", True),
        ("shared_preload_libraries", "a", False),
        ("shared_preload_libraries", None, False),
        ("search_path", "", False),
        ("temp_tablespaces", "", False),
        ("listen_addresses", "", False),
        ("archive_command", "", False),
    ],
)
def test_only_lists_that_the_server_quotes_are_emptied_by_file(name, text, so):
    assert by_file(name, text) is so


def test_what_the_server_chooses_itself_is_no_difference():
    buffers = Parameter("wal_buffers", "integer", "8kB", "-1", "262143", context="postmaster")
    there = Current(running={"wal_buffers": Running(buffers, "512", source="override", default="-1")})
    assert there.chosen("wal_buffers", "-1")
    assert not there.chosen("wal_buffers", "512")
    assert not there.chosen("work_mem", "-1")
    told = Current(running={"wal_buffers": Running(buffers, "512", source="configuration file", default="-1")})
    assert not told.chosen("wal_buffers", "-1")


def test_values_are_the_same_if_the_server_makes_the_same_of_them():
    zone = Parameter("log_timezone", "string", context="sighup")
    made = {("log_timezone", "utc"): "UTC", ("log_timezone", "Utc"): "UTC", ("log_timezone", "cet"): "CET"}
    there = Current(running={"log_timezone": Running(zone, "UTC")}, spelled=made)
    assert there.same("Log_TimeZone", "utc", "Utc")
    assert not there.same("log_timezone", "utc", "cet")
    assert not there.same("log_timezone", "utc", "unknown")
    assert not there.same("log_timezone", "unknown", "other")
    assert there.same("log_timezone", None, None)
    assert not there.same("log_timezone", "utc", None)


RUNNING = Running(
    Parameter("log_timezone", "string", context="sighup"), "UTC", "configuration file", file=AUTO, line=2
)


@pytest.mark.parametrize(
    ("text", "entry", "running", "wrong"),
    [
        ("utc", Entry("log_timezone", "utc", AUTO, 2), RUNNING, False),
        ("utc", Entry("log_timezone", "utc", AUTO, 2, "could not be applied"), RUNNING, True),
        ("utc", Entry("log_timezone", "utc", AUTO, 3), RUNNING, True),
        ("utc", Entry("log_timezone", "cet", AUTO, 2), RUNNING, True),
        ("utc", None, RUNNING, True),
        ("utc", Entry("log_timezone", "utc", "/etc/postgresql.conf", 2), RUNNING, True),
        # What is removed leaves what a file says, or the default.
        (None, None, RUNNING, True),
        (None, None, Running(RUNNING.parameter, "GMT"), False),
        (None, Entry("log_timezone", "x", "/etc/a.conf", 1, "could not be applied"), RUNNING, True),
        (None, Entry("log_timezone", "UTC", AUTO, 2), RUNNING, False),
        # Set for the role or the database of this session: its files are what counts.
        ("utc", Entry("log_timezone", "utc", AUTO, 3), Running(RUNNING.parameter, "CET", "user"), False),
    ],
)
def test_what_was_asked_is_looked_for_in_the_running_server(text, entry, running, wrong):
    now = Current(running={"log_timezone": running}, entries=(entry,) if entry else ())
    assert bool(transaction._other_value(now, Setting(RUNNING.parameter, text), restarted=False)) is wrong


NAMES = st.sampled_from(["a", "B_c", "d.e"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=8)


@given(st.dictionaries(NAMES, TEXTS))
def test_the_values_in_a_file_are_those_that_were_written(values):
    written = autoconf.replaced("# Do not edit\n", values)
    assert autoconf.values(written) == {name.lower(): text for name, text in values.items()}
