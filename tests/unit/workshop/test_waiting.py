"""The one way to wait says what it saw, and looks once more where the machine stood still."""

from __future__ import annotations

import pytest
import waiting
from clocks import Clock
from waiting import LateError, until


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


def test_what_is_wanted_is_returned() -> None:
    seen = iter([0, 3, 7])
    assert until(lambda: next(seen), "there") == 3
    assert until(lambda: next(seen), "there", 7) == 7
    assert until(lambda: None, "nothing", None) is None
    assert until(lambda: 5, "enough", lambda found: found > 4) == 5


def test_what_does_not_come_is_told_with_what_came() -> None:
    with pytest.raises(LateError, match=r"^not 2 sessions within 180 s: seen was 1, and not 2$"):
        until(lambda: 1, "2 sessions", 2)
    with pytest.raises(LateError, match=r"^not there within 5 s: seen was \[\]$"):
        until(list, "there", patience=5)


def test_who_stood_still_looks_once_more(clock: Clock) -> None:
    def stand_still() -> None:
        clock.now += 1000

    clock.meanwhile = [stand_still]
    seen = iter([False, True])
    assert until(lambda: next(seen), "there")
