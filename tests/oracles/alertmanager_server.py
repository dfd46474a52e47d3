"""A real Alertmanager, out of Debian's package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import packages
from servers import free_port
from waiting import until

TEMPLATES = b"/usr/share/prometheus/alertmanager"
"""Where Debian's program reads its templates; no option says otherwise."""

EACH_AT_ONCE = {"group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
"""A route by which all that begins and ends is told by itself and at once."""


def program() -> Path:
    """A copy of the program that reads them below its working directory, the package's root.

    Raises packages.UnavailableError.
    """
    root = packages.unpacked("prometheus-alertmanager")
    place = root / "alertmanager"
    if not place.exists():
        mine = root / f"alertmanager.{os.getpid()}"
        code = (root / "usr" / "bin" / "prometheus-alertmanager").read_bytes()
        mine.write_bytes(code.replace(TEMPLATES, TEMPLATES[1:] + b"/"))  # a path of the same length
        mine.chmod(0o755)
        mine.rename(place)
    return place


@dataclass
class Alertmanager:
    """One that tells a webhook what its ``route`` says; ``directory`` is its own."""

    directory: Path
    webhook: str
    route: Mapping[str, Any] = field(default_factory=lambda: EACH_AT_ONCE)
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Alertmanager:
        """Start it, with what it knew before; it is ready then."""
        route = {"receiver": "hook", **self.route}
        receiver = {"name": route["receiver"], "webhook_configs": [{"url": self.webhook, "send_resolved": True}]}
        configuration = self.directory / "alertmanager.yml"
        configuration.write_text(json.dumps({"route": route, "receivers": [receiver]}))
        command = program()
        options = [f"--config.file={configuration}", f"--storage.path={self.directory / 'data'}"]
        options += [f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([str(command), *options], cwd=command.parent, stdout=log, stderr=log)
        until(self._ready, "ready")
        return self

    def _ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self.directory / "log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310
                return int(answer.status) == 200
        except OSError:
            return False

    def alerts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What fires there, by the alerts' names and databases."""
        found = self._asked("alerts")
        return {(one["labels"]["alertname"], one["labels"].get("database", "")): one for one in found}

    def groups(self) -> dict[str, set[str]]:
        """What it would tell in one message, by the name that a group's alerts share: the nodes that they are of."""
        return {
            one["labels"]["alertname"]: {alert["labels"]["node"] for alert in one["alerts"]}
            for one in self._asked("alerts/groups")
        }

    def _asked(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v2/{path}", timeout=5) as answer:  # noqa: S310
            return json.load(answer)

    def hang(self) -> None:
        """It answers nothing from now on, until it is stopped."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
