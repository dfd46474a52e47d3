# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What modules have changed is written down for the agent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pgops.instance import deployments
from pgops.instance.configuration import Configuration
from pgops.instance.layout import Layout


def known(root: Path, name: str = "main", **settings: Any) -> Layout:
    """An instance that was deployed."""
    layout = Layout(name, str(root))
    Path(layout.state).mkdir(parents=True)
    Path(layout.configuration).mkdir(parents=True)
    Path(layout.agent_file).write_text(Configuration(name, "shop", f"db1/{name}", **settings).text())
    return layout


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"instance": "main"}, ["main"]),
        ({"instance": "other"}, []),
        ({"instance": "../main"}, []),
        ({"instances": [{"name": "main"}, {"name": "remote"}, {"name": "new"}]}, ["main", "remote"]),
        ({"login_host": "/run/postgresql", "login_port": 5433}, ["main"]),
        ({"login_host": "", "login_port": 5434}, []),
        ({"login_host": "db.example.com", "login_port": 5433}, ["remote"]),
        ({}, []),
    ],
)
def test_whose_they_are(tmp_path: Path, params: dict[str, Any], names: list[str]) -> None:
    known(tmp_path, port=5433)
    known(tmp_path, "remote", port=5433, host="db.example.com")
    known(tmp_path, "broken")
    Path(Layout("broken", str(tmp_path)).agent_file).write_text("{")
    found = deployments.concerned({**params, "prefix": str(tmp_path)})
    assert [layout.instance for layout in found] == names


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    layout = known(tmp_path)
    began = time.time() - 1
    deployments.note(
        "pg_ops_agent", {"instance": "main", "prefix": str(tmp_path)}, [f"create {n}" for n in range(30)]
    )
    (found,) = deployments.read(layout, began)
    assert (found.module, found.changes[0], len(found.changes), found.more) == ("pg_ops_agent", "create 0", 20, 10)
    assert deployments.read(layout, time.time() + 60) == []
    assert Path(layout.deployments).stat().st_mode & 0o777 == 0o644


def test_the_file_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    layout = known(tmp_path)
    for number in range(120):
        deployments.note(f"m{number}", {"instance": "main", "prefix": str(tmp_path)}, ["x" * 200] * 20)
    assert Path(layout.deployments).stat().st_size <= deployments.LARGEST
    found = [one.module for one in deployments.read(layout, 0)]
    assert len(found) >= 10
    assert found == [f"m{number}" for number in range(120 - len(found), 120)]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    layout = known(tmp_path)
    assert deployments.read(layout, 0) == []
    params = {"instance": "main", "prefix": str(tmp_path)}
    deployments.note("pg_ops_agent", params, [])
    file = Path(layout.deployments)
    file.write_text(f'nothing\n{{"at": "2999-01-01T00:00:00+00:00"}}\n[]\n{file.read_text()}{{"at": "20')
    assert [one.module for one in deployments.read(layout, 0)] == ["pg_ops_agent"]
    file.unlink()
    file.symlink_to("/etc/hostname")
    assert deployments.read(layout, 0) == []
    deployments.note("pg_ops_agent", params, [])
    assert file.is_symlink()
