# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows made into samples, and samples into rounds."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import disks
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import Busy
from pgops.metrics import collectors, history, rounds
from pgops.metrics.rounds import LONGEST, SLACK, Sample, Shapes

QUEUE = collectors.parse(
    "-- collector: queue\n-- metric: waiting\n-- metric: served kind=counter\nSELECT 1 AS waiting", "queue.sql"
)
HERE = rounds.place(60, "shop db")
names = st.text(min_size=1, max_size=20)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "database": names,
            "shade": names,
            "waiting": st.integers(0, 10**6) | st.none(),
            "served": st.integers(0, 10**6),
            "counted_since": st.sampled_from(["2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", None]),
        }
    ),
    max_size=300,
    unique_by=lambda row: (row["database"], row["shade"]),
)
found = st.dictionaries(st.text(max_size=3), st.floats(0, 9), max_size=60)


def pack(values: dict[str, float], shapes: Shapes) -> list[rounds.Round]:
    return rounds.packed(HERE, [Sample(*one) for one in values.items()], "now", "marker", shapes)


def unpacked(made: list[rounds.Round]) -> dict[str, float]:
    return {series: value for one in made for series, value in zip(one.series, one.values) if value is not None}


@given(rows, st.randoms())
def test_rounds_depend_on_the_series_not_on_the_order_of_rows(some: list[dict[str, object]], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (rounds.packed(HERE, rounds.samples(QUEUE, given), "now", "m", {}) for given in (some, shuffled))
    assert one == other
    assert sum(made.samples for made in one) == len(some) + sum(row["waiting"] is not None for row in some)


@given(rows)
def test_counters_stand_with_those_that_count_since_the_same_time_and_gauges_apart(
    some: list[dict[str, object]],
) -> None:
    expected = {str(row["counted_since"] or "-") for row in some}
    samples = rounds.samples(QUEUE, some)
    assert {sample.counted_since for sample in samples if '"metric": "served"' in sample.series} == expected
    assert {sample.counted_since for sample in samples if '"metric": "waiting"' in sample.series} <= {"-"}
    origins = {made.origin for made in rounds.packed(HERE, samples, "now", "a b", {})}
    assert origins == {f"a b {sample.counted_since}" for sample in samples}


@given(st.lists(found, max_size=6))
def test_every_value_is_kept_and_no_round_is_too_long_whatever_comes_and_goes(
    runs_of_it: list[dict[str, float]],
) -> None:
    shapes: Shapes = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rounds, "LONGEST", 7)  # of the few series that a search makes, most are too many then
        for values in runs_of_it:
            made = pack(values, shapes)
            assert unpacked(made) == values
            assert all(0 < len(one.series) == len(one.values) <= 7 for one in made)
            places = sum(len(part) for parts in shapes[HERE].values() for part in parts) if values else 0
            assert places <= 2 * len(values) + SLACK


def test_what_is_too_long_for_a_round_is_several() -> None:
    values = {f"{number:04}": float(number) for number in range(2 * LONGEST + 1)}
    made = pack(values, {})
    assert [len(one.series) for one in made] == [LONGEST, LONGEST, 1]
    assert unpacked(made) == values


def test_a_round_that_would_be_too_long_is_split() -> None:
    names = [f"{number:03d}" for number in range(2 * LONGEST + 1)]
    values = dict.fromkeys(names, 1.0)
    shapes: Shapes = {}
    (whole,) = pack(dict.fromkeys(names[:LONGEST], 1.0), shapes)
    assert whole.series == tuple(names[:LONGEST])
    made = pack(values, shapes)
    assert [len(one.series) for one in made] == [LONGEST, LONGEST, 1]
    assert made[0].fingerprint == whole.fingerprint
    assert unpacked(made) == values


def test_a_round_says_where_when_and_since_when_it_was_measured() -> None:
    samples = rounds.samples(QUEUE, [{"waiting": 3, "served": 4, "counted_since": "2026-01-01T00:00:00+00:00"}])
    gauges, counters = rounds.packed(HERE, samples, "2026-01-02T00:00:00+00:00", "marker", {})
    assert {(one.place, one.collected_at) for one in (gauges, counters)} == {(HERE, "2026-01-02T00:00:00+00:00")}
    assert (gauges.origin, gauges.series, gauges.values) == ("marker -", ('{"metric": "waiting"}',), (3.0,))
    assert counters.origin == "marker 2026-01-01T00:00:00+00:00"
    assert (counters.series, counters.values) == (('{"metric": "served"}',), (4.0,))


