# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules share with Ansible: the connection's arguments, and the one way to end.

The only library file that imports Ansible. It is no part of the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from .errors import DriverMissing, PgOpsError
from .plan import unpredictable
from .server.target import Target


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
            "default": "prefer",
            "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
        },
        "ca_cert": {"type": "path"},
        "channel_binding": {"type": "str", "default": "prefer", "choices": ["disable", "prefer", "require"]},
        "connect_timeout": {"type": "int", "default": 10},
    }


def target(params: Mapping[str, Any], **other: Any) -> Target:
    """The server that a module's arguments name."""
    return Target(
        host=params["login_host"],
        port=str(params["login_port"]),
        user=params["login_user"],
        password=params["login_password"],
        database=params["login_db"],
        sslmode=params["ssl_mode"],
        sslrootcert=params["ca_cert"] or "",
        channel_binding=params["channel_binding"],
        connect_timeout=params["connect_timeout"],
        application_name="pgops deploy",
        **other,
    )


def report(module: AnsibleModule, work: Callable[[], Mapping[str, Any]]) -> None:
    """Run the work of a module, and end with its result or with one error.

    A missing driver in check mode is no error: the package may come with the run that is being predicted.
    """
    try:
        result = dict(work())
    except PgOpsError as error:
        if not (module.check_mode and isinstance(error, DriverMissing)):
            module.fail_json(msg=str(error), code=error.code)
            return
        result = unpredictable(f"{error} The changes of a run cannot be predicted yet.")
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)
