# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which servers name a program: a server whose configuration cannot be read may be one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import artifact
import pytest

PROGRAM = "/usr/local/lib/pgops/archiver"
NOBODY = 65534
LESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-chown,-fowner")
"""Root as an NFS server with root_squash sees it."""
RUN = """
import json, sys
program, known, root, *sys.path[:0] = json.loads(sys.argv[1])
from pgops.server import programs
print(json.dumps([[use.instance, list(use.settings)] for use in programs.uses(program, known, root)]))
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root looks as other users")


@pytest.fixture(name="closed")
def _closed() -> Iterator[Path]:
    """A directory of a server's user that nobody else may pass."""
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        closed = Path(top, "closed")
        (closed / "data").mkdir(parents=True)
        (closed / "data" / "postgresql.auto.conf").write_text(f"archive_command = '{PROGRAM} push'\n")
        for path in (closed, *closed.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        closed.chmod(0o700)
        yield closed


def found(closed: Path, data: Path, *prefix: str) -> list[list[object]]:
    asked = json.dumps([PROGRAM, {"main": str(data)}, str(closed.parent), str(artifact.BUILD / "lib"), *sys.path])
    done = subprocess.run([*prefix, sys.executable, "-c", RUN, asked], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_a_server_that_names_it_is_found(closed: Path) -> None:
    assert found(closed, closed / "data") == [["main", ["archive_command"]]]


def test_one_that_cannot_be_looked_at_counts(closed: Path) -> None:
    ((name, (setting,)),) = found(closed, closed / "data", *LESS)
    assert (name, "cannot be read" in setting) == ("main", True)


def test_one_that_is_gone_does_not(closed: Path) -> None:
    assert found(closed, closed / "gone") == []
    mount = closed.parent / "mount"  # without its file system it is root's
    mount.mkdir()
    assert found(closed, mount) == []
    os.chown(mount, 54321, 54321)  # nor that of a user who was deleted
    assert found(closed, mount) == []
