# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The records of jobs: what a failing job's says, and that another user's file is not relied on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pgops.capabilities import JOBS
from pgops.instance import records
from pgops.instance.layout import Layout
from pgops.instance.records import FORMAT, Record
from pgops.metrics.collect import job_rows
from pgops.metrics.collectors import JOBS as JOBS_METRICS
from pgops.metrics.rounds import samples


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    layout = Layout("main", str(tmp_path))
    for folder in (layout.state, layout.inspection):
        Path(folder).mkdir(parents=True)
    return layout


@pytest.mark.parametrize("job", JOBS)
def test_a_run_is_recorded_where_its_user_may_write(layout: Layout, job: str) -> None:
    records.note(layout, job, 1000.0, 2.5, 0)
    assert records.known(layout) == {job: Record(1000.0, 2.5, 0, 1000.0)}
    assert os.path.dirname(records.path(layout, job)) == (layout.inspection if JOBS[job].as_server else layout.state)


def test_a_failing_job_was_sound_when_it_last_was(layout: Layout) -> None:
    records.note(layout, "collect", 1000.0, 2.5, 0)
    for ended in (1060.0, 1120.0):
        records.note(layout, "collect", ended, 1.0, 3)
    assert records.read(layout, "collect") == Record(1120.0, 1.0, 3, 1000.0)
    records.note(layout, "collect", 1180.0, 1.0, 0)
    assert records.read(layout, "collect") == Record(1180.0, 1.0, 0, 1180.0)


def test_a_job_that_never_was_sound_counts_from_its_first_run(layout: Layout) -> None:
    records.note(layout, "queries", 1000.0, 2.5, 1)
    records.note(layout, "queries", 2000.0, 2.5, 1)
    assert records.read(layout, "queries") == Record(2000.0, 2.5, 1, 997.5)


def test_nothing_took_less_than_no_time(layout: Layout) -> None:
    records.note(layout, "collect", 1000.0, -2.5, 0)
    assert records.known(layout) == {}


VALUES = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.just(10**400)
    | some.floats()
    | some.text(max_size=3)
    | some.just([[]])
)
FIELDS = some.fixed_dictionaries(dict.fromkeys(("ended", "seconds", "errors", "sound"), VALUES))


@given(FIELDS)
def test_numbers_of_another_user_are_numbers_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object]
) -> None:
    layout = Layout("main", str(tmp_path_factory.getbasetemp() / "records"))
    Path(layout.inspection).mkdir(parents=True, exist_ok=True)
    Path(records.path(layout, "inspect")).write_text(json.dumps({"format": FORMAT, **fields}))
    found = records.read(layout, "inspect")
    if found is not None:
        assert records.EARLIEST <= found.sound <= records.LATEST
        assert 0 <= found.seconds <= records.LATEST
        assert 0 <= found.errors <= records.MOST_ERRORS
        assert len(samples(JOBS_METRICS, job_rows({"inspect": found}, time.time()))) == 3


@pytest.mark.parametrize("text", ["", "[]", "7", '{"format": 2}', '{"format": 1}', "[" * 100000, "x" * 100000])
def test_what_cannot_be_read_is_no_record(layout: Layout, text: str) -> None:
    Path(records.path(layout, "inspect")).write_text(text)
    assert records.read(layout, "inspect") is None


def test_neither_a_link_nor_a_pipe_is_read(layout: Layout, tmp_path: Path) -> None:
    records.note(layout, "inspect", 1000.0, 2.5, 0)
    path = Path(records.path(layout, "inspect"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert records.read(layout, "inspect") is None
    path.unlink()
    os.mkfifo(path)
    assert records.read(layout, "inspect") is None
