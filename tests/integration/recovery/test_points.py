# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_ops_recovery_point: a name is given once, and its WAL is archived when the module ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from archives import Host
from deploying import deploy, target
from servers import Server

from pgops.errors import Conflict, HostFailed, InvalidInput
from pgops.recovery import points


def point(server: Server, name: str = "before the release", check: bool = False, **params: Any) -> dict[str, Any]:
    """What the module returns; raises what it reports."""
    given = {"name": name, "description": None, "wait": True, "database": "pgops", **params}
    return points.converge(target(server), given, check)


@pytest.fixture(name="host")
def _host(make: Callable[..., Host]) -> Host:
    made = make()
    made.apply()
    deploy(made.server, backup=True)
    return made


def test_a_point_is_made_once_and_its_wal_is_archived(host: Host) -> None:
    predicted = point(host.server, check=True, description="42")
    assert predicted["point"] is None
    done = point(host.server, description="42")
    assert (done["changes"], done["prediction"]) == (predicted["changes"], predicted["prediction"])
    assert done["segment"] in host.archived()
    assert (done["point"]["name"], done["point"]["description"]) == ("before the release", "42")
    again = point(host.server)
    assert (again["changed"], again["point"], again["segment"]) == (False, done["point"], done["segment"])
    view = "SELECT target_lsn::text FROM pgops.recovery_points WHERE recovery_name = 'before the release'"
    assert host.server.value(view, "pgops") == done["point"]["lsn"]


def test_what_cannot_be_archived_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "PATIENCE", 0.5)
    host.repository.rename(host.base / "away")
    for _attempt in range(2):  # it is there the second time, and still not archived
        with pytest.raises(HostFailed, match="was not archived within") as caught:
            point(host.server)
        assert caught.value.hint
    (host.base / "away").rename(host.repository)


@pytest.mark.parametrize("name", ["", "x" * 64, "\u00e4" * 32, "two\nlines"])
def test_what_is_no_name_is_refused(host: Host, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be the name") as caught:
        point(host.server, name)
    assert caught.value.hint


def test_without_an_ops_database_it_says_what_to_do(host: Host) -> None:
    with pytest.raises(Conflict, match="no recovery points") as caught:
        point(host.server, database="postgres")
    assert "pgops_backup" in caught.value.hint


def test_a_standby_leaves_it_to_its_primary(host: Host, keep: Callable[[Server], Server]) -> None:
    standby = keep(host.server.standby()).start()
    assert "standby" in point(standby)["skipped_reason"]
