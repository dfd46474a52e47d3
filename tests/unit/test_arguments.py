# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said about the arguments of modules, and what no result shows of them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from pgops import modules, secrecy

parameters = pytest.importorskip("ansible.module_utils.common.parameters", reason="checked on the controller only")
PLUGINS = "ansible_collections.pgops.fleet.plugins"
door = importlib.import_module(f"{PLUGINS}.action.pg_ops_door")

MARK = "hunter2"
Spec = Mapping[str, Mapping[str, Any]]


def spec_of(module: str) -> Spec:
    """The arguments that a module declares."""
    spec: Spec = importlib.import_module(f"{PLUGINS}.modules.{module}").SPEC
    return spec


def wrong(spec: Spec, around: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Arguments of which one is a secret that belongs elsewhere."""
    yield around({"login_passwrod": MARK})
    yield around({"login_passwrod": {"inside": [MARK]}})
    for name, option in spec.items():
        if option.get("type") in ("int", "float", "bool", "dict") or option.get("choices"):
            yield around({name: MARK})
        if option.get("type") == "list" and option.get("elements") == "dict":
            yield around({name: MARK})
            yield around({name: [MARK]})
        if option.get("options"):
            yield from wrong(option["options"], lambda inner, name=name: around({name: [inner]}))  # type: ignore[misc]


@pytest.mark.parametrize("module", modules.WORK)
def test_a_secret_in_a_wrong_place_is_not_shown(module: str) -> None:
    for given in wrong(spec_of(module), lambda found: found):
        _params, message = door.checked(module, given)
        assert message, given
        assert MARK not in message, given


def test_of_an_unknown_option_the_name_is_shown() -> None:
    _params, message = door.checked("pg_ops_settings", {"login_passwrod": MARK, "settings": {"work_mem": "8MB"}})
    assert "login_passwrod" in message


SETTINGS = {
    "primary_conninfo": f"host=db1 password={MARK}",
    "archive_command": f"curl -H 'Authorization: Bearer {MARK}' -T %p https://x/%f",
    "app.secret": [MARK],
    "max_connections": 100,
    "ssl": "on",
    "work_mem": "8MB",
}


def test_what_a_module_with_secrets_returns_still_reads_well() -> None:
    given = {"settings": SETTINGS, "login_password": "other secret"}
    params, message = door.checked("pg_ops_settings", given)
    assert (params["settings"], message) == (SETTINGS, "")
    result = {"changes": ["update setting ssl"], "diff": "on, 100 and 8MB", "count": 100, "leaked": f"x {MARK} y"}
    secrets = secrecy.forbidden(given, spec_of("pg_ops_settings"))
    shown = parameters.remove_values({**result, "other": "other secret"}, secrets)
    assert {name: shown[name] for name in result if name != "leaked"} == {
        name: value for name, value in result.items() if name != "leaked"
    }
    assert MARK not in json.dumps(shown)
    assert "other secret" not in json.dumps(shown)
