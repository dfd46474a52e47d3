# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which libraries and how much memory a restored server gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgops.errors import InvalidInput
from pgops.recovery import configuring, resources
from pgops.recovery.configuring import Served

WAS = {"preloaded": ["pg_stat_statements", "pg_cron", "$libdir/pglogical.so"]}


def test_a_copy_preloads_nothing_that_acts_on_the_world_unless_told() -> None:
    assert resources.preloaded(WAS, None) == ("pg_stat_statements",)
    assert resources.preloaded(WAS, ["pg_cron"]) == ("pg_cron",)
    assert resources.preloaded(WAS, []) == ()
    assert resources.preloaded({}, None) is None


def test_what_is_told_is_configured() -> None:
    settings = configuring.own_settings(Served("/r/d", True, preload=("a", "B c"), shared_buffers="64MB"))
    assert (settings["shared_preload_libraries"], settings["shared_buffers"]) == ('"a", "B c"', "64MB")
    nothing = configuring.own_settings(Served("/r/d", True, preload=()))
    assert nothing["shared_preload_libraries"] == ""
    assert not {"shared_preload_libraries", "shared_buffers"} & set(configuring.own_settings(Served("/r/d", True)))


@pytest.fixture(name="programs")
def _programs(tmp_path: Path) -> str:
    for path in ("bin", "lib", "other"):
        (tmp_path / path).mkdir()
    for path in ("lib/plpgsql.so", "lib/one.so", "other/two.so"):
        (tmp_path / path).touch()
    return str(tmp_path / "bin")


@pytest.mark.parametrize(
    ("name", "path", "there"),
    [
        ("one", "", True),
        ("$libdir/one", "", True),
        ("one.so", "", True),
        ("two", "", False),
        ("two", "{}/other:$libdir", True),
        ("{}/other/two", "", True),
        ("{}/other/one", "", False),
    ],
)
def test_a_library_that_is_not_there_is_refused(programs: str, name: str, path: str, there: bool) -> None:
    root = str(Path(programs).parent)
    environment = {"settings": {"dynamic_library_path": path.format(root)}}
    if there:
        resources.check_libraries([name.format(root)], environment, programs, "")
        return
    with pytest.raises(InvalidInput, match="would not start"):
        resources.check_libraries([name.format(root)], environment, programs, "")


def test_where_it_is_not_known_nothing_is_refused(tmp_path: Path) -> None:
    resources.check_libraries(["one"], {}, str(tmp_path), "")


def test_a_copy_gets_a_part_of_the_memory_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8000000 kB\nMemAvailable:   4194304 kB\n")
    monkeypatch.setattr(resources, "MEMINFO", str(meminfo))

    def of(blocks: int, asked: str = "") -> tuple[str, str]:
        was = {"settings": {"shared_buffers": str(blocks), "block_size": "8192"}}
        return resources.shared_buffers(was, asked)

    assert of(131_072) == ("", "")
    value, warning = of(131_073 * 2)
    assert (value, "not 2048MB as its original" in warning) == ("1024MB", True)
    assert of(1 << 20, "3GB") == ("3GB", "")
    assert resources.shared_buffers({}, "") == ("", "")
    with pytest.raises(InvalidInput, match="not a size"):
        of(1, "much")
    meminfo.write_text("")
    assert of(1 << 30) == ("", "")
