# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manifest of a backup comes back as it was written, and shows each change of its text."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some
from keeping import manifest

from pgops.errors import InvalidInput
from pgops.repository.manifests import Tablespace, parse


def test_what_is_written_is_read() -> None:
    written = manifest(tablespaces=(Tablespace(16400, "/srv/fast disk"),), environment={"preloaded": ["pg_cron"]})
    assert parse(written.text(), "manifest.json") == written


def test_times_are_in_utc_whatever_the_zone() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    there = manifest(completed_at=datetime(2026, 1, 2, 3, 4, 5, 678, zone))
    found = parse(there.text(), "manifest.json")
    assert found.completed_at == there.completed_at
    assert found.completed_at.utcoffset() == timedelta(0)


@given(some.data())
def test_no_changed_byte_goes_unnoticed(data: some.DataObject) -> None:
    text = manifest().text()
    at = data.draw(some.integers(0, len(text) - 1))
    other = data.draw(some.characters(min_codepoint=32, max_codepoint=126).filter(lambda one: one != text[at]))
    changed = text[:at] + other + text[at + 1 :]
    try:
        same = json.loads(changed) == json.loads(text)  # another kind of white space
    except ValueError:
        same = False
    if same:
        assert parse(changed, "manifest.json") == manifest()
        return
    with pytest.raises(InvalidInput, match=r"manifest\.json") as caught:
        parse(changed, "manifest.json")
    assert caught.value.hint


@given(some.integers(0, len(manifest().text()) - 2))
def test_no_truncation_goes_unnoticed(length: int) -> None:
    with pytest.raises(InvalidInput):
        parse(manifest().text()[:length], "manifest.json")


def test_a_newer_format_says_so() -> None:
    text = manifest().text().replace('"format": 1', '"format": 2')
    with pytest.raises(InvalidInput, match="cannot read"):
        parse(text, "manifest.json")
