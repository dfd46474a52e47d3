# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action of all modules of the collection (meta/runtime.yml): checks the arguments here, and lets the module
pg_ops_door carry them out on the host, with the host's own library where it is the same as the controller's."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import arguments, secrecy, sources
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.library import CARRIERS

COLLECTION = "pgops.fleet"
MODULES = "ansible_collections.pgops.fleet.plugins.modules"
LACKED = "pgops_library_lacked"
"""The fact of a host: whether it lacked the library when a module last asked for it."""

NO_SUCH_PROGRAM = 127
"""What a shell ends with that does not find the interpreter of a module."""
NO_PYTHON = (
    "This host has no Python where Ansible looks for it, and its modules need one. Install it with the module raw: "
    "ansible HOST --become -m ansible.builtin.raw -a 'apt-get install -y python3' (docs/start.md). If it is "
    "elsewhere, set ansible_python_interpreter."
)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module of the task. A host that has the library is sent its digest only."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ansible's entry."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        name = self._task.action.rpartition(".")[2]
        spec = importlib.import_module(f"{MODULES}.{name}").SPEC
        params, wrong = checked(name, self._task.args)
        order = {"module": name, "params": params, "paths": arguments.paths(spec)}
        answer = {"failed": True, "msg": wrong} if wrong else self._answer(order, task_vars or {})
        result.update(remove_values(answer, secrecy.forbidden(self._task.args, spec)))
        return result

    def _answer(self, order: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """What the host answers; it is sent the library where it lacks it."""
        shipped = sources.shipped()
        order = {**order, "library": sources.digest(shipped)}
        # What runs beside the play cannot be asked first.
        if not self._task.async_val and not task_vars.get("ansible_facts", {}).get(LACKED):
            answer = self._carried_out(order, {path: shipped[path] for path in CARRIERS}, task_vars)
            if not answer.get(sources.LACKING):
                return answer
        answer = self._carried_out(order, shipped, task_vars)
        if not self._task.async_val:
            answer.setdefault("ansible_facts", {})[LACKED] = not self._installed(order, answer)
        return answer

    def _installed(self, order: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
        """Whether this task has brought the library to the host."""
        brings = order["module"] == "pg_ops_agent" and order["params"]["state"] == "present"
        return brings and not self._task.check_mode and not answer.get("failed")

    def _carried_out(
        self, order: Mapping[str, Any], files: sources.Sources, task_vars: Mapping[str, Any]
    ) -> dict[str, Any]:
        done: dict[str, Any] = self._execute_module(
            module_name=f"{COLLECTION}.pg_ops_door",
            module_args={**order, "files": sources.pack(files)},
            task_vars=task_vars,
            wrap_async=self._task.async_val,
        )
        return explained(done)


def explained(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A module's answer; where there is no Python to run it, with what to do instead of Ansible's words."""
    if not answer.get("failed") or answer.get("rc") != NO_SUCH_PROGRAM:
        return dict(answer)
    return {**{key: value for key, value in answer.items() if key != "exception"}, "msg": NO_PYTHON}


def checked(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The arguments of a module with its defaults, and what is wrong with them, in the words of Ansible's own modules
    and without what may be a secret in the wrong place; '' if nothing is."""
    module = importlib.import_module(f"{MODULES}.{name}")
    texts = arguments.without_paths(module.SPEC)
    found = ArgumentSpecValidator(texts, required_if=getattr(module, "NEEDED", None)).validate(given)
    if not found.error_messages:
        return found.validated_parameters, ""
    unsupported = isinstance(found.errors[0], UnsupportedError)
    words = f"Unsupported parameters for ({COLLECTION}.{name}) module: " if unsupported else ""
    message = words + found.error_messages[0]
    return {}, secrecy.hidden(message, secrecy.mistyped(given, module.SPEC) | secrecy.forbidden(given, module.SPEC))
