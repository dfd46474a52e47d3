# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes what every task said on every host, a JSON object a line, to the file that PGOPS_OUTCOMES names."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: outcomes
type: aggregate
short_description: What every task said, for tests
description: A JSON object a line.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible's entry."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "outcomes"

    def _write(self, result: Any, state: str) -> None:
        said = result._result
        if "results" in said and state == "ok":
            return  # its items were written
        path = os.environ.get("PGOPS_OUTCOMES")
        if not path:
            return
        outcome = {
            "host": result._host.get_name(),
            "task": result._task.get_name().rpartition(" : ")[2],
            "module": result._task.action,
            "item": said.get("_ansible_item_label", ""),
            "state": state,
            **{key: said.get(key) for key in ("changed", "diff", "msg", "code", "predictable", "prediction")},
        }
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(outcome, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task went well."""
        self._write(result, "ok")

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """An item went well."""
        self._write(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002 - Ansible's
        """A task failed."""
        self._write(result, "failed")

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """An item failed."""
        self._write(result, "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host was away."""
        self._write(result, "unreachable")
