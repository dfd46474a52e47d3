"""Fixtures for all tests: real servers and databases on them, and the installed collection."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import artifact
import disks
import majors
import psycopg
import pytest
import scratch
from hypothesis import HealthCheck, Phase, settings
from majors import EVERY_MAJOR, make_server
from servers import Server

# How long something takes says how busy the machine is. The same examples each time, unless PGOPS_TEST_SEARCH is set:
# what a search finds belongs to who searches, and not to whoever comes by next. A smoke set has few of them.
settings.register_profile(
    "unhurried",
    deadline=None,
    derandomize=not os.environ.get("PGOPS_TEST_SEARCH"),
    max_examples=20 if majors.matrix() == "smoke" else 100,
    suppress_health_check=[HealthCheck.too_slow],
)
# Of a change that a test has noticed, nobody wants to know the smallest example.
settings.register_profile("mutation", settings.get_profile("unhurried"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("unhurried")
# Nothing of a test need survive a power cut: an agent's 460 calls would take most of its installation's time.
os.fsync = lambda _descriptor: None
tempfile.tempdir = str(scratch.root())
artifact.link_library()
sys.path.append(str(artifact.COLLECTIONS))
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(artifact.COLLECTIONS)
os.environ.setdefault("ANSIBLE_LOCALHOST_WARNING", "False")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests on servers, keep what is to run, which majors.py says. What shares servers runs in one process:
    the groups of xdist are a major's, and parted by modules."""
    asked = majors.matrix()
    kept, left_out = [], []
    for item in items:
        if "integration" not in item.path.parts:
            kept.append(item)
        elif majors.chosen(item, asked):
            kept.append(item)
            for group in majors.groups(item, asked):
                item.add_marker(pytest.mark.xdist_group(group))
        else:
            left_out.append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", params=EVERY_MAJOR)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running server, one for all tests of its major: leave no role and no setting behind."""
    with make_server(request.param) as running:
        yield running


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """The name of a new database on `server`."""
    with server.database() as name:
        yield name


@pytest.fixture
def connection(server: Server, database: str) -> Iterator[psycopg.Connection]:
    """The superuser's connection to `database`, in autocommit mode."""
    with server.connect(database) as opened:
        yield opened


@pytest.fixture(params=EVERY_MAJOR)
def major(request: pytest.FixtureRequest) -> int:
    """Every major in turn, for tests that make servers of their own with `new_server`."""
    return int(request.param)


@pytest.fixture
def new_server() -> Iterator[Callable[..., Server]]:
    """Makes stopped servers that this test may break: `new_server(major, auth="scram-sha-256")`.

    Takes what `Server.create` takes.
    """
    made: list[Server] = []

    def make(major: int, **options: object) -> Server:
        made.append(make_server(major, **options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.delete()


@pytest.fixture
def keep() -> Iterator[Callable[[Server], Server]]:
    """Deletes a server at the end of the test: `standby = keep(server.standby()).start()`."""
    kept: list[Server] = []

    def remember(one: Server) -> Server:
        kept.append(one)
        return one

    yield remember
    for one in reversed(kept):
        one.delete()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own, which a test can fill."""
    with disks.small(tmp_path / "disk", "8m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        yield tmp_path / "disk"