def test_a_round_without_any_value_is_none() -> None:
    names = [f"{number:03d}" for number in range(LONGEST + 5)]
    shapes: Shapes = {}
    pack(dict.fromkeys(names, 1.0), shapes)
    (only,) = pack(dict.fromkeys(names[:LONGEST], 1.0), shapes)
    assert only.series == tuple(names[:LONGEST])
    assert len(pack(dict.fromkeys(names, 1.0), shapes)) == 2


def test_series_begin_anew_where_most_of_them_are_gone() -> None:
    """More than half of the places would be empty, and more than SLACK."""
    shapes: Shapes = {}
    names = [f"{number:03d}" for number in range(2 * 15 + SLACK)]
    pack(dict.fromkeys(names, 1.0), shapes)
    (kept,) = pack(dict.fromkeys(names[:15], 2.0), shapes)
    assert kept.series == tuple(names)
    (fresh,) = pack(dict.fromkeys(names[:14], 2.0), shapes)
    assert fresh.series == tuple(names[:14])


def test_series_that_come_and_go_make_no_new_shape() -> None:
    shapes: Shapes = {}
    both = pack({"a": 1.0, "b": 2.0}, shapes)
    (without,) = pack({"b": 3.0}, shapes)
    assert without.values == (None, 3.0)
    assert without.fingerprint == both[0].fingerprint == pack({"a": 5.0}, shapes)[0].fingerprint
    assert pack({"a": 1.0, "c": 1.0}, shapes)[0].series == ("a", "b", "c")


def test_the_name_of_a_place_tells_what_is_there() -> None:
    assert {
        rounds.place(60, "shop db"),
        rounds.place(60),
        rounds.place(60, "shop db", 90),
        rounds.place(60, "", 90),
    } == {*("60/0 shop db", "60/0 ", "60/90 shop db", "60/90 ")}
    for name, database in (("60/0 shop db", "shop db"), ("60/0 ", ""), ("60/0  x ", " x ")):
        assert (rounds.kind_of(name), rounds.database_of(name)) == ("60/0", database)
    assert rounds.kind_of(rounds.place(300, "a b", 7)) == rounds.kind(300, 7)


def test_a_sample_is_kept_as_long_as_its_metric() -> None:
    made = rounds.samples(QUEUE, [{"waiting": 3, "served": 4}], {"served": 7})
    assert [(one.value, one.keep_days) for one in made] == [(3.0, 0), (4.0, 7)]
    assert [type(one.value) for one in made] == [float, float]


def test_labels_other_than_the_four_are_kept_apart() -> None:
    (sample,) = rounds.samples(QUEUE, [{"database": "a", "part": "rest", "table": None, "waiting": 3}])
    assert sample.series == '{"database": "a", "metric": "waiting", "other": {"part": "rest"}}'


def test_two_rows_of_the_same_labels_are_left_out_and_nothing_else_is() -> None:
    given = [{"database": "a", "waiting": 3}, {"database": "b", "waiting": 5}, {"database": "a", "waiting": 4}]
    samples, repeated = rounds.told_apart(QUEUE, given)
    assert [one.value for one in samples] == [5.0]
    assert repeated == ['{"database": "a", "metric": "waiting"}']


def test_a_byte_that_is_not_utf_8_and_the_letters_for_it_are_two_labels() -> None:
    given = [{"database": "\udce4", "waiting": 3}, {"database": "\\xe4", "waiting": 4}]
    samples, repeated = rounds.told_apart(QUEUE, given)
    assert [(json.loads(one.series)["database"], one.value) for one in samples] == [("\\xe4", 3.0), ("\\\\xe4", 4.0)]
    assert repeated == []


@pytest.mark.parametrize(
    ("database", "own", "identity"),
    [(None, {}, None), (5, {}, "5"), (None, {"identity": "7"}, "7"), (5, {"identity": "7"}, "5/7")],
)
def test_counters_are_of_an_object_and_gauges_of_a_name(
    database: int | None, own: dict[str, str], identity: str | None
) -> None:
    row = {"database": "a", "waiting": 3, "served": 4, **own}
    waiting, served = (json.loads(one.series) for one in rounds.told_apart(QUEUE, [row], database=database)[0])
    assert waiting == {"metric": "waiting", "database": "a"}
    assert served == {"metric": "served", "database": "a", **({"identity": identity} if identity else {})}


