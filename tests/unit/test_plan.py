# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes and what modules make of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from pgops.plan import Change, Plan, as_text, changes, difference, unpredictable

values = st.none() | st.text() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=4)


@dataclass(frozen=True)
class Secret(Change):
    """A kind of change that is carried out with a secret."""

    password: str = field(repr=False, compare=False)


@dataclass(frozen=True)
class Start(Change):
    """A kind of change with a word of its own."""

    verb: ClassVar[str] = "start"


@given(values)
def test_no_difference_is_no_change(value: object) -> None:
    assert difference(Change("x", value, value)) == ()


@given(values, values)
def test_a_difference_shows_what_differs(before: object, after: object) -> None:
    made = difference(Secret("x", before, after, "kept"))
    assert bool(made) == (before != after)
    for change in made:
        assert change.password == "kept"
        if isinstance(before, dict) and isinstance(after, dict):
            assert not {key for key in change.before if change.after.get(key, ...) == change.before[key]}


def test_keys_that_come_and_go_are_shown_and_those_that_stay_are_not() -> None:
    (made,) = difference(Change("x", {"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5}))
    assert (made.before, made.after) == ({"a": 1, "c": 3}, {"c": 4, "d": 5})
    (emptied,) = difference(Change("x", {"a": 1, "b": 2}, {"b": 2}))
    assert (emptied.before, emptied.after) == ({"a": 1}, {})
    (filled,) = difference(Change("x", {"b": 2}, {"a": 1, "b": 2}))
    assert (filled.before, filled.after) == ({}, {"a": 1})
    assert [one.action for one in (made, emptied, filled)] == ["update"] * 3
    assert difference(Change("x", {"a": 1}, None))[0].before == {"a": 1}
    assert difference(Change("x", None, {"a": 1}))[0].after == {"a": 1}


def test_a_result_tells_all_and_no_secrets() -> None:
    secret = Secret("role a", None, {"login": True}, "correct horse")
    result = changes([secret], [Change("file b", "old", "new")], [Change("c", "was", None)], warnings=["w"]).result()
    assert result["changed"]
    assert result["changes"] == ["create role a", "update file b", "remove c"]
    assert result["prediction"] == [
        {"action": "create", "subject": "role a", "before": None, "after": {"login": True}},
        {"action": "update", "subject": "file b", "before": "old", "after": "new"},
        {"action": "remove", "subject": "c", "before": "was", "after": None},
    ]
    assert result["warnings"] == ["w"]
    assert "horse" not in repr(result) + repr(secret)
    nothing = {"changed": False, "diff": [], "changes": [], "prediction": [], "predictable": True}
    assert Plan().result() == nothing
    assert unpredictable("w") == {**nothing, "predictable": False, "warnings": ["w"]}


def test_a_diff_has_a_line_for_what_comes_and_goes_and_a_document_for_what_changes() -> None:
    made = changes(
        [Change("file a", None, {"content": "long\n" * 99}), Change("file b", {"mode": "0644"}, {"mode": "0600"})],
        [Change("file c", {"mode": "0644"}, None), Change("role d", None, {"login": True})],
        [Start("server", "down", "up"), Start("timer", None, "active")],
    )
    assert made.diff() == [
        {
            "before_header": "created",
            "after_header": "created",
            "before": "",
            "after": "create file a\ncreate role d\n",
        },
        {"before_header": "removed", "after_header": "removed", "before": "remove file c\n", "after": ""},
        {"before_header": "file b", "after_header": "file b", "before": "mode: 0644\n", "after": "mode: 0600\n"},
        {"before_header": "server", "after_header": "server", "before": "down\n", "after": "up\n"},
        {"before_header": "timer", "after_header": "timer", "before": "", "after": "active\n"},
    ]
    assert [one["action"] for one in made.result()["prediction"]] == [
        *("create", "update", "remove", "create", "start", "start")
    ]


def test_plans_are_added_with_their_warnings_and_reasons() -> None:
    first = Plan((Secret("a", None, "x", ""),), ("one",))
    second = Plan((Start("b", "x", "y"),), ("two",), "standby")
    both = first + second
    assert [change.subject for change in both] == ["a", "b"]
    assert (both.warnings, both.skipped_reason) == (("one", "two"), "standby")
    assert (second + first).skipped_reason == "standby"
    assert both.result()["skipped_reason"] == "standby"
    assert changes([], warnings=["w"], skipped_reason="why").skipped_reason == "why"
    assert not {"skipped_reason", "warnings"} & set(changes([]).result())
    assert both.warned(["three"]).warnings == ("one", "two", "three")
    assert both.plan is both
    result = both.result(version="1", jobs=[])
    assert (result["changes"], result["version"], result["jobs"]) == (["create a", "start b"], "1", [])
    assert not Plan() + Plan()


def test_kinds_of_change_are_told_apart_and_what_carries_them_out_is_not() -> None:
    assert Secret("a", 1, 2, "x") == Secret("a", 1, 2, "y")
    assert Secret("a", 1, 2, "x") != Change("a", 1, 2)


def test_data_is_of_jsons_types() -> None:
    data = Change("a", {"ratio": Decimal("0.5")}, {"names": ("x", "y")}).data()
    assert json.loads(json.dumps(data)) == data
    assert (data["before"], data["after"]) == ({"ratio": "0.5"}, {"names": ["x", "y"]})


def test_values_are_shown_as_json_and_words_as_they_are() -> None:
    shown = as_text({"a": "x", "b": {"d": 1, "c": Decimal("0.5")}, "c": None, "d": True})
    assert shown == 'a: x\nb: {"c": "0.5", "d": 1}\nc: null\nd: true\n'
    assert as_text(["x", 1]) == '["x", 1]\n'
    assert as_text("") == ""


def test_text_ends_with_a_line() -> None:
    assert (as_text(None), as_text("a"), as_text("a\n"), as_text({"b": [1], "a": "x"})) == (
        "",
        "a\n",
        "a\n",
        "a: x\nb: [1]\n",
    )
