# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a backup takes, beside PostgreSQL's own programs with the same options: copied and verified."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archives import Host
from backed import TOOLS, Backed, own
from figures import Figures
from servers import Server
from waiting import until

MAJOR = 18
"""That of the programs of the tests."""
ROWS = 3_000_000
"""About 400 MB."""
TIMES = 5
FILLED = "CREATE TABLE item AS SELECT n, md5(n::text) || md5((n * 7)::text) AS name FROM generate_series(1, {}) AS n"
CASES = {"none": ["--format=plain"], "gzip": ["--format=tar", "--compress=client-gzip"]}


def measure() -> Figures:
    """Seconds, in turn."""
    figures = Figures("backup", "seconds of a full backup of some 400 MB, verified and flushed to disk")
    with _backed() as backed:
        for _number in range(TIMES):
            for compression, options in CASES.items():
                case = f"compression {compression}, beside pg_basebackup and pg_verifybackup"
                figures.add(case, "peer", _theirs(backed, options))
                figures.add(case, "ours", _ours(backed, compression))
    return figures


@contextmanager
def _backed() -> Iterator[Backed]:
    # Below /tmp, since the server's user cannot look into every build.
    root = Path(tempfile.mkdtemp(prefix="pgops-bench-", dir="/tmp"))
    root.chmod(0o755)
    (root / "base").mkdir()
    (root / "prefix").mkdir()
    server = Server.create(MAJOR, settings={"max_wal_size": "4GB"}).start()
    try:
        backed = Backed.of(Host(server, root / "base", root / "prefix"))
        server.psql(f"{FILLED.format(ROWS)}; CHECKPOINT")
        yield backed
    finally:
        server.delete()
        shutil.rmtree(root)


def _settled(backed: Backed) -> float:
    """Wait until no WAL waits; the time then."""
    waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    until(lambda: backed.server.value(waiting), "archived", 0)
    return time.perf_counter()


def _ours(backed: Backed, compression: str) -> float:
    began = _settled(backed)
    taken = backed.take("full", compression=compression)
    spent = time.perf_counter() - began
    shutil.rmtree(backed.path(taken))
    return spent


def _theirs(backed: Backed, options: list[str]) -> float:
    place = backed.host.base / "theirs"
    place.mkdir()
    own(place, backed.server)
    usual = ["--wal-method=none", "--checkpoint=fast", "--manifest-checksums=SHA256"]
    began = _settled(backed)
    program = f"{TOOLS}/pg_basebackup"
    backed.server.run(program, "-d", backed.server.dsn(""), "-D", place / "data", *usual, *options)
    backed.server.run(f"{TOOLS}/pg_verifybackup", "--no-parse-wal", "--quiet", place / "data")
    spent = time.perf_counter() - began
    shutil.rmtree(place)
    return spent
