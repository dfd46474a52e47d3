# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Playbooks of the installed collection, run from outside, and what every task of them said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """A playbook's run: what every task said, in order."""

    code: int
    text: str
    outcomes: list[dict[str, Any]]

    @property
    def changes(self) -> dict[tuple[str, str, str], Any]:
        """What every task changed, or would, by host, task and item: of our modules all of it as data, since their
        diff shows less, and the diff of others."""
        return {
            (said["host"], said["task"], str(said["item"])): (
                said["diff"] if said["prediction"] is None else said["prediction"]
            )
            for said in self.outcomes
            if said["changed"] and said["state"] == "ok"
        }

    @property
    def modules(self) -> dict[str, int]:
        """How many modules ran on each host."""
        local = {"set_fact", "include_tasks", "assert", "validate_argument_spec", "include_role", "debug", "group_by"}
        counted: dict[str, int] = {}
        for said in self.outcomes:
            if said["module"].rpartition(".")[2] not in local:
                counted[said["host"]] = counted.get(said["host"], 0) + 1
        return counted


def play(inventory: Path, logs: Path, playbook: str, *arguments: str, collections: Path | None = None) -> Run:
    """Run a playbook; a log of what its tasks said is left in ``logs``. ``collections`` has another state of the
    collection than the installed one."""
    log = logs / f"outcomes-{time.monotonic_ns()}.jsonl"
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), playbook, *arguments],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **({"ANSIBLE_COLLECTIONS_PATH": str(collections)} if collections else {}),
            "PGOPS_OUTCOMES": str(log),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/scenarios/callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "outcomes",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = log.read_text().splitlines() if log.exists() else []
    return Run(done.returncode, done.stdout + done.stderr, [json.loads(line) for line in lines])
