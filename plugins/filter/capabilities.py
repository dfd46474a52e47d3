# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the inventory's variables mean for the agents and the jobs of a host's instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.filter.written import NO, mapped, yes_or_no
from ansible_collections.pgops.fleet.plugins.module_utils._pgops import spelling
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.capabilities import ALL, JOBS, Capability, Job

SCHEDULE = ("calendar", "jitter", "time_limit", "enabled")
"""What the inventory may say of a job of ours."""


def switched_on(value: Any, unset: bool = False) -> bool:
    """Whether a variable switches a capability on; ``unset`` is what holds where it is empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return unset
    return value.strip().lower() not in NO if isinstance(value, str) else bool(value)


def capability_variables(_input: Any = None) -> list[str]:
    """The inventory's variables that capabilities read: their switches, and what sets their options."""
    switches = {one.switch for one in ALL} | {job.switch for job in JOBS.values()}
    options = {option.variable for one in ALL for option in one.options.values()}
    return sorted((switches | options) - {""})


def agents(
    targets: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    place: Mapping[str, Any],
    passwords: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The instances as pg_ops_agent takes them. ``variables`` are those of capability_variables(), '' where they are
    not set; ``place`` is what all instances have unless they say otherwise: database, ssl_mode, ca_cert, superuser;
    ``passwords`` are by instance.

    Raises AnsibleFilterError for a value that is not of its option's type.
    """
    return [_agent(target, variables, place, passwords) for target in targets]


def _agent(
    target: Mapping[str, Any], variables: Mapping[str, Any], place: Mapping[str, Any], passwords: Mapping[str, str]
) -> dict[str, Any]:
    remote = bool(target["host"])
    options = {one.name: _options(one, variables, remote) for one in ALL if one.options}
    own = {name: target[name] for name in ("name", "cluster", "node", "host", "port", "socket_directory", "peers")}
    return {
        **own,
        **place,
        **{name: target[name] for name in ("ssl_mode", "ca_cert") if name in target},
        "password": passwords.get(target["name"]),
        "owner": _owner(target),
        "repository": _repository(target, variables),
        "capabilities": {name: some for name, some in options.items() if some},
    }


def _repository(target: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """The repository of an instance's cluster, '' where it has none."""
    base = str(variables.get("pgops_repository") or "").rstrip("/")
    return f"{base}/{target['cluster']}" if switched_on(base) and not target["host"] else ""


def _owner(target: Mapping[str, Any]) -> str:
    """The operating system's user that runs the server; one that cannot be seen is the usual one, a remote one ''."""
    return "" if target["host"] else str(target["owner"] or "postgres")


def _options(capability: Capability, variables: Mapping[str, Any], remote: bool) -> dict[str, Any]:
    """The options of a capability that the inventory sets to another value than the default: which of the defaults of
    roles can be seen depends on what else is in the play."""
    chosen = {
        name: _typed(option.variable, variables[option.variable], option.default)
        for name, option in capability.options.items()
        if option.variable and not (option.local and remote) and variables.get(option.variable, "") != ""
    }
    return {name: value for name, value in chosen.items() if value != capability.options[name].default}


def _typed(variable: str, value: Any, default: Any) -> Any:
    kind = type(default)
    try:
        if kind is bool:
            return yes_or_no(value)
        return mapped(value) if kind is dict else kind(value)
    except (TypeError, ValueError, AnsibleFilterError):
        raise AnsibleFilterError(f"{variable} has to be of the type {kind.__name__}.") from None


def schedules(
    targets: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    declared: Any,
    user: str,
    backend: str = "systemd",
    superseded: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The jobs of the instances as pg_ops_schedule takes them: those of the capabilities that are on, at the times
    that ``declared`` gives them by their names, and jobs of one's own that it has. ``user`` is the agent's. What is
    ``superseded`` has none: its port is its successor's now, which its jobs would measure a second time.

    Raises AnsibleFilterError.
    """
    try:
        declared = mapped(declared)
    except AnsibleFilterError:
        raise AnsibleFilterError(
            "pgops_jobs maps the names of jobs to what differs: {'queries': {'calendar': '*:0/10'}} (docs/start.md)."
        ) from None
    for name, settings in declared.items():
        _check_declared(str(name), settings)
    made = [
        {
            **_delivers(target, declared),
            "name": target["name"],
            "jobs": _jobs(target, variables, declared, user, backend),
        }
        for target in targets
    ]
    return made + [{"name": name, "jobs": []} for name in superseded]


def _delivers(target: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Where the samples of a standby have to arrive, if any are collected."""
    collects = switched_on(declared.get("collect", {}).get("enabled", True))
    if target["host"] or target.get("role") != "standby" or not collects:
        return {}
    return {"delivers_to": [f"{peer['host']}:{peer.get('port', 5432)}" for peer in target["peers"]]}


def _check_declared(name: str, settings: Any) -> None:
    known = {*SCHEDULE, *(() if name in JOBS else ("arguments", "user"))}
    wrong = "" if isinstance(settings, Mapping) else "is not a mapping"
    if not wrong and set(settings) - known:
        wrong = f"has unknown keys: {spelling.unknown(settings, known)}"
    if not wrong and name not in JOBS and not {"calendar", "arguments"} <= set(settings):
        wrong = f"is not one of {', '.join(JOBS)}, and lacks arguments or calendar, which a job of your own has"
    if wrong:
        raise AnsibleFilterError(f"pgops_jobs: {name} {wrong}.")


def _jobs(
    target: Mapping[str, Any], variables: Mapping[str, Any], declared: Mapping[str, Any], user: str, backend: str
) -> list[dict[str, Any]]:
    shipped = [
        {**_job(job, target, variables, user, backend), **declared.get(job.name, {})}
        for capability in ALL
        for job in capability.jobs
        if _wanted(job, capability, variables, remote=bool(target["host"]))
    ]
    own = [{"name": name, "user": user, **declared[name]} for name in declared if name not in JOBS]
    return [*shipped, *own]


def _wanted(job: Job, capability: Capability, variables: Mapping[str, Any], remote: bool) -> bool:
    own = not capability.switch or switched_on(variables.get(capability.switch), capability.unset)
    return own and (not job.switch or switched_on(variables.get(job.switch))) and not (job.as_server and remote)


def _job(
    job: Job, target: Mapping[str, Any], variables: Mapping[str, Any], user: str, backend: str
) -> dict[str, Any]:
    repository = _repository(target, variables)
    written = str(variables.get(job.writes) or "") if job.writes else ""
    return {
        "name": job.name,
        "arguments": [job.name, *job.arguments],
        "calendar": job.cron if backend == "cron" and job.cron else job.calendar,
        "jitter": job.jitter,
        "time_limit": job.time_limit,
        "user": _owner(target) if job.as_server else user,
        "writable": [*([repository] if job.stores and repository else []), *([written] if written else [])],
        "background": job.background,
        # Backups in an object store, or on another host, come over it.
        "network": not job.background or str(variables.get("pgops_backup_engine") or "") == "pgbackrest",
    }


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {
            "agents": agents,
            "schedules": schedules,
            "capability_variables": capability_variables,
            "switched_on": switched_on,
        }
