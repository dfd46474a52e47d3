# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a backup and putting it back take, beside PostgreSQL's own programs, cp and tar with the same options."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hosting
from backed import Backed, own
from backing import Bank
from figures import Figures
from restoring import Restorer
from waiting import until

MAJOR = 18
"""That of the programs of the tests."""
ROWS = 3_000_000
"""About 400 MB."""
TIMES = 5
FILLED = "CREATE TABLE item AS SELECT n, md5(n::text) || md5((n * 7)::text) AS name FROM generate_series(1, {}) AS n"
CASES = {"none": ["--format=plain"], "gzip": ["--format=tar", "--compress=client-gzip"]}
PUT_BACK = ("plan", "copy", "verify", "configure", "sync")
"""The phases of a restore until the files are in their place."""
LEAST = 0.95
"""As fast as the programs underneath, but for what is to be known and noted besides."""


def measure() -> Figures:
    """Seconds, in turn."""
    figures = Figures("backup", "seconds of some 400 MB, backed up and put back, verified and flushed to disk")
    with hosting.hosted(MAJOR, {"max_wal_size": "4GB"}, lambda server: server.psql(FILLED.format(ROWS))) as (
        backed,
        root,
    ):
        peer = Peer(backed, root)
        restorer = Restorer(Bank(backed.host), root)
        for _number in range(TIMES):
            for compression, options in CASES.items():
                taken = _ours(backed, compression, figures)
                peer.take(compression, options, figures)
                _put_back(restorer, compression, figures)
                peer.put_back(backed.path(taken) / "data", compression, figures)
                shutil.rmtree(backed.path(taken))
    figures.promise(dict.fromkeys(figures.values, LEAST))
    return figures


def _settled(backed: Backed) -> float:
    """Wait until no WAL waits; the time then."""
    waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    until(lambda: backed.server.value(waiting), "archived", 0)
    return time.perf_counter()


def _ours(backed: Backed, compression: str, figures: Figures) -> dict[str, Any]:
    began = _settled(backed)
    taken = backed.take("full", compression=compression)
    figures.add(_taken(compression), "ours", time.perf_counter() - began)
    return taken


def _put_back(restorer: Restorer, compression: str, figures: Figures) -> None:
    found = restorer.restore(immediate=True)
    spent = sum(float(one["seconds"]) for one in found["phases"] if one["phase"] in PUT_BACK)
    figures.add(_back(compression), "ours", spent)
    directory = Path(found["directory"])
    restorer.end(directory)
    shutil.rmtree(directory)


def _taken(compression: str) -> str:
    return f"backup, {compression}, beside pg_basebackup and pg_verifybackup"


def _back(compression: str) -> str:
    return f"put back, {compression}, beside {'cp' if compression == 'none' else 'tar'}, pg_verifybackup and sync"


@dataclass
class Peer:
    """The programs themselves, as the server's user."""

    backed: Backed
    root: Path

    def take(self, compression: str, options: Sequence[str], figures: Figures) -> None:
        """Copy by pg_basebackup, which flushes; then verify."""
        place = self._place()
        usual = ["--wal-method=none", "--checkpoint=fast", "--manifest-checksums=SHA256"]
        began = _settled(self.backed)
        program = self.backed.server.client("pg_basebackup")
        self._run(program, "-d", self.backed.server.dsn(""), "-D", place / "data", *usual, *options)
        figures.add(_taken(compression), "pg_basebackup alone", time.perf_counter() - began)
        self._run(self.backed.server.client("pg_verifybackup"), "--no-parse-wal", "--quiet", place / "data")
        figures.add(_taken(compression), "peer", time.perf_counter() - began)
        shutil.rmtree(place)

    def put_back(self, data: Path, compression: str, figures: Figures) -> None:
        """Copy or unpack a backup, verify, and flush."""
        place = self._place()
        began = time.perf_counter()
        if compression == "none":
            self._run("cp", "-a", data, place / "data")
        else:
            self._run("mkdir", "-m", "700", place / "data")
            self._run("tar", "-xzf", data / "base.tar.gz", "-C", place / "data")
            self._run("cp", data / "backup_manifest", place / "data")
        figures.add(_back(compression), "copied alone", time.perf_counter() - began)
        self._run(self.backed.server.client("pg_verifybackup"), "--no-parse-wal", "--quiet", place / "data")
        self._run("find", place / "data", "-exec", "sync", "{}", "+")
        figures.add(_back(compression), "peer", time.perf_counter() - began)
        shutil.rmtree(place)

    def _run(self, *command: str | Path) -> None:
        self.backed.server.run(*command)

    def _place(self) -> Path:
        place = self.backed.host.base / "theirs"
        place.mkdir()
        own(place, self.backed.server)
        return place
