# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings that servers are to have, those of their capabilities included: one transaction, one restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.pgops.fleet.plugins.filter.written import mapped
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.settings import parameters


def settings_of(declared: Any, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is ``declared``, and what capabilities have ``asked`` for.

    What is declared wins; of lists of libraries both are taken.
    """
    declared, needed = mapped(declared), dict(asked or {})
    made: dict[str, Any] = {**needed, **declared}
    for name in parameters.LIBRARIES:
        if name in needed and name in declared:
            made[name] = list(parameters.merged(_words(declared[name]), _words(needed[name])))
    return made


def _words(value: Any) -> tuple[str, ...]:
    found = parameters.value_of(value)
    return found if isinstance(found, tuple) else parameters.elements(found or "")


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"settings_of": settings_of}
