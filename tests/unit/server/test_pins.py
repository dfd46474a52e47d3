# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings of our sessions, as they are asked for."""

from __future__ import annotations

import shlex

import pytest

from pgops.server import majors, pins


def asked(as_users: bool = False) -> dict[str, str]:
    words = shlex.split(pins.options({"lock_timeout": "100"}, as_users))
    assert set(words[::2]) == {"-c"}
    return dict(word.split("=", 1) for word in words[1::2])


def test_every_value_arrives_as_it_is() -> None:
    assert asked() == {**pins.PINNED, **pins.NAMES, **pins.PLANS, "lock_timeout": "100"}


def test_who_plans_as_users_do_leaves_names_and_plans_alone() -> None:
    assert asked(as_users=True) == {**pins.PINNED, "lock_timeout": "100"}


def test_who_reads_settings_changes_next_to_none() -> None:
    assert pins.options({"lock_timeout": "100"}, as_is=True) == "-c role=none -c lock_timeout=100"
    assert "'quote_all_identifiers', 'off'" in pins.opening(18, as_is=True)
    assert "work_mem" not in pins.opening(18, as_is=True)


def test_what_a_version_has_is_asked_of_one_that_is_known() -> None:
    assert "transaction_timeout" not in pins.options({}, major=16)
    assert "-c transaction_timeout=0" in pins.options({}, major=17)
    assert pins.options({}, as_is=True, major=17) == "-c role=none"


def test_all_that_ends_sessions_is_pinned_where_one_was_cut_short() -> None:
    asked = shlex.split(pins.options({}, as_is=True, major=17, cut_short=True))[1::2]
    assert {*asked} == {"role=none", *(f"{name}=0" for name in pins.ENDING)}
    assert "transaction_timeout" not in pins.options({}, as_is=True, major=16, cut_short=True)


@pytest.mark.parametrize("major", range(majors.OLDEST, majors.NEWEST + 1))
def test_what_a_version_lacks_is_not_asked_of_it(major: int) -> None:
    text = pins.opening(major)
    assert ("transaction_timeout" in text) == (major >= 17)
    assert ("createrole_self_grant" in text) == (major >= 16)
    for name, (since, _value) in pins.PLANS_SINCE.items():
        assert (name in text) == (major >= since)
        assert name not in pins.opening(major, as_users=True) + pins.opening(major, as_is=True)


def test_the_parameters_leave_room_in_the_packet_that_starts_a_session() -> None:
    # A server reads 10,000 bytes of it, with the names of user and database, of at most 63 each.
    assert len(pins.options({"lock_timeout": "100", "statement_timeout": "100"}).encode()) < 5000


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ('FATAL: unrecognized configuration parameter "default_toast_compression"', True),
        ("FATAL:  unbekannter Konfigurationsparameter »idle_session_timeout«", True),
        ("FATAL: unsupported startup parameter in options: role", True),
        ('FATAL: role "nobody" does not exist', False),
    ],
)
def test_an_error_about_the_parameters_is_known(words: str, ours: bool) -> None:
    assert pins.unknown(words) is ours


def test_event_triggers_are_left_alone_unless_asked_for() -> None:
    assert pins.EVENT_TRIGGERS not in pins.options({})
    assert pins.options({}, event_triggers=False).endswith(" -c event_triggers=off")


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ('FATAL: unrecognized configuration parameter "event_triggers"', True),
        ("FATAL:  keine Berechtigung, um Parameter »event_triggers« zu setzen", True),
        ('FATAL: unrecognized configuration parameter "default_toast_compression"', False),
    ],
)
def test_a_server_or_role_that_has_none_to_set_is_known(words: str, refused: bool) -> None:
    assert pins.refused(words) is refused
    assert not (refused and pins.unknown(words))
