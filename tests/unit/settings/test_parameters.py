"""What values of configuration parameters mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import InvalidInput
from pgops.settings import parameters
from pgops.settings.parameters import Parameter

BUFFERS = Parameter("shared_buffers", "integer", "8kB", "16", "1073741823", context="postmaster")
WORK_MEM = Parameter("work_mem", "integer", "kB", "64", "2147483647")
TIMEOUT = Parameter("archive_timeout", "integer", "s", "0", "1073741823", context="sighup")
DELAY = Parameter("vacuum_cost_delay", "real", "ms", "0", "100")
COST = Parameter("seq_page_cost", "real", None, "0", "1.79769e+308")
CONNECTIONS = Parameter("max_connections", "integer", None, "1", "262143", context="postmaster")
MODE = Parameter("unix_socket_permissions", "integer", None, "0", "511", context="postmaster")
AUTOVACUUM = Parameter("autovacuum", "bool", context="sighup")
ARCHIVE = Parameter("archive_mode", "enum", choices=("always", "on", "off"), context="postmaster")
LEVEL = Parameter("wal_level", "enum", choices=("minimal", "replica", "logical"), context="postmaster")
PRELOAD = Parameter("shared_preload_libraries", "string", context="postmaster")
NAME = Parameter("cluster_name", "string", context="postmaster")


@pytest.mark.parametrize(
    ("parameter", "one", "other"),
    [
        (BUFFERS, "128MB", "16384"),
        (BUFFERS, "128MB", "0x4000"),
        (BUFFERS, "1GB", "1024MB"),
        (BUFFERS, "0.1GB", "102MB"),
        (WORK_MEM, "4MB", "4096"),
        (WORK_MEM, " 4 MB ", "4096kB"),
        (TIMEOUT, "10min", "600"),
        (TIMEOUT, "1d", "24h"),
        (TIMEOUT, "1500ms", "2"),
        (DELAY, "2.5ms", "2500us"),
        (COST, "1", "1.0"),
        (COST, "1e1", "10"),
        (MODE, "0777", "511"),
        (AUTOVACUUM, "on", "YES"),
        (AUTOVACUUM, "f", "0"),
        (ARCHIVE, "true", "on"),
        (ARCHIVE, "NO", "off"),
        (LEVEL, "Replica", "replica"),
        (PRELOAD, "a,b", ' a , "b" '),
        (PRELOAD, "", " "),
    ],
)
def test_values_that_mean_the_same(parameter, one, other):
    assert parameter.meaning(one) == parameter.meaning(other)


@pytest.mark.parametrize(
    ("parameter", "one", "other"),
    [
        (BUFFERS, "128MB", "128"),
        (PRELOAD, "a,b", "b,a"),
        (NAME, "Main", "main"),
        (ARCHIVE, "always", "on"),
    ],
)
def test_values_that_do_not(parameter, one, other):
    assert parameter.meaning(one) != parameter.meaning(other)


@pytest.mark.parametrize(
    ("parameter", "text", "said"),
    [
        (BUFFERS, "128mb", "in B, kB, MB, GB, TB"),
        (BUFFERS, "10s", "in B, kB, MB, GB, TB"),
        (BUFFERS, "lots", "must be a number"),
        (BUFFERS, "1kB", "between 16 and 1073741823 8kB"),
        (CONNECTIONS, "0", "between 1 and 262143"),
        (CONNECTIONS, "100 MB", "without a unit"),
        (CONNECTIONS, "", "must be a number"),
        (TIMEOUT, "-1", "between 0 and"),
        (AUTOVACUUM, "o", "on or off"),
        (AUTOVACUUM, "", "on or off"),
        (ARCHIVE, "sometimes", "always, on, off"),
        (LEVEL, "true", "minimal, replica, logical"),
        (PRELOAD, "a,,b", "separated by commas"),
        (PRELOAD, 'a,"b', "separated by commas"),
        (PRELOAD, "a,", "separated by commas"),
    ],
)
def test_what_is_no_value(parameter, text, said):
    with pytest.raises(InvalidInput) as error:
        parameter.meaning(text)
    assert f"{parameter.name} = {text!r} is not valid" in str(error.value)
    assert said in str(error.value)


FREE = Parameter("x.y", "integer")
BELOW = Parameter("x.y", "real", None, None, "10.5")
ABOVE = Parameter("x.y", "integer", None, "-1", None)


@pytest.mark.parametrize(
    ("parameter", "text", "meaning"),
    [
        (FREE, "-5", -5),
        (FREE, "+5", 5),
        (FREE, "-0x10", -16),
        (FREE, "0X1f", 31),
        (FREE, "-010", -8),
        (FREE, "08", 8),
        (FREE, "2.6", 3),
        (FREE, "1e3", 1000),
        (FREE, str(10**30), 10**30),
        (BELOW, "-1e9", -1e9),
        (BELOW, "10.5", 10.5),
        (BELOW, "010", 10),
        (BELOW, ".5", 0.5),
        (ABOVE, "-1", -1),
        (ABOVE, str(10**12), 10**12),
        (BUFFERS, "131072B", 16),
        (BUFFERS, "1TB", 2**27),
        (BUFFERS, "130kB", 16),
        (TIMEOUT, "2500ms", 2),
        (TIMEOUT, "3500ms", 4),
        (TIMEOUT, "1499999us", 1),
        (TIMEOUT, "1h", 3600),
        (DELAY, "1us", 0.001),
    ],
)
def test_numbers_are_read_as_the_server_reads_them(parameter, text, meaning):
    assert parameter.meaning(text) == meaning


@pytest.mark.parametrize(("parameter", "text"), [(BELOW, "10.6"), (BELOW, "1e999"), (ABOVE, "-2"), (FREE, "5kB")])
def test_numbers_out_of_range_are_refused(parameter, text):
    with pytest.raises(InvalidInput, match=r"x\.y"):
        parameter.meaning(text)


def test_the_rule_is_told_with_units_where_there_are_any():
    with pytest.raises(InvalidInput) as error:
        CONNECTIONS.meaning("much")
    assert error.value.hint == "It must be a number without a unit."
    with pytest.raises(InvalidInput) as error:
        CONNECTIONS.meaning("0")
    assert error.value.hint == "It must be between 1 and 262143."
    with pytest.raises(InvalidInput) as error:
        TIMEOUT.meaning("much")
    assert error.value.hint == "It must be a number, in us, ms, s, min, h, d, or without a unit in s."


@pytest.mark.parametrize("text", ["on", "true", "TRUE", "yes", "1", "t", "tr", "y", " yes "])
def test_what_is_on(text):
    assert parameters.truth(text) is True
    assert AUTOVACUUM.meaning(text) is True


@pytest.mark.parametrize("text", ["off", "false", "No", "0", "of", "f", "n", " off "])
def test_what_is_off(text):
    assert parameters.truth(text) is False
    assert AUTOVACUUM.meaning(text) is False


@pytest.mark.parametrize("text", ["", " ", "o", "onn", "10", "00", "yess", "-1", "on off"])
def test_what_is_neither(text):
    assert parameters.truth(text) is None


def test_booleans_in_a_list_are_words():
    assert parameters.value_of([True, False, "X"]) == ("on", "off", "X")
    assert parameters.value_of(("XX",)) == ("XX",)


def test_what_yaml_gives():
    declared = [None, True, False, 100, 2.5, "on", ["a", 1], []]
    assert [parameters.value_of(value) for value in declared] == [
        None,
        "on",
        "off",
        "100",
        "2.5",
        "on",
        ("a", "1"),
        (),
    ]


@pytest.mark.parametrize("declared", [{"a": 1}, [["a"]], [None], [{}], "a\nb", "a\rb", "a\0"])
def test_what_yaml_must_not_give(declared):
    with pytest.raises(InvalidInput):
        parameters.value_of(declared)


@given(st.lists(st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8"), min_size=1)))
def test_a_list_survives_its_text(words):
    assert parameters.elements(parameters.joined(words)) == tuple(words)


@given(st.lists(st.sampled_from("abcd"), unique=True), st.lists(st.sampled_from("abcd")))
def test_merging_loses_nothing_and_moves_nothing(there, wanted):
    result = parameters.merged(there, wanted)
    assert result[: len(there)] == tuple(there)
    assert set(result) == {*there, *wanted}
    assert len(set(result)) == len(result)


@given(st.integers(16, 100_000))
def test_a_number_without_unit_is_in_the_own_unit(blocks):
    assert BUFFERS.meaning(str(blocks)) == blocks == BUFFERS.meaning(f"{blocks * 8}kB")


@pytest.mark.parametrize(
    ("parameter", "setting", "shown"),
    [(BUFFERS, "16384", "128MB"), (WORK_MEM, "4097", "4097kB"), (TIMEOUT, "600", "10min"), (TIMEOUT, "0", "0"),
     (CONNECTIONS, "100", "100"), (AUTOVACUUM, "on", "on"), (TIMEOUT, "-1", "-1"), (DELAY, "2", "2"),
     (BUFFERS, "1048576", "8GB"), (NAME, "8", "8"), (Parameter("x", "integer", "8"), "5", "5")],
)  # fmt: skip
def test_a_number_is_shown_in_its_largest_unit(parameter, setting, shown):
    assert parameter.human(setting) == shown


SEARCH = Parameter("search_path", "string")
SOCKETS = Parameter("unix_socket_directories", "string", context="postmaster")
COMPRESSION = Parameter("wal_compression", "enum", choices=("pglz", "lz4", "zstd", "on", "off"), context="superuser")
KINDS = Parameter("log_min_messages", "string", context="superuser")  # since PostgreSQL 19
MESSAGES = Parameter("log_min_messages", "enum", choices=("debug5", "debug2", "info", "log"), context="superuser")


@pytest.mark.parametrize(
    ("parameter", "one", "other"),
    [
        (COMPRESSION, "YES", "on"),
        (COMPRESSION, "1", "on"),
        (LEVEL, "hot_standby", "replica"),
        (LEVEL, "Archive", "replica"),
        (MESSAGES, "debug", "debug2"),
        (KINDS, "debug", "debug2"),
        (KINDS, "warning, autovacuum:debug1", "AutoVacuum:DEBUG1,Warning"),
        (SEARCH, '""', ""),
        (SEARCH, 'a, ""', "a"),
    ],
)
def test_values_that_the_server_shows_as_others(parameter, one, other):
    assert parameter.meaning(one) == parameter.meaning(other)


def test_levels_of_kinds_of_processes_are_not_of_all():
    assert KINDS.meaning("warning, autovacuum:debug1") != KINDS.meaning("warning, archiver:debug1")
    assert KINDS.meaning("warning") != KINDS.meaning("info")
    assert (KINDS.is_list, MESSAGES.is_list) == (True, False)


def test_an_empty_element_is_one_where_the_server_takes_it_for_one():
    assert SOCKETS.meaning('""') != SOCKETS.meaning("")
    assert COMPRESSION.meaning("off") == "off"
    assert COMPRESSION.meaning("lz4") != COMPRESSION.meaning("on")


@given(st.integers(64, 2**31 - 1), st.sampled_from(["kB", "MB", "GB"]))
def test_a_number_as_it_is_shown_to_people_means_the_same(amount, unit):
    own = amount // {"kB": 1, "MB": 2**10, "GB": 2**20}[unit]
    if own * {"kB": 1, "MB": 2**10, "GB": 2**20}[unit] < 64:
        own = 64
    size = WORK_MEM.meaning(f"{own}{unit}")
    assert WORK_MEM.meaning(WORK_MEM.human(str(size))) == size


@given(st.floats(0, 1e6, allow_nan=False))
def test_a_real_number_is_read_as_it_is_written(number):
    assert COST.meaning(repr(number)) == number == COST.meaning(f" {number!r} ")
