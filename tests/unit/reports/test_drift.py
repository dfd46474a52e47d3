# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings that are not what they should be."""

from __future__ import annotations

from typing import Any

import pytest

from pgops.reports import drift
from pgops.settings.parameters import Parameter
from pgops.settings.present import Current, Entry, Running

AUTO = "/data/postgresql.auto.conf"


def current(value: str, written: str | None, **other: Any) -> Current:
    """A server that runs with a work_mem, in kB, and has another in its files."""
    running = Running(Parameter("work_mem", "integer", "kB", "64", "2147483647"), value, default="4096", **other)
    entries = () if written is None else (Entry("work_mem", written, AUTO, 3),)
    return Current(running={"work_mem": running}, entries=entries)


def differing(found: Current, **wanted: str | None) -> list[dict[str, Any]]:
    return list(drift.differing(found, wanted))


@pytest.mark.parametrize("written", ["8MB", "8192", "8192kB"])
def test_what_means_the_same_does_not_differ(written: str) -> None:
    found = current("8192", written, source="configuration file")
    assert differing(found, work_mem="8MB") == []
    assert differing(found) == []


@pytest.mark.parametrize(
    ("found", "wanted", "why"),
    [
        (current("8192", "8MB", source="configuration file"), {"work_mem": "16MB"}, "than was declared"),
        (current("4096", None), {"work_mem": "16MB"}, "than was declared"),
        (current("8192", "16MB", source="configuration file"), {"work_mem": "16MB"}, "a reload"),
        (current("8192", "16MB", source="configuration file", pending=True), {}, "a restart"),
        (current("8192", "16MB", source="command line"), {}, "overridden: command line"),
    ],
)
def test_what_differs_says_why(found: Current, wanted: dict[str, str], why: str) -> None:
    (row,) = differing(found, **wanted)
    assert row["why"].endswith(why)
    assert row["declared"] == wanted.get("work_mem")
    assert row["running"] == ("8MB" if found.running["work_mem"].value == "8192" else "4MB")


def test_a_line_that_is_not_valid_is_said() -> None:
    entry = Entry("work_mem", "lots", AUTO, 3, "invalid value")
    found = Current(running=current("4096", None).running, entries=(entry,))
    (row,) = differing(found)
    assert (row["why"], row["file"], row["place"]) == ("its line is not valid: invalid value", "lots", f"{AUTO}:3")


@pytest.mark.parametrize("source", ["session", "client", "user"])
def test_what_this_session_has_set_is_not_the_servers(source: str) -> None:
    assert differing(current("4096", "8MB", source=source)) == []
    (row,) = differing(current("4096", "8MB", source=source), work_mem="16MB")
    assert row["why"] == "another value is written than was declared"


def test_a_line_that_needs_a_restart_is_not_taken_for_an_invalid_one() -> None:
    parameter = Parameter("max_connections", "integer", None, "1", "262143", context="postmaster")
    running = {"max_connections": Running(parameter, "100", source="configuration file")}
    for value, why in (("77", "it waits for a restart"), ("many", "its line is not valid: could not be applied")):
        entry = Entry("max_connections", value, AUTO, 3, "could not be applied")
        (row,) = differing(Current(running=running, entries=(entry,)))
        assert row["why"] == why


def test_a_setting_that_was_removed_again_does_not_differ() -> None:
    assert differing(current("4096", None), work_mem=None) == []


def test_secrets_are_not_shown() -> None:
    text = "host=db1 user=standby password=hunter2"
    running = Running(Parameter("primary_conninfo", "string"), "host=db2", source="configuration file")
    found = Current(running={"primary_conninfo": running}, entries=(Entry("primary_conninfo", text, AUTO, 1),))
    (row,) = differing(found, primary_conninfo=text)
    assert "hunter2" not in str(row)
