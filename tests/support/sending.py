# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's jobs that send, in a process of their own as on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import artifact
from deploying import configured
from servers import Server

MAIN = "import sys; from pgops.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass
class Sender:
    """An agent whose directories are below ``prefix``; ``libraries`` come before what is installed."""

    server: Server
    prefix: Path
    libraries: tuple[Path, ...] = ()
    job: str = "notify"
    own: Mapping[str, Any] = field(default_factory=dict)
    """What of its configuration is not as usual."""
    main: str = MAIN

    def __post_init__(self) -> None:
        settings, self.layout = configured(self.server, self.prefix, **self.own)
        Path(self.layout.configuration).mkdir(parents=True, exist_ok=True)
        Path(self.layout.agent_file).write_text(settings.text())

    def knows(self, mode: int = 0o600, kind: str = "apprise", **channels: Mapping[str, str]) -> None:
        """Write its file of addresses: by channel, of each target."""
        found = {name: {"kind": kind, "targets": dict(targets)} for name, targets in channels.items()}
        path = Path(self.layout.channels)
        path.write_text(json.dumps({"format": 1, "channels": found}))
        path.chmod(mode)

    def environment(self) -> dict[str, str]:
        """What its process is told besides."""
        return {}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a run."""
        path = os.pathsep.join(map(str, [artifact.BUILD / "lib", *self.libraries]))
        command = [
            sys.executable,
            "-c",
            self.main,
            "--prefix",
            str(self.prefix),
            "--instance",
            "main",
            self.job,
            *arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", **self.environment()}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> dict[str, Any]:
        """One run; what it logged, with its exit code as ``exit``, and all that it printed as ``printed``."""
        with self.start(*arguments) as process:
            out, wrong = process.communicate()
        assert out.startswith("{"), wrong
        return {**json.loads(out), "exit": process.returncode, "printed": out + wrong}
