# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where files are, and which names and prefixes there may be."""

from __future__ import annotations

import pytest

from pgops.errors import InvalidInput
from pgops.instance.layout import Layout


def test_files_are_where_the_documentation_says() -> None:
    found = Layout("16-main")
    assert (found.agent_file, found.passfile, found.collectors) == (
        "/etc/pgops/16-main/agent.json",
        "/etc/pgops/16-main/pgpass",
        "/etc/pgops/16-main/collectors",
    )
    assert (found.state, found.keeping, found.inspection) == (
        "/var/lib/pgops/16-main/state",
        "/var/lib/pgops/16-main/keeping",
        "/var/lib/pgops/16-main/inspection",
    )
    assert (found.library, found.command) == ("/usr/local/lib/pgops", "/usr/local/bin/pgops")
    assert found.textfile("/srv/textfiles") == "/srv/textfiles/pgops_16-main.prom"
    assert Layout("a.b").crontab == "/etc/cron.d/pgops-a_b"


@pytest.mark.parametrize(
    ("prefix", "below"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/srv/agent", "/srv/agent/"),
        ("/srv/agent/", "/srv/agent/"),
        ("//srv/./x/../agent", "/srv/agent/"),
    ],
)
def test_everything_is_below_the_prefix(prefix: str, below: str) -> None:
    found = Layout("main", prefix)
    names = [name for name, one in vars(Layout).items() if isinstance(one, property)]
    assert {str(getattr(found, name)).startswith(below) for name in names} == {True}
    assert found.agent_file == f"{below}etc/pgops/main/agent.json"
    assert found.lock == f"{below}{'run/' if below == '/' else ''}pgops.lock"


@pytest.mark.parametrize("prefix", ["", "srv", "./srv"])
def test_a_prefix_that_depends_on_where_one_stands_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidInput, match="absolute path"):
        Layout("main", prefix)


@pytest.mark.parametrize("name", ["m", "16-main", "a.b_c-D", "x" * 63])
def test_a_name_fits_into_the_names_of_files_and_units(name: str) -> None:
    assert Layout(name).instance == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "größe", "x" * 64])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="names of files and units"):
        Layout(name)
