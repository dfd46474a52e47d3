# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module says about its arguments: in its result, in its errors, and in the host's log."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from typing import Any

import artifact
import pytest

basic = pytest.importorskip("ansible.module_utils.basic")
reporting = importlib.import_module("ansible_collections.pgops.fleet.plugins.module_utils._pgops.reporting")

ASKED = {"_ansible_inject_invocation": True} if "inject_invocation" in basic.PASS_VARS else {}
"""What newer controllers send for a result to contain the arguments; older ones always have them there."""
MODULES = sorted(path.stem for path in (artifact.ROOT / "plugins" / "modules").glob("pg_ops_*.py"))
MARK = "hunter2"
Spec = Mapping[str, Mapping[str, Any]]


@pytest.fixture(name="logged")
def _logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What modules write into the host's log."""
    lines: list[str] = []
    monkeypatch.setattr(
        basic.AnsibleModule, "log", lambda _self, msg, log_args=None: lines.append(f"{msg} {log_args}")
    )
    return lines


def said(run: Callable[[], object], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a module prints, asked to show how it was called."""
    printed = io.StringIO()
    asked = {"_ansible_verbosity": 3, "_ansible_diff": True, **ASKED}
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **asked}}).encode()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(printed):
        patched.setattr(basic, "_ANSIBLE_ARGS", given)
        patched.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)  # since 2.19
        with pytest.raises(SystemExit):
            run()
    return dict(json.loads(printed.getvalue()))


def main(module: str) -> Callable[[], object]:
    """A module as Ansible runs it."""
    found: Callable[[], object] = importlib.import_module(
        f"ansible_collections.pgops.fleet.plugins.modules.{module}"
    ).main
    return found


def spec_of(module: str, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """The arguments that a module declares."""

    class Seen(Exception):
        pass

    def see(_self: object, argument_spec: Spec, **_rest: Any) -> None:
        raise Seen(argument_spec)

    with monkeypatch.context() as patched:
        patched.setattr(basic.AnsibleModule, "__init__", see)
        with pytest.raises(Seen) as caught:
            main(module)()
    return dict(caught.value.args[0])


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


@pytest.mark.parametrize("module", MODULES)
def test_a_secret_in_a_wrong_place_is_shown_nowhere(
    module: str, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in wrong(spec_of(module, monkeypatch), lambda found: found):
        answer = said(main(module), arguments)
        assert answer["failed"]
        assert MARK not in json.dumps(answer), arguments
        assert answer["msg"]
        assert "invocation" in answer
    assert MARK not in "".join(logged)


def test_of_an_unknown_option_the_name_is_shown(logged: list[str]) -> None:
    answer = said(main("pg_ops_settings"), {"login_passwrod": MARK, "settings": {"work_mem": "8MB"}})
    assert "login_passwrod" in answer["msg"]
    assert answer["invocation"]["module_args"]["settings"] == {"work_mem": "8MB"}
    assert "login_passwrod" not in answer["invocation"]["module_args"]


SETTINGS = {
    "primary_conninfo": f"host=db1 password={MARK}",
    "archive_command": f"curl -H 'Authorization: Bearer {MARK}' -T %p https://x/%f",
    "app.secret": [MARK],
    "max_connections": 100,
    "ssl": "on",
    "work_mem": "8MB",
}


def test_what_a_module_with_secrets_returns_still_reads_well(logged: list[str]) -> None:
    shown = {
        "primary_conninfo": "host=db1 password=(hidden)",
        "archive_command": "curl (hidden)",
        "app.secret": ["(hidden)"],
        "max_connections": 100,
        "ssl": "on",
        "work_mem": "8MB",
    }
    result = {"changes": ["update setting ssl"], "diff": "on, 100 and 8MB", "count": 100, "leaked": f"x {MARK} y"}

    def run() -> None:
        spec = {"settings": {"type": "dict", "no_log": True}, **reporting.connection_spec()}
        module = reporting.Module(argument_spec=spec)
        assert module.params["settings"] == SETTINGS
        module.exit_json(changed=True, **result)

    answer = said(run, {"settings": SETTINGS, "login_password": "other secret"})
    assert answer["invocation"]["module_args"]["settings"] == shown
    kept = ("changes", "diff", "count")
    assert {name: answer[name] for name in kept} == {name: result[name] for name in kept}
    written = json.dumps(answer) + "".join(logged)
    assert MARK not in written
    assert "other secret" not in written
    assert "********" in answer["leaked"]


def test_the_hosts_log_has_no_secrets(logged: list[str]) -> None:
    collector = f"SELECT dblink('password={MARK}')"
    said(main("pg_ops_settings"), {"settings": SETTINGS, "login_password": MARK, "login_host": "/nowhere"})
    said(main("pg_ops_schema"), {"collectors": [collector], "password": MARK, "state": "absent"})
    agent = {"name": "main", "password": MARK}
    said(main("pg_ops_agent"), {"instances": [agent], "collectors": [collector], "_ansible_check_mode": True})
    assert len([line for line in logged if line.startswith("Invoked")]) == 3
    assert MARK not in "".join(logged)
