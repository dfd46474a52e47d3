# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers of benchmarks that are backed up, and our command."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from archives import Host
from artifact import ROOT
from backed import Backed
from servers import Server

DURABLE = {"fsync": "on", "full_page_writes": "on"}
"""What is copied, restored and committed survives a power cut, as elsewhere; other tests do without."""
PROGRAM = "import sys; from pgops.cli import main; sys.exit(main())"


@contextlib.contextmanager
def hosted(
    major: int, settings: Mapping[str, str], fill: Callable[[Server], object]
) -> Iterator[tuple[Backed, Path]]:
    """A server that archives once it was filled, and a directory that anybody may look into."""
    # Below /tmp, since the server's user cannot look into every build.
    root = Path(tempfile.mkdtemp(prefix="pgops-bench-", dir="/tmp"))
    root.chmod(0o755)
    for name in ("base", "prefix"):
        (root / name).mkdir()
    server = Server.create(major, settings={**DURABLE, **settings})
    try:
        server.start()
        fill(server)
        server.value("CHECKPOINT")
        yield Backed.of(Host(server, root / "base", root / "prefix")), root
    finally:
        server.delete()
        shutil.rmtree(root, ignore_errors=True)


def pgops(*words: str, priority: Sequence[str] = ()) -> None:
    """Run our command as the host's timers and people do, with the priority that some other program gives it.

    Raises RuntimeError.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "build" / "lib")}
    command = [*priority, sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pgops {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
