# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The arguments of modules: checked on the controller by what each module's file declares, made whole on the host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

CONNECTION: dict[str, Any] = {
    "login_host": {"type": "str", "default": ""},
    "login_port": {"type": "int", "default": 5432},
    "login_user": {"type": "str", "default": ""},
    "login_password": {"type": "str", "no_log": True},
    "login_db": {"type": "str", "default": "postgres"},
    "ssl_mode": {
        "type": "str",
        "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
    },
    "ca_cert": {"type": "path"},
    "channel_binding": {"type": "str", "choices": ["disable", "prefer", "require"]},
    "connect_timeout": {"type": "int", "default": 10},
}
"""The arguments documented in the fragment ``pgops.fleet.connection``."""

BY_ACTION = "The collection's action plugin carries this module out: call it by its whole name, pgops.fleet.NAME."
"""The only answer of a module's own ``main()``, which is there for Ansible's tools."""

Spec = Mapping[str, Mapping[str, Any]]
Shape = Mapping[str, Any]
"""By the name of an argument that is or has paths: true, or the shape of its suboptions."""


def without_paths(spec: Spec) -> dict[str, dict[str, Any]]:
    """A spec whose paths are texts: ``~`` and variables in a path are the host's, not the controller's."""
    return {name: {key: _text(key, value) for key, value in one.items()} for name, one in spec.items()}


def _text(key: str, value: Any) -> Any:
    if key == "options":
        return without_paths(value)
    return "str" if key in ("type", "elements") and value == "path" else value


def paths(spec: Spec) -> dict[str, Any]:
    """The shape of a spec: where its paths are."""
    found = {
        name: "path" in (one.get("type"), one.get("elements")) or paths(one.get("options", {}))
        for name, one in spec.items()
    }
    return {name: shape for name, shape in found.items() if shape}


def expanded(value: Any, shape: Shape | bool) -> Any:
    """Arguments with the host's own ``~`` and variables put into their paths."""
    if isinstance(value, list):
        return [expanded(one, shape) for one in value]
    if isinstance(value, Mapping) and isinstance(shape, Mapping):
        return {name: expanded(one, shape.get(name, False)) for name, one in value.items()}
    return os.path.expanduser(os.path.expandvars(value)) if shape is True and isinstance(value, str) else value
