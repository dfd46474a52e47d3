# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs later runs as somebody else: the agent and the program that archives are tried as their users, before
they take the place of what works."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import BUNDLE, install

from pgops.agent import interpreter
from pgops.agent.declared import Desired
from pgops.agent.program import Executable
from pgops.errors import DriverMissing, HostFailed
from pgops.host.files import apply
from pgops.instance.layout import Layout

SYSTEM = "/usr/bin/python3"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(name="place")
def _place() -> Iterator[Path]:
    """A directory that all users can reach: those of pytest are closed to others."""
    place = Path(tempfile.mkdtemp(prefix="pgops-python-"))
    place.chmod(0o755)
    (place / "host").mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(name="_hosts_own")
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As below /, where the agent has a user, and the tests leave nothing."""
    monkeypatch.setattr(Desired, "owners", property(lambda desired: ("root", desired.user, desired.group)))


def python(folder: Path, mode: int = 0o755, driver: bool = True) -> str:
    """A Python with something to import as psycopg, in a directory of its own."""
    subprocess.run([SYSTEM, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    if driver:
        (packages / "psycopg.py").touch()
    folder.chmod(mode)
    return str(folder / "venv" / "bin" / "python")


def converge(place: Path, check: bool = False, **other: Any) -> dict[str, Any]:
    """What pg_ops_agent returns; the agent's user and the server's are two others than root."""
    return install(check, prefix=str(place / "host"), user="nobody", owner="postgres", **other)


def installed(place: Path) -> str:
    """The version that the command says it has, run as people run it."""
    command = Layout("main", str(place / "host")).command
    return subprocess.run([command, "version"], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.usefixtures("_hosts_own")
def test_a_python_that_the_agents_user_cannot_run_is_refused_before_anything_is_written(place: Path) -> None:
    inside = python(place / "home", 0o700)
    for check in (True, False):
        with pytest.raises(HostFailed, match="user nobody cannot start it") as caught:
            converge(place, check, python=inside)
        assert inside in caught.value.message
        assert "pgops_python" in caught.value.hint
    assert list((place / "host").iterdir()) == []


@pytest.mark.usefixtures("_hosts_own")
def test_where_ansibles_python_is_roots_alone_one_that_all_can_run_is_taken(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = python(place / "home", 0o700), python(place / "everybodys")
    monkeypatch.setattr("sys.executable", inside)
    monkeypatch.setattr(interpreter, "OTHERS", (str(place / "absent"), outside))
    predicted = converge(place, True)
    assert converge(place) == predicted
    assert not converge(place)["changed"]
    launcher = Path(Layout("main", str(place / "host")).launcher)
    assert launcher.read_text().startswith(f"#!{outside} -I\n")
    assert subprocess.run([launcher, "version"], check=True, user="postgres", capture_output=True).stdout
    # Another user's server: it is tried anew, and said who cannot.
    (place / "everybodys").chmod(0o700)
    with pytest.raises(HostFailed, match="user nobody cannot start it"):
        converge(place, sources=newer())


@pytest.mark.usefixtures("_hosts_own")
def test_a_python_that_its_users_can_no_longer_reach_is_not_taken_for_tried(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = python(place / "first"), python(place / "second")
    monkeypatch.setattr("sys.executable", first)
    monkeypatch.setattr(interpreter, "OTHERS", (second,))
    converge(place)
    launcher = Path(Layout("main", str(place / "host")).launcher)
    assert launcher.read_text().startswith(f"#!{first} -I\n")
    (place / "first").chmod(0o700)
    assert converge(place)["changed"]
    assert launcher.read_text().startswith(f"#!{second} -I\n")
    (place / "second").chmod(0o700)
    with pytest.raises(HostFailed, match="user nobody cannot start it"):
        converge(place)


def newer() -> dict[str, str]:
    """Another version of the program."""
    return {**BUNDLE, "version.py": 'VERSION = "9"\n'}


@pytest.mark.usefixtures("_hosts_own")
def test_a_python_whose_driver_a_user_cannot_read_is_refused(place: Path) -> None:
    there = python(place / "everybodys")
    for path in place.rglob("psycopg.py"):
        path.chmod(0o600)
    with pytest.raises(DriverMissing, match="cannot import psycopg 3 as user nobody"):
        converge(place, python=there)
    assert list((place / "host").iterdir()) == []


def test_what_archives_stays_where_its_user_could_not_run_the_new_program(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiving: dict[str, Any] = {"repository": "/srv/repository/shop"}
    program = Path(Layout("main", str(place / "host")).archiver)
    with monkeypatch.context() as patched:
        patched.setattr(Desired, "owners", property(lambda desired: ("root", desired.user, desired.group)))
        converge(place, python=python(place / "everybodys"), **archiving)
    works = program.read_bytes()
    inside = python(place / "home", 0o700)
    # Installed by a run that did not ask who runs it: the present state of hosts that were set up before.
    converge(place, python=inside)
    monkeypatch.setattr(Desired, "owners", property(lambda desired: ("root", desired.user, desired.group)))
    before = installed(place)
    with pytest.raises(HostFailed, match="user nobody cannot start it"):
        converge(place, python=inside, sources=newer(), **archiving)
    assert (installed(place), program.read_bytes()) == (before, works)


def test_a_program_of_one_file_is_tried_beside_the_present_one(place: Path) -> None:
    inside, path = python(place / "home", 0o700), str(place / "program")
    good = Executable(path, f"#!{SYSTEM} -IS\n".encode(), 0o755, users=("postgres",), trial=("check",))
    apply([good])
    with pytest.raises(HostFailed, match="is left as it was: User postgres cannot run it") as caught:
        apply([Executable(path, f"#!{inside} -IS\n".encode(), 0o755, users=("postgres",), trial=("check",))])
    assert "pgops_python" in caught.value.hint
    assert Path(path).read_bytes() == good.content
    assert sorted(entry.name for entry in place.iterdir()) == ["home", "host", "program"]
