# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shipped rules fire by the fault that they are for, where other jobs than `collect` see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archives import Host
from backed import Backed, flip, put_back
from deploying import SHIPPED, collect, deploy
from drilling import Drilling
from quick import declare, firing

from pgops.repository import catalogue

BACKUPS = [one for one in SHIPPED if one.name == "backups"]
DRILLS = [one for one in SHIPPED if one.name == "drills"]


def test_a_cluster_that_cannot_be_recovered_fires_until_it_has_a_backup(
    make: Callable[..., Host], tmp_path: Path
) -> None:
    backed = Backed.of(make())
    server = backed.server

    def seen(name: str, labels: str = "{}") -> list[str]:
        assert catalogue.update(backed.configuration())["errors"] == []
        assert collect(server, tmp_path, found=BACKUPS)["errors"] == []
        return firing(server, name, labels)

    declare(server, {"backup_age": 0.0}, capabilities=["backup"])
    backed.host.wait_for(backed.host.switch())
    assert seen("not_recoverable") == ["critical"]
    backed.take("full")
    assert seen("not_recoverable") == []
    full = '{"backup_type": "full"}'
    assert firing(server, "backup_age", full) == ["critical"]
    declare(server, {}, capabilities=["backup"])
    assert firing(server, "backup_age", full) == []


def test_a_drill_that_fails_fires_until_one_passes(make: Callable[..., Host], tmp_path: Path) -> None:
    drilling = Drilling(Backed.of(make()))
    backed, server = drilling.backed, drilling.backed.server
    deploy(server, backup=True, drill_interval_hours=1.0)
    declare(server, {}, capabilities=["backup", "recovery"])

    def seen(name: str) -> list[str]:
        assert collect(server, tmp_path, found=DRILLS)["errors"] == []
        return firing(server, name)

    taken = backed.take("full")
    server.value("UPDATE pgops.setting SET valid_since = now() - interval '91 min'", "pgops")
    assert seen("recovery_unproven") == ["critical"]
    with put_back(backed.path(taken) / "data" / "PG_VERSION") as file:
        flip(file)
        assert drilling.drill()["status"] == "failed"
    assert (seen("recovery_drill_failed"), seen("recovery_unproven")) == (["critical"], ["critical"])
    assert drilling.drill()["status"] == "passed"
    assert (seen("recovery_drill_failed"), seen("recovery_unproven")) == ([], [])
