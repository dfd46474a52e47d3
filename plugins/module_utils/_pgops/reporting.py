# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules share with Ansible: the library on the host, the connection's arguments, and the one way to end.

The only library file that imports Ansible. It is no part of the agent. What it imports of the library is sent to the
host with every module.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys
from collections.abc import Mapping
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from . import secrecy, sources
from .errors import DriverMissing, PgOpsError


class Module(AnsibleModule):  # type: ignore[misc]
    """A module that shows no secrets, whatever Ansible is asked to show of it."""

    def exit_json(self, **result: Any) -> None:
        """End with a result."""
        super().exit_json(**result, invocation=self._invocation())

    def fail_json(self, msg: str, **result: Any) -> None:
        """End with an error."""
        message = secrecy.hidden(str(msg), secrecy.mistyped(self._given(), self.argument_spec))
        super().fail_json(message, **result, invocation=self._invocation())

    def _invocation(self) -> dict[str, Any]:
        """The arguments as they may be shown. What no result may contain is found anew: of a dictionary that can hold
        secrets Ansible would take all values, and there would be no C(on) in any result."""
        self.no_log_values = secrecy.forbidden(self._given(), self.argument_spec)
        return {"module_args": secrecy.arguments(self._given(), self.argument_spec)}

    def _given(self) -> dict[str, Any]:
        """The arguments; none where it failed before it had read them."""
        return getattr(self, "params", {})


LIBRARY: dict[str, Any] = {
    "library": {"type": "str", "default": ""},
    "sources": {"type": "str", "default": "", "no_log": True},
}
"""The arguments documented in the fragment ``pgops.fleet.attributes.library``."""
PROGRAM = "usr/local/lib/pgops/current"
"""Where the agent's program is."""


def library(module: Module, name: str) -> ModuleType:
    """The library's file ``name``, such as ``opsdb.deploy``, with all that it imports; the module's argument
    ``sources`` becomes what its name says, for who installs it.

    Ends the module where the host has no library with the content that the controller asks for, and none was sent.
    """
    digest, packed = module.params["library"], module.params["sources"]
    here = os.path.join(os.path.realpath(os.path.join(module.params.get("prefix") or "/", PROGRAM)), "pgops")
    try:
        found = installed(here) if digest else sources.shipped()  # without a digest all is where this file is
        if digest and sources.digest(found) == digest:
            sys.dont_write_bytecode = True  # what is installed is not for every module to change
            sys.modules[__package__].__path__.append(here)
        elif digest and packed:
            found = sources.unpack(packed)
            sys.meta_path.append(Sent(found))
        elif digest:
            module.exit_json(changed=False, **{sources.LACKING: True})
        module.params["sources"] = found
    except PgOpsError as error:
        module.fail_json(msg=str(error), code=error.code)
    return _imported(name)


def installed(folder: str) -> dict[str, str]:
    """The library as the host's agent has it; empty where others can change it, or where it cannot be read."""
    try:
        return sources.shipped(folder) if only_ours(folder) else {}
    except PgOpsError:
        return {}


def only_ours(folder: str) -> bool:
    """Whether nobody but root and who runs this can change what is in a directory, or put another in its place.

    In directories with the sticky bit, such as /tmp, others can add names, and replace none.
    """
    owners = {0, os.geteuid()}
    below = (os.path.join(where, name) for where, folders, names in os.walk(folder) for name in [*folders, *names])
    try:
        every = [os.lstat(path) for path in (*_upwards(folder), *below)]
    except OSError:
        return False
    return all(one.st_uid in owners and (not one.st_mode & 0o022 or one.st_mode & stat.S_ISVTX) for one in every)


def _upwards(path: str) -> list[str]:
    """A path and all directories above it."""
    return [path] if path == os.path.dirname(path) else [path, *_upwards(os.path.dirname(path))]


class Sent(ExecutionLoader, MetaPathFinder):
    """Imports the library's files from their texts: nothing is written, and a host needs no room for them."""

    def __init__(self, files: sources.Sources) -> None:
        self.files = files

    def _path(self, fullname: str) -> str:
        """Where a file of the library would be; '' for what is none."""
        outside, _package, name = fullname.partition(f"{__package__}.")
        within = name.replace(".", "/")
        ours = within and not outside
        return next((path for path in (f"{within}.py", f"{within}/__init__.py") if ours and path in self.files), "")

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> ModuleSpec | None:
        """As importlib asks for it."""
        return spec_from_loader(fullname, self) if self._path(fullname) else None

    def is_package(self, fullname: str) -> bool:
        """Whether it is a directory of the library."""
        return self._path(fullname).endswith("/__init__.py")

    def get_filename(self, fullname: str) -> str:
        """What a traceback shows."""
        return self._path(fullname)

    def get_source(self, fullname: str) -> str:
        """The text."""
        return self.files[self._path(fullname)]


def _imported(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __package__)


def connection_spec() -> dict[str, Any]:
    """The arguments documented in the fragment ``pgops.fleet.connection``."""
    return {
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


def target(params: Mapping[str, Any], **other: Any) -> Any:
    """The server that a module's arguments name, as ``server.target.Target``."""
    return _imported("server.target").Target(
        host=params["login_host"],
        port=str(params["login_port"]),
        user=params["login_user"],
        password=params["login_password"],
        database=params["login_db"],
        sslmode=params["ssl_mode"] or "",
        sslrootcert=params["ca_cert"] or "",
        channel_binding=params["channel_binding"] or "",
        connect_timeout=params["connect_timeout"],
        application_name="pgops deploy",
        **other,
    )


def report(module: Module, work: Callable[[], Mapping[str, Any]]) -> None:
    """Run the work of a module, and end with its result or with one error.

    A missing driver in check mode is no error: the package may come with the run that is being predicted.
    """
    try:
        result = dict(work())
    except PgOpsError as error:
        if not (module.check_mode and isinstance(error, DriverMissing)):
            module.fail_json(msg=str(error), code=error.code)
            return
        result = _imported("plan").unpredictable(f"{error} The changes of a run cannot be predicted yet.")
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)
