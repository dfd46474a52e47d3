"""Subsets, the size limit, and the contract's document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import facts_contract
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import InvalidInput, QueryFailed
from pgops.facts import agent, answer, gathering, host, instance, size
from pgops.instance.configuration import Configuration
from pgops.instance.layout import Layout

SUBSETS = ["all", "min", *instance.SECTIONS, "!all", *(f"!{name}" for name in instance.SECTIONS)]


@pytest.mark.parametrize(
    ("words", "sections"),
    [
        (["all"], instance.SECTIONS),
        ([], instance.SECTIONS),
        (["min"], ()),
        (["!all"], ()),
        (["archiver", "server"], ("server", "archiver")),
        (["!all", "schema"], ("schema",)),
        (["!settings"], tuple(name for name in instance.SECTIONS if name != "settings")),
        (["all", "!jobs", "!agent"], instance.SECTIONS[:-2]),
        (["min", "server"], ("server",)),
    ],
)
def test_subset(words, sections):
    assert gathering.subset(words) == sections


@given(st.lists(st.sampled_from(SUBSETS)))
def test_a_subset_never_holds_what_was_left_out(words):
    sections = gathering.subset(words)
    assert not {f"!{name}" for name in sections} & set(words)
    assert list(sections) == [name for name in instance.SECTIONS if name in sections]


@pytest.mark.parametrize("word", ["everything", "!min", "!nothing", ""])
def test_an_unknown_subset_is_refused_with_the_known_ones(word):
    with pytest.raises(InvalidInput, match="replication"):
        gathering.subset([word])


def _facts(lengths: list[int]) -> dict[str, Any]:
    """Facts of one instance a number, which has that many databases and half as many slots."""
    return {
        "sections": ["databases"],
        "instances": [
            {
                "name": f"{number}-main",
                "databases": {"list": [{"name": f"database {place}"} for place in range(length)]},
                "replication": {"slots": [{"name": f"slot {place}"} for place in range(length // 2)]},
            }
            for number, length in enumerate(lengths)
        ],
    }


@given(st.lists(st.integers(0, 60), max_size=6), st.integers(500, 8000))
def test_facts_fit_and_what_is_missing_is_told(lengths, largest):
    whole, cut = _facts(lengths), size.limit(_facts(lengths), largest)
    assert size.size(cut) <= largest
    notes = {note["path"]: note for note in cut["truncated"]}
    assert all(note["left_out"] > 0 for note in notes.values())
    kept, left_out = len(cut["instances"]), notes.get("instances", {"left_out": 0})["left_out"]
    assert kept + left_out == len(lengths)
    for place, found in enumerate(cut["instances"]):
        before = whole["instances"][place]["databases"]["list"]
        after = found["databases"]["list"]
        assert after == before[: len(after)]
        gone = notes.get(f"instances[{place}].databases.list", {"left_out": 0})["left_out"]
        assert len(after) + gone == len(before)


@given(st.lists(st.integers(0, 60), max_size=6))
def test_facts_that_fit_stay_whole(lengths):
    facts = _facts(lengths)
    assert size.limit(_facts(lengths), 0) == {**facts, "truncated": []}
    assert size.limit(_facts(lengths), len(json.dumps(facts)) + 20) == {**facts, "truncated": []}


def test_the_longest_list_is_cut_first():
    facts = _facts([40, 4])
    cut = size.limit(facts, size.size(facts) - 100)
    assert [note["path"] for note in cut["truncated"]] == ["instances[0].databases.list"]


def words(*lengths: int) -> dict[str, Any]:
    """Facts with a list of ten words for each length of a word."""
    lists = {f"of {length}": ["x" * length] * 10 for length in lengths}
    return {"sections": ["databases", "replication"], "instances": [{"name": "main", "lists": lists}]}


def kept(facts: dict[str, Any], largest: int) -> list[int]:
    """How much of each list is left."""
    return [len(one) for one in size.limit(facts, largest)["instances"][0]["lists"].values()]


def test_no_more_is_cut_than_has_to_be():
    whole = size.size({**words(80), "truncated": []})
    assert kept(words(80), whole) == [10]
    for largest in range(300, whole):
        cut = size.limit(words(80), largest)
        assert size.size(cut) <= largest
        # One word more takes 84 bytes: quotes, a comma and a space.
        assert size.size(cut) + 84 > largest


def test_of_two_long_lists_neither_is_cut_to_nothing():
    whole = size.size(words(100, 99))
    half = kept(words(100, 99), whole // 2)
    assert all(3 <= left <= 5 for left in half)
    assert sum(kept(words(100, 9), whole // 2)) > 10


def test_instances_are_left_out_once_nothing_else_can_be():
    facts = {"sections": ["databases"], "instances": [{"name": f"{number}-main"} for number in range(9)]}
    cut = size.limit(facts, 200)
    assert cut["truncated"] == [
        {"path": "instances", "kept": len(cut["instances"]), "left_out": 9 - len(cut["instances"])}
    ]
    assert cut["sections"] == ["databases"]
    smallest = size.limit(_facts([3, 4]), 1)
    assert (smallest["instances"], smallest["sections"]) == ([], ["databases"])
    assert [note["path"] for note in smallest["truncated"]] == ["instances"]


def test_every_section_is_in_the_contract():
    contract = facts_contract.read()
    sections = {path.removeprefix("instances[].") for path in contract if path.startswith("instances[].")}
    sections = {name for name in sections if "." not in name}
    assert sections == set(instance.SECTIONS)
    assert set(instance.SECTIONS) <= set(contract["instances[]"])


def test_host_without_anything(tmp_path):
    found = host.read(str(tmp_path))
    assert found["systemd"] is False
    assert {*found, "agents"} == set(facts_contract.read()["host"])


@pytest.mark.parametrize(
    ("release", "family"),
    [
        ("ID=debian\n", "Debian"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "Debian"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "RedHat"),
        ("# nothing\nID=void\n", "void"),
    ],
)
def test_os_family(tmp_path, release, family):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text(release)
    assert host.read(str(tmp_path))["os_family"] == family


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [("42501", "permission_missing"), ("57014", "timeout"), ("22012", "query_failed"), (None, "query_failed")],
)
def test_a_failed_section_says_why(sqlstate, code):
    assert answer.failed(QueryFailed("x" * 900, "", sqlstate)) == {"error": {"code": code, "message": "x" * 500}}


def test_agent_that_is_not_there(tmp_path):
    found = agent.read(Layout("17-main", str(tmp_path)))
    assert found["version"] is None
    assert found["configured"] is False
    assert (found["collectors"], found["spooled_bytes"], found["hidden"]) == ([], 0, {})


def test_agent_that_is_there(tmp_path):
    layout = Layout("17-main", str(tmp_path))
    for folder in ("versions/0.1.0-abc/pgops/sql/collectors",):
        (tmp_path / "usr/local/lib/pgops" / folder).mkdir(parents=True)
    (tmp_path / "usr/local/lib/pgops/versions/0.1.0-abc/pgops/sql/collectors/locks.sql").touch()
    (tmp_path / "usr/local/lib/pgops/current").symlink_to("versions/0.1.0-abc")
    (tmp_path / "etc/pgops/17-main").mkdir(parents=True)
    peers = [{"host": "db2", "port": 5433}]
    configuration = {"format": 1, "instance": "17-main", "cluster": "shop", "node": "db1", "peers": peers}
    (tmp_path / "etc/pgops/17-main/agent.json").write_text(json.dumps(configuration))
    found = agent.read(layout)
    assert (found["version"], found["build"], found["collectors"]) == ("0.1.0", "0.1.0-abc", ["locks"])
    assert (found["cluster"], found["node"], found["peers"]) == ("shop", "db1", ["db2:5433"])


def test_jobs_of_this_instance_only(tmp_path):
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    text = "[Timer]\nOnCalendar=*:0/1\n[X-Pgops]\nInstance={}\nJob={}\n"
    (units / "pgops-a-collect.timer").write_text(text.format("a", "collect"))
    (units / "pgops-a-b-collect.timer").write_text(text.format("a-b", "collect"))
    (tmp_path / "etc/cron.d").mkdir()
    line = "*/5 * * * * pgops { timeout 50 /x/current/bin/pgops --instance a --prefix /x retention; }\n"
    (tmp_path / "etc/cron.d/pgops-a").write_text(f"# pgops.fleet: instance a\nMAILTO=\n{line}")
    found = agent.jobs(Layout("a", str(tmp_path)))["list"]
    assert [(job["name"], job["backend"], job["calendar"]) for job in found] == [
        ("collect", "systemd", "*:0/1"),
        ("retention", "cron", "*/5 * * * *"),
    ]
    assert set(found[0]) == set(facts_contract.read()["instances[].jobs.list[]"])


def test_systemd_is_read(tmp_path, monkeypatch):
    (tmp_path / "systemctl").write_text(
        "#!/bin/sh\n"
        "printf 'Id=pgops-a-collect.timer\\nActiveState=active\\n\\n'\n"
        "printf 'Id=pgops-a-collect.service\\nResult=exit-code\\nExecMainStatus=3\\n"
        "ExecMainExitTimestampMonotonic=1000000\\n'\n"
    )
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    states = agent._states(["pgops-a-collect.timer", "pgops-a-collect.service"])
    job = agent._state({"unit": "pgops-a-collect", "name": "collect", "calendar": "*:0"}, states)
    assert (job["active"], job["last_result"], job["last_exit_code"]) == (True, "exit-code", 3)
    assert job["running"] is False
    assert job["last_run_age_s"] > 0


def test_of_a_job_that_runs_only_the_end_of_the_run_before_is_known():
    service = {
        "ActiveState": "activating",
        "Result": "success",
        "ExecMainStatus": "0",
        "ExecMainExitTimestampMonotonic": "0",
        "InactiveEnterTimestampMonotonic": "1000000",
    }
    states = {"pgops-a-collect.timer": {"ActiveState": "active"}, "pgops-a-collect.service": service}
    job = agent._state({"unit": "pgops-a-collect", "name": "collect", "calendar": "minutely"}, states)
    assert (job["running"], job["last_result"], job["last_exit_code"]) == (True, None, None)
    assert job["last_run_age_s"] > 0
    service["InactiveEnterTimestampMonotonic"] = "0"  # its first run since the host has started
    assert (
        agent._state({"unit": "pgops-a-collect", "name": "collect", "calendar": "minutely"}, states)["last_run_age_s"]
        is None
    )


def test_a_name_that_no_file_can_have_is_an_error_of_its_sections():
    assert agent.section("agent", "../17", "/")["error"]["code"] == "invalid_input"


def test_agents_are_told_without_their_servers(tmp_path):
    assert agent.installed(str(tmp_path)) == []
    for name in ("17-main", "15-gone"):
        (tmp_path / "etc/pgops" / name).mkdir(parents=True)
    (tmp_path / "etc/pgops/17-main/pgpass").touch()
    Path(Layout("17-main", str(tmp_path)).data).mkdir(parents=True)
    Path(Layout("17-main", str(tmp_path)).before).touch()
    (tmp_path / "etc/pgops/17-main/agent.json").write_text(Configuration("17-main", "orders", "db1/17-main").text())
    assert agent.installed(str(tmp_path)) == [
        {"name": "15-gone", "cluster": None, "port": None, "peers": None, "credential": False, "record": False},
        {"name": "17-main", "cluster": "orders", "port": 5432, "peers": [], "credential": True, "record": True},
    ]
