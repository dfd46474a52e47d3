# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Prometheus, out of Debian's package, over samples that a test gives it."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import packages
from servers import free_port
from waiting import until

UnavailableError = packages.UnavailableError


def program(name: str) -> Path:
    """The path of ``prometheus`` or ``promtool``. Raises UnavailableError."""
    return packages.unpacked("prometheus") / "usr" / "bin" / name


@dataclass
class Prometheus:
    """One that scrapes nothing; ``directory`` is its own."""

    directory: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def fill(self, series: Iterable[str], times: Iterable[int]) -> None:
        """Store the same samples (lines of an exposition) at some times, in Unix seconds; before it is started."""
        found = list(series)
        lines = [f"{line} {at}" for at in sorted(times) for line in found]
        text = self.directory / "samples.txt"
        text.write_text("\n".join([*lines, "# EOF", ""]))
        into = str(self.directory / "data")
        command = [str(program("promtool")), "tsdb", "create-blocks-from", "openmetrics", str(text), into]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> Prometheus:
        """Start it; it is ready then."""
        configuration = self.directory / "prometheus.yml"
        configuration.write_text("{}\n")
        options = [f"--config.file={configuration}", f"--storage.tsdb.path={self.directory / 'data'}"]
        options += [f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.retention.time=10y"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([str(program("prometheus")), *options], stdout=log, stderr=log)
        until(self._ready, "ready")
        return self

    def _ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self.directory / "log").read_text()
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:  # noqa: S310
                return int(answer.status) == 200
        except OSError:
            return False

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def value(self, expression: str, at: int) -> list[dict[str, Any]]:
        """What an expression is at a time, in Unix seconds: ``metric`` (labels) and ``value`` of each series."""
        query = urllib.parse.urlencode({"query": expression, "time": at})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{query}", timeout=60) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def stop(self) -> None:
        """End it."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
