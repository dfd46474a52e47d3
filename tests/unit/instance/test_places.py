# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directories of the server that the watch knows without asking it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgops.instance import places
from pgops.instance.layout import Layout

FOUND = [{"path": "/data", "disk": "data"}, {"path": "/more", "disk": "tablespace", "tablespace": "more"}]


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    layout = Layout("main", str(tmp_path))
    Path(layout.state).mkdir(parents=True)
    return layout


def test_what_was_noted_last_is_known(layout: Layout) -> None:
    assert places.known(layout) == {}
    places.note(layout, FOUND)
    assert places.known(layout) == {"/data": "data", "/more": "tablespace"}
    places.note(layout, FOUND[:1])
    assert places.known(layout) == {"/data": "data"}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2, "places": {"/a": "data"}}', '{"format": 1}', "\xff", "{" * 9999]
)
def test_a_file_that_cannot_be_read_says_nothing_and_is_written_anew(layout: Layout, text: str) -> None:
    Path(places.path(layout)).write_text(text, encoding="latin-1")
    assert places.known(layout) == {}
    places.note(layout, FOUND[:1])
    assert places.known(layout) == {"/data": "data"}


def test_where_nothing_can_be_written_it_stays_as_it_was(layout: Layout) -> None:
    Path(layout.state).rmdir()
    places.note(layout, FOUND)
    assert places.known(layout) == {}
