# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The work of each module, and the one way to end: a result, or one error."""

from __future__ import annotations

import importlib
import syslog
from collections.abc import Mapping
from typing import Any

from .arguments import expanded
from .errors import DriverMissing, PgOpsError
from .plan import unpredictable
from .server.target import Target
from .sources import Sources
from .version import VERSION

WORK = {
    "pg_ops_agent": "agent.deploy",
    "pg_ops_alerts": "alerting.deploy",
    "pg_ops_archiving": "repository.deploy",
    "pg_ops_backup": "backup.deploy",
    "pg_ops_facts": "facts.gathering",
    "pg_ops_recovery_point": "recovery.points",
    "pg_ops_report": "reports.reading",
    "pg_ops_restore": "recovery.deploy",
    "pg_ops_schedule": "agent.schedule",
    "pg_ops_schema": "opsdb.deploy",
    "pg_ops_settings": "settings.deploy",
    "pg_ops_statements": "statements.deploy",
}
"""The file of the library that does a module's work; only this one, with what it imports, is loaded."""

DEPLOYING = tuple(
    f"pg_ops_{name}" for name in ("agent", "alerts", "archiving", "schedule", "schema", "settings", "statements")
)
"""Those whose changes are deployments, events of the instance. The others are recorded as what they do."""

READING = ("pg_ops_facts", "pg_ops_report")
"""Those that change nothing."""


def run(order: Mapping[str, Any], sources: Sources) -> dict[str, Any]:
    """Carry out ``order["module"]`` with ``order["params"]``; what it returns, or ``failed``, ``msg`` and ``code``.

    A missing driver in check mode is no error: the package may come with the run that is being predicted.
    """
    check_mode = bool(order["_ansible_check_mode"])
    params = {**expanded(order["params"], order["paths"]), "sources": sources}
    _record(order)
    noting = order["module"] in DEPLOYING and not check_mode
    # Loaded now: the work may remove the library from the host.
    deployments = importlib.import_module(".instance.deployments", __package__) if noting else None
    try:
        result = _work(order["module"], params, check_mode)
    except DriverMissing as error:
        if check_mode:
            return dict(unpredictable(f"{error} The changes of a run cannot be predicted yet."))
        return _failure(error)
    except PgOpsError as error:
        return _failure(error)
    if deployments and result.get("changed"):
        deployments.note(order["module"], params, result.get("changes", ()))
    return result


def _failure(error: PgOpsError) -> dict[str, Any]:
    return {"failed": True, "msg": str(error), "code": error.code}


def _record(order: Mapping[str, Any]) -> None:
    """Tell the host's log, as any module does, and without the arguments, which can be secret."""
    facility = getattr(syslog, str(order.get("_ansible_syslog_facility", "LOG_USER")), syslog.LOG_USER)
    syslog.openlog(f"ansible-pgops.fleet.{order['module']}", 0, facility)
    syslog.syslog(syslog.LOG_INFO, f"Invoked by version {VERSION}{' in check mode' * order['_ansible_check_mode']}")


def _work(module: str, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    work = importlib.import_module(f".{WORK[module]}", __package__)
    if module in READING:
        return dict(work.gather(_target(params), params))
    if "login_host" in params:
        return dict(work.converge(_target(params), params, check_mode))
    return dict(work.converge(params, check_mode))


def _target(params: Mapping[str, Any]) -> Target:
    """The server that a module's arguments name."""
    seconds = params.get("statement_timeout")
    limits = {} if seconds is None else {"statement_timeout": seconds, "lock_timeout": min(seconds, 1.0)}
    return Target(
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
        **limits,
    )
