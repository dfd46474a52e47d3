# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Repeatable objects: their order, and when they are made anew."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import InvalidInput
from pgops.metrics.collectors import Collector, wrapped
from pgops.opsdb import objects

A = "-- object: function pgops.a()\nCREATE ..."
B = "-- object: view pgops.b\n-- requires: a\nCREATE ..."


def found() -> list[objects.SchemaObject]:
    return objects.shipped({"read/b.sql": B, "store/a.sql": A})


def test_required_objects_come_first() -> None:
    assert [one.identity for one in found()] == ["function pgops.a()", "view pgops.b"]


def test_a_file_tells_all_of_its_object() -> None:
    text = "-- object: function pgops.c(integer, text[])\n-- requires: b.x,  a\nCREATE ..."
    files = {"read/deep/c.d.sql": text, "store/a.sql": A, "b.x.sql": B}
    one, other, last = objects.shipped(files)
    assert (one.identity, one.text, one.file, one.requires) == ("function pgops.a()", A, "store/a.sql", ())
    assert other.requires == ("a",)
    assert (last.identity, last.file, last.requires) == (
        "function pgops.c(integer,text[])",
        "read/deep/c.d.sql",
        ("b.x", "a"),
    )
    assert objects.drop_statement("function pgops.c(integer, text[])") == (
        "DROP FUNCTION IF EXISTS pgops.c(integer, text[])"
    )
    assert objects.drop_statement("view pgops.b") == "DROP VIEW IF EXISTS pgops.b"


def test_what_drifted_is_edited_missing_or_added() -> None:
    installed = {"a": "1", "b": "1", "c": "1"}
    assert objects.drifted(installed, {"d": "1", "c": "2", "a": "1"}) == ["b", "c", "d"]


@pytest.mark.parametrize(
    "files",
    [
        {"b.sql": B},
        {"a.sql": A.replace("\n", "\n-- requires: b\n"), "b.sql": B},
        {"a.sql": "CREATE FUNCTION pgops.a()"},
        {"a.sql": A.replace("pgops.a()", "public.a()")},
        {"read/a.sql": A, "store/a.sql": A},
    ],
    ids=["unknown", "circle", "no header", "foreign", "two of one name"],
)
def test_files_that_cannot_be_meant_are_refused(files: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        objects.shipped(files)


@pytest.mark.parametrize(
    "identity",
    [
        "table pgops.round",
        "function public.f()",
        "function pgops.f(); DROP TABLE x",
        'view pgops."x"',
        "view pgops.b\n",
    ],
)
def test_nothing_but_our_objects_is_dropped(identity: str) -> None:
    with pytest.raises(InvalidInput):
        objects.drop_statement(identity)


def test_nothing_is_planned_where_all_is_as_installed() -> None:
    sources = {one.identity: one.sha256 for one in found()}
    prints = dict.fromkeys([*sources, "table pgops.round"], "1")
    assert objects.plan(found(), sources, prints, prints) == ()


def test_new_edited_missing_and_dropped_objects_are_planned() -> None:
    sources = {one.identity: one.sha256 for one in found()}
    prints = dict.fromkeys(sources, "1")
    (edited,) = objects.plan(found(), sources, prints, {**prints, "view pgops.b": "2"})
    assert edited.subject == "view pgops.b"
    assert edited.before == {"source sha256": sources["view pgops.b"], "state": "edited by hand"}
    assert edited.after == {"source sha256": sources["view pgops.b"], "state": "as installed"}
    (missing,) = objects.plan(found(), sources, prints, {"view pgops.b": "1"})
    assert (missing.subject, missing.action) == ("function pgops.a()", "create")
    (newer,) = objects.plan(found(), {**sources, "view pgops.b": "old"}, prints, prints)
    assert newer.before == {"source sha256": "old", "state": "as installed"}
    assert newer.after == edited.after
    assert newer.found == found()[1]
    (foreign,) = objects.plan(found()[:1], {}, {}, {"function pgops.a()": "1"})
    assert foreign.before == {"source sha256": "unknown", "state": "edited by hand"}
    (gone,) = objects.plan(found()[:1], sources, prints, prints)
    assert (gone.subject, gone.action) == ("view pgops.b", "remove")
    assert gone.before == {"source sha256": sources["view pgops.b"]}


def test_a_collectors_function_runs_its_query_as_its_caller() -> None:
    made = objects.collector_function(Collector("locks", "SELECT 1 AS held", ()))
    assert (made.identity, made.file) == ("function pgops.collector_locks()", "collector_locks.sql")
    assert objects.shipped({made.file: f"-- object: {made.identity}\n{made.text}"})[0].drop == (
        "DROP FUNCTION IF EXISTS pgops.collector_locks()"
    )
    words = " ".join(made.text.split())
    assert wrapped("SELECT 1 AS held") in made.text
    assert "SECURITY INVOKER SET search_path = pg_catalog, pg_temp" in words
    assert "REVOKE ALL ON FUNCTION pgops.collector_locks() FROM PUBLIC;" in words
    assert "SET LOCAL check_function_bodies = on;" in words
    assert "GRANT EXECUTE ON FUNCTION pgops.collector_locks() TO pgops;" in words
    assert words.startswith("SET LOCAL check_function_bodies = off; CREATE OR REPLACE FUNCTION ")


@given(st.lists(st.sampled_from(["$collector$", "$collector_$", "$collector__$", "$", "_", "x"])).map("".join))
def test_nothing_in_a_query_ends_its_quote(query: str) -> None:
    made = objects.collector_function(Collector("locks", f"SELECT '{query}' AS held", ()))
    quote = made.text.partition("\nAS ")[2].partition("\n")[0]
    assert re.fullmatch(r"\$[a-z_]+\$", quote)
    assert made.text.count(quote) == 2
    assert made.text.split(quote)[1].strip() == wrapped(f"SELECT '{query}' AS held")
