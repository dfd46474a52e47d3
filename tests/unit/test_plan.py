# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes and what modules make of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgops.plan import Change, Plan, as_text, changes, difference

values = st.none() | st.text() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=4)


@given(values)
def test_no_difference_is_no_change(value: object) -> None:
    assert difference("x", value, value) == ()


@given(values, values)
def test_a_difference_shows_what_differs(before: object, after: object) -> None:
    made = difference("x", before, after)
    assert bool(made) == (before != after)
    if isinstance(before, dict) and isinstance(after, dict):
        for change in made:
            assert not {key for key in change.before if change.after.get(key, ...) == change.before[key]}


def test_a_result_tells_all_and_no_steps() -> None:
    secret = Change("role a", None, {"login": True}, "PASSWORD 'x'")
    result = changes([secret], [Change("file b", "old", "new")], [Change("c", "was", None)], warnings=["w"]).result()
    assert result["changed"]
    assert result["changes"] == ["create role a", "update file b", "remove c"]
    assert result["diff"][0]["after"] == "login: true\n"
    assert result["warnings"] == ["w"]
    assert "PASSWORD" not in repr(result) + repr(secret)
    assert Plan().result() == {"changed": False, "diff": [], "changes": [], "predictable": True}


def test_text_ends_with_a_line() -> None:
    assert (as_text(None), as_text("a"), as_text("a\n"), as_text({"b": [1], "a": "x"})) == (
        "",
        "a\n",
        "a\n",
        "a: x\nb: [1]\n",
    )
