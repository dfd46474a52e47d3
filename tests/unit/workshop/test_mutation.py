# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mutation tests: which changes count, and that changed code does no harm."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import artifact
import mutation
import pytest


@pytest.mark.parametrize("module", mutation.PURE)
def test_what_does_not_count_is_there(module: str) -> None:
    tree = ast.parse((artifact.LIBRARY / f"{module.replace('.', '/')}.py").read_text())
    named = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert set(mutation.DOORS.get(module, "").split()) <= named


def test_functions_that_read_or_write_do_not_count() -> None:
    made = mutation.tallies(
        {
            "pgops.plan.x_difference__mutmut_1": "killed",
            "pgops.plan.x_difference__mutmut_2": "survived",
            "pgops.plan.xǁPlanǁdiff__mutmut_1": "no tests",
            "pgops.plan.xǁPlanǁ_diff__mutmut_1": "timeout",
            "pgops.opsdb.hba.x_read__mutmut_1": "survived",
            "pgops.opsdb.migrations.xǁMigrationChangeǁapply__mutmut_1": "survived",
            "pgops.opsdb.migrations.x_shipped__mutmut_1": "killed",
        }
    )
    assert {module: (tally.caught, tally.all) for module, tally in made.items()} == {
        "plan": (2, 4),
        "opsdb.migrations": (1, 1),
    }
    worst, best = mutation.summary(made).splitlines()
    assert worst.split() == ["50.0", "%", "2", "of", "4", "plan", "difference", "1,", "Plan.diff", "1"]
    assert best.split()[:2] == ["100.0", "%"]


def test_a_name_that_is_not_understood_is_no_success() -> None:
    with pytest.raises(SystemExit, match=r"pgops\.plan\.other"):
        mutation.tallies({"pgops.plan.other": "killed"})


def test_parts_are_chosen_by_themselves_or_by_their_package() -> None:
    assert mutation.chosen([]) == list(mutation.PURE)
    assert mutation.chosen(["plan", "opsdb.hba"]) == ["opsdb.hba", "plan"]
    assert set(mutation.chosen(["settings"])) >= {"settings.planning", "settings.autoconf"}
    with pytest.raises(SystemExit, match="no pure part named plam"):
        mutation.chosen(["plam"])


ATTEMPTS = """
import os, pathlib, shutil, signal, socket, subprocess, tempfile
import pytest

OUTSIDE = {outside!r}
DIRECTORY = os.open(OUTSIDE, os.O_RDONLY)


@pytest.mark.parametrize("attempt", [
    lambda: subprocess.run(["true"]),
    lambda: os.system("true"),
    lambda: os.kill(os.getpid(), 0),
    lambda: os.killpg(os.getpgid(0), 0),
    lambda: os.fork() or os._exit(0),
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: open(OUTSIDE + "/new", "w"),
    lambda: open(OUTSIDE + "/old", "r+"),
    lambda: os.open(OUTSIDE + "/new", os.O_WRONLY | os.O_CREAT),
    lambda: os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=DIRECTORY),
    lambda: os.remove(OUTSIDE + "/old"),
    lambda: os.remove("old", dir_fd=DIRECTORY),
    lambda: os.rename("inner", OUTSIDE + "/new"),
    lambda: os.replace(OUTSIDE + "/old", "inner"),
    lambda: os.link(OUTSIDE + "/old", "inner.link"),
    lambda: os.symlink("nowhere", OUTSIDE + "/new"),
    lambda: os.mkdir(OUTSIDE + "/new"),
    lambda: os.rmdir(OUTSIDE),
    lambda: os.chmod(OUTSIDE + "/old", 0),
    lambda: os.truncate(OUTSIDE + "/old", 0),
    lambda: os.utime(OUTSIDE + "/old", (0, 0)),
    lambda: shutil.rmtree(OUTSIDE),
    lambda: pathlib.Path("link/old").unlink(),
    lambda: pathlib.Path("link/../../outside/old").unlink(),
])
def test_refused(attempt):
    try:
        attempt()
    except Exception:
        pass
    raise AssertionError


def test_allowed(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "a").write_text("b")
        os.chmod(os.path.join(folder, "a"), 0o600)
        os.rename(os.path.join(folder, "a"), os.path.join(folder, "c"))
    (tmp_path / "a").mkdir()
    open("inner", "a").close()
    open(os.devnull, "w").close()
    assert pathlib.Path(OUTSIDE, "old").read_text() == "old"
"""


def test_a_test_of_changed_code_changes_nothing_outside_of_its_sandbox(tmp_path: Path) -> None:
    outside, sandbox = tmp_path / "outside", tmp_path / "sandbox"
    outside.mkdir()
    (outside / "old").write_text("old")
    (sandbox / "tmp").mkdir(parents=True)
    (sandbox / "inner").touch()
    (sandbox / "link").symlink_to(outside)
    (sandbox / "test_attempts.py").write_text(ATTEMPTS.format(outside=str(outside)))
    environment = {
        **os.environ,
        "PGOPS_SANDBOX": str(sandbox),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(artifact.ROOT / "tests" / "workshop"),
        "TMPDIR": str(sandbox / "tmp"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir=.", "-p", "harmless", "-p"]
    ran = subprocess.run(
        [*command, "no:cacheprovider", "test_attempts.py"],
        cwd=sandbox,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"^1 passed, 24 skipped in", ran.stdout, re.MULTILINE), ran.stdout + ran.stderr
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"old": "old"}
    assert (outside / "old").stat().st_nlink == 1
