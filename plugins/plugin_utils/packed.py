# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection's own files as an argument of a module, packed on the controller."""

from __future__ import annotations

import functools
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.pgops.fleet.plugins.module_utils._pgops import sources

Parts = tuple[tuple[str, tuple[str, ...]], ...]
"""Folders of the library, each with the endings of the files that are taken from it."""


@functools.cache
def packed(parts: Parts) -> str:
    """The library's files, packed once a process."""
    found: dict[str, str] = {}
    for under, suffixes in parts:
        found.update(sources.gather(sources.LIBRARY, suffixes, under))
    return sources.pack(found)


class PackedAction(ActionBase):  # type: ignore[misc]
    """Runs the module of the same name with the argument ``sources`` filled."""

    parts: Parts = ()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ansible's entry."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {**self._task.args, "sources": packed(self.parts)}
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        return result