def test_two_counters_of_one_object_are_left_out() -> None:
    """They would be taken for one counter whose name has changed."""
    given = [{"database": "a", "table": name, "served": 4, "identity": "7"} for name in ("one", "two")]
    assert rounds.told_apart(QUEUE, given, database=5)[0] == []
    assert len(rounds.told_apart(QUEUE, given)[0]) == 2


@given(found.filter(lambda values: len(values) > 1))
def test_the_halves_of_a_round_are_the_round(values: dict[str, float]) -> None:
    for one in pack(values, {}):
        if len(one.series) > 1:
            first, second = one.halves()
            assert {(half.place, half.collected_at, half.origin) for half in (first, second)} == {
                (one.place, one.collected_at, one.origin)
            }
            assert (first.series + second.series, first.values + second.values) == (one.series, one.values)
            assert first.series
            assert second.series


@given(found, st.lists(st.floats(0, 100), max_size=9))
def test_what_is_remembered_comes_back_but_for_databases_that_are_gone(
    values: dict[str, float], spent: list[float]
) -> None:
    here = history.key("inside", "shop db")
    remembered = history.Runs(last={"queue": 12.5, here: 12.5}, left_out={"shop db", "gone"})
    pack(values, remembered.shapes)
    for seconds in spent:
        remembered.note({"queue": seconds, here: seconds}, {"queue": 1})
    with tempfile.TemporaryDirectory() as folder:
        history.save(f"{folder}/collect.json", remembered)
        assert history.load(f"{folder}/collect.json") == remembered
    assert len(remembered.seconds.get("queue", [])) == min(len(spent), history.REMEMBERED)
    remembered.forget(["shop db"])
    assert HERE in remembered.shapes
    assert (here in remembered.last, here in remembered.seconds) == (True, bool(spent))
    assert remembered.left_out == {"shop db"}
    remembered.forget(["other"])
    assert (remembered.shapes, remembered.left_out) == ({}, set())
    assert set(remembered.last) == {"queue"}
    assert here not in remembered.seconds


def test_what_is_remembered_is_written_when_asked_for_and_what_others_wrote_is_heeded(tmp_path: Path) -> None:
    path = str(tmp_path / "collect")
    one, other = history.Memory(path), history.Memory(path)
    with one.held() as first, pytest.raises(Busy), other.held():
        pass
    first.last["queue"] = 1.0
    with one.held(writes=False) as again:
        assert again is first
        again.note({"queue": 0.5}, {"queue": 2, "broken": 1})
    assert history.load(f"{path}.json").costs == {}
    with one.held():
        pass
    with other.held() as found:
        assert found == first
        assert found.costs == {"queue": history.Cost(1, 0.5, 2), "broken": history.Cost(0, 0.0, 1)}
        found.note({history.key("queue", "a"): 1.0, history.key("queue", "b"): 0.5}, {})
        costs = found.reported()
    assert (costs["queue"].mean, costs["queue"].errors, costs["broken"].mean) == (1.0, 2, None)
    with one.held(writes=False) as found:
        assert found.costs == {}


def test_what_ran_is_known_although_the_disk_is_full(small_disk: Path) -> None:
    path = str(small_disk / "collect")
    with history.Memory(path).held() as found:
        assert found.last == {}
        found.last.update(table_size=1.0)
        found.shapes[HERE] = {"2026-01-01": [["a" * 9000]]}
    with history.Memory(path).held(writes=False) as found:
        assert found.last == {"table_size": 1.0}
    for suffix in ("lock", "json"):  # an hour ago
        os.utime(f"{path}.{suffix}", (time.time() - 3600,) * 2)
    disks.fill(small_disk)
    full = history.Memory(path)
    with full.held() as found:
        assert found.last == {"table_size": 1.0}
        found.started = time.time() - 30
        found.last.update(table_size=found.started, activity=found.started + 20)
    assert "No space left" in full.errors[0]
    begun = found.started
    with history.Memory(path).held(writes=False) as found:
        assert found.last == {"table_size": pytest.approx(begun)}
    os.utime(f"{path}.lock", (begun + 3600, begun + 3600))  # the clock was put back
    with history.Memory(path).held() as found:
        assert found.last == {"table_size": 1.0}
    (small_disk / "filler").unlink()
    with history.Memory(path).held() as found:
        found.last.update(table_size=2.0)
    with history.Memory(path).held() as found:
        assert found.last == {"table_size": 2.0}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "last": {}}', '{"format": 2, "last": 3}'])
def test_a_file_that_is_none_of_ours_remembers_nothing(text: str) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        assert history.load(file.name) == history.Runs()
    assert history.load("/nonexistent/collect.json") == history.Runs()
