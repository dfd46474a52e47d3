# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action of all modules of the collection (meta/runtime.yml): each runs with the library, the host's own where it
is the same as the controller's, else with the one that is sent along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import sources

LACKED = "pgops_library_lacked"
"""The fact of a host: whether it lacked the library when a module last asked for it."""


NO_SUCH_PROGRAM = 127
"""What a shell ends with that does not find the interpreter of a module."""
NO_PYTHON = (
    "This host has no Python where Ansible looks for it, and its modules need one. Install it with the module raw: "
    "ansible HOST --become -m ansible.builtin.raw -a 'apt-get install -y python3' (docs/start.md). If it is "
    "elsewhere, set ansible_python_interpreter."
)


def explained(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A module's answer; where there is no Python to run it, with what to do instead of Ansible's words."""
    if not answer.get("failed") or answer.get("rc") != NO_SUCH_PROGRAM:
        return dict(answer)
    return {**{key: value for key, value in answer.items() if key != "exception"}, "msg": NO_PYTHON}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module of the task. A host that has the library is sent its digest only."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ansible's entry."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        shipped = sources.shipped()
        known = {**self._task.args, "library": sources.digest(shipped)}
        # What runs beside the play cannot be asked first.
        lacked = self._task.async_val or (task_vars or {}).get("ansible_facts", {}).get(LACKED)
        answer = {sources.LACKING: True} if lacked else self._execute(known, task_vars)
        if answer.get(sources.LACKING):
            answer = self._execute({**known, "sources": sources.pack(shipped)}, task_vars)
            if not self._task.async_val:
                answer.setdefault("ansible_facts", {})[LACKED] = not self._installed(answer)
        result.update(explained(answer))
        return result

    def _installed(self, answer: Mapping[str, Any]) -> bool:
        """Whether this task has brought the library to the host."""
        brings = self._task.action.endswith("pg_ops_agent") and self._task.args.get("state", "present") == "present"
        return brings and not self._task.check_mode and not answer.get("failed")

    def _execute(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        done: dict[str, Any] = self._execute_module(
            module_args=arguments, task_vars=task_vars, wrap_async=self._task.async_val
        )
        return done
