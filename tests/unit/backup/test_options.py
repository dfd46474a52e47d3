# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may be declared of backups."""

from __future__ import annotations

from typing import Any

import pytest

from pgops.backup.options import options
from pgops.errors import InvalidInput
from pgops.instance.configuration import Configuration


def configuration(**declared: Any) -> Configuration:
    return Configuration("main", "shop", "db1/main", parts={"backup": declared})


def test_without_a_word_backups_are_full_plain_and_of_the_primary() -> None:
    found = options(configuration())
    assert (found.engine, found.compression, found.source, found.incremental) == ("native", "none", "primary", False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine", "magic"),
        ("compression", "bzip2"),
        ("full_interval_hours", -1.0),
        ("max_rate_mb", -0.5),
        ("max_rate_mb", float("nan")),
    ],
)
def test_what_means_nothing_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"pgops_backup_{name}") as caught:
        options(configuration(**{name: value}))
    assert caught.value.hint
