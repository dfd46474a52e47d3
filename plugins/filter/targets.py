# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles work on: the instances of a host, the nodes of their clusters, and where a credential comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.module_utils._pgops.instance import passfile
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.server.target import binding

KNOWN = {"name", "port", "socket_directory", "cluster", "peers"}
ADMINISTRATOR = {"login_user", "login_password", "login_db"}
REMOTE = ADMINISTRATOR | {"host", "ssl_mode", "ca_cert"}
"""What only a remote instance has, one on a host without an agent."""

SSL_MODES = ("disable", "require", "verify-ca", "verify-full")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def targets(
    facts: Mapping[str, Any],
    declared: Sequence[Mapping[str, Any]],
    host: str,
    cluster: str,
    peers: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The instances to work on, of the facts ``pg_ops`` of a host: its own, and after them the remote ones. No
    password is among what is returned.

    ``options`` are ``discover`` (true), ``required`` (true) and ``login_user`` (empty).

    Raises AnsibleFilterError for a declaration that makes no sense, and where there is none though one is required.
    """
    wanted = {"discover": True, "required": True, "login_user": "", **(options or {})}
    here = [entry for entry in declared if not entry.get("host")]
    found_here = [found for found in facts["instances"] if not found.get("host")]
    _refuse_twice("port ", [f"{entry.get('port', 5432)}" for entry in here])
    by_port = {int(instance["port"]): instance for instance in found_here}
    old = superseded(facts)
    chosen = [_declared(entry, by_port) for entry in here] or [
        dict(found) for found in found_here if wanted["discover"] and found["name"] not in old
    ]
    chosen = _without_down(chosen, facts, bool(here), bool(wanted["required"]))
    remote = [_declared_remote(entry, facts) for entry in declared if entry.get("host")]
    _refuse_twice("", [str(instance["name"]) for instance in chosen + remote])
    _refuse_twice("", [f"{instance['host']}:{instance['port']}" for instance in remote])
    _refuse_own(
        remote, (*LOOPBACK, host, facts["host"].get("hostname")), {*by_port, *(int(one["port"]) for one in chosen)}
    )
    if wanted["required"] and not chosen + remote:
        raise AnsibleFilterError(
            f"No PostgreSQL instance was found on {host}. Create one, or declare it in pgops_instances."
        )
    kept = {agent["name"] for agent in facts["host"]["agents"] or () if agent["credential"]}
    names = _clusters(chosen, _given(facts, old), cluster)
    several = len(chosen) > 1
    own = [
        _own(instance, host, name, [] if several and (instance.get("cluster") or name != cluster) else peers)
        for instance, name in zip(chosen, names)
    ]
    return [
        {**instance, "credential": instance["name"] in kept, "login": _login(instance, wanted["login_user"])}
        for instance in own + remote
    ]


def _without_down(
    chosen: Sequence[dict[str, Any]], facts: Mapping[str, Any], declared: bool, required: bool
) -> list[dict[str, Any]]:
    """The instances without those that are down and were never deployed: there is nothing to remove of them.

    Raises AnsibleFilterError if instances are ``required``: nothing has been changed yet.
    """
    if facts["host"]["agents"] is None:  # who runs this may not see them
        return list(chosen)
    deployed = {agent["name"] for agent in facts["host"]["agents"]}
    down = [one["name"] for one in chosen if one["name"] not in deployed and _is_down(one)]
    if down and required:
        up = [{"name": one["name"], "port": int(one["port"])} for one in chosen if one["name"] not in down]
        others = (
            "take it out of pgops_instances" if declared else f"set pgops_instances to {json.dumps(up)} for this host"
        )
        nothing_else = "set pgops_discover to false for this host"
        raise AnsibleFilterError(
            f"Instance {down[0]} is down, and was never deployed. Start it; or, to leave it out, "
            f"{others if up or declared else nothing_else}."
        )
    return [one for one in chosen if one["name"] not in down]


def _is_down(instance: Mapping[str, Any]) -> bool:
    """Whether no server is there, rather than one that lets nobody in."""
    error = instance.get("error") or {}
    return instance.get("running") is False and "is down" in str(error.get("message"))


def _login(instance: Mapping[str, Any], user: str) -> dict[str, Any]:
    """How modules log in to an instance, as their defaults: without the password, which stands nowhere else."""
    remote = ("login_db", "ssl_mode", "ca_cert", "channel_binding")
    return {
        "login_host": instance["host"] or instance["socket_directory"],
        "login_port": instance["port"],
        "login_user": instance.get("login_user") or user,
        **{name: instance[name] for name in remote if name in instance},
    }


def _own(instance: Mapping[str, Any], host: str, cluster: str, peers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An instance of the host itself, with its cluster's name and other nodes, unless it declares them."""
    return {
        "name": instance["name"],
        "host": "",
        "port": int(instance["port"]),
        "socket_directory": instance.get("socket_directory") or "",
        "cluster": cluster,
        "node": f"{host}/{instance['name']}",
        "peers": list(instance.get("peers") or peers),
        "role": instance.get("role") or "",
        "owner": instance.get("owner") or "",
    }


def deployed(facts: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The instances that have an agent or a server, by their names: the servers of some may be gone."""
    names = {one["name"] for one in (*found, *(facts["host"]["agents"] or ()))}
    return [{"name": name} for name in sorted(names)]


def superseded(facts: Mapping[str, Any]) -> dict[str, str]:
    """The instances with an agent that pg_upgradecluster has put another in the place of, each with that successor: a
    running cluster of Debian's with the same name, a newer version, and the port that the agent knows. The old one is
    gone, or down and not started with the host.
    """
    clusters = {found["name"]: found for found in facts["instances"] if found.get("start")}
    rising = sorted((found for found in clusters.values() if found["running"]), key=_version)
    return {
        agent["name"]: new["name"]
        for agent in facts["host"]["agents"] or ()
        for new in rising
        if (agent["port"], _within(agent)) == (int(new["port"]), _within(new))
        and _version(agent) < _version(new)
        and not _wanted(clusters.get(agent["name"]))
    }


def _wanted(cluster: Mapping[str, Any] | None) -> bool:
    return cluster is not None and (cluster["running"] or cluster["start"] == "auto")


def _version(instance: Mapping[str, Any]) -> list[int]:
    return [int(part) for part in instance["name"].partition("-")[0].split(".") if part.isdigit()]


def _within(instance: Mapping[str, Any]) -> str:
    """The name of a Debian cluster within its version: main of 17-main."""
    return str(instance["name"].partition("-")[2])


def _given(facts: Mapping[str, Any], old: Mapping[str, str]) -> dict[str, str]:
    """The names of clusters that instances were given when they were deployed; a successor has the ``old`` one's."""
    given = {agent["name"]: agent["cluster"] for agent in facts["host"]["agents"] or () if agent["cluster"]}
    return {**given, **{new: given[name] for name, new in old.items() if name in given}}


def _clusters(chosen: Sequence[Mapping[str, Any]], given: Mapping[str, str], cluster: str) -> list[str]:
    """The names of the instances' clusters. Two instances of a host are never of one cluster unless somebody says so;
    but the name that one was ``given`` stays when others come or go: samples and WAL are kept under it."""
    names: dict[str, str] = {}
    for instance in sorted(chosen, key=_version, reverse=True):
        own, before = f"{cluster}-{instance['name']}", given.get(instance["name"], "")
        kept = rf"{re.escape(cluster)}(-({re.escape(instance['name'])}|[0-9.]+-{re.escape(_within(instance))}))?"
        usual = own if len(chosen) > 1 else cluster
        taken = before in names.values() or not re.fullmatch(kept, before)
        names[instance["name"]] = str(instance.get("cluster") or (usual if taken else before))
    return [names[instance["name"]] for instance in chosen]


def _declared_remote(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A remote instance, with what was asked of it. Without an authority, its certificate proves nothing, and channel
    binding has to prove the server to the administrator's login, too."""
    _refuse_unknown(entry, (KNOWN | REMOTE) - {"socket_directory"})
    address, port = str(entry["host"]), int(entry.get("port", 5432))
    authority = str(entry.get("ca_cert") or "")
    mode = str(entry.get("ssl_mode") or ("verify-full" if authority else "require"))
    if mode not in SSL_MODES or (mode.startswith("verify") and not authority):
        wrong = f"ssl_mode {mode} without ca_cert" if mode in SSL_MODES else f"no ssl_mode {mode}"
        raise AnsibleFilterError(f"pgops_instances: {entry['name']} has {wrong}. Known: {', '.join(SSL_MODES)}.")
    asked = [one for one in facts["instances"] if (one.get("host"), int(one["port"])) == (address, port)]
    return {
        "name": entry["name"],
        "host": address,
        "port": port,
        "socket_directory": "",
        "cluster": entry.get("cluster") or entry["name"],
        "node": f"{address}/{entry['name']}",
        "peers": list(entry.get("peers") or []),
        "role": (asked[0].get("role") if asked else "") or "",
        "owner": "",
        "login_user": entry.get("login_user") or "",
        "login_db": entry.get("login_db") or "postgres",
        "ssl_mode": mode,
        "ca_cert": authority,
        "channel_binding": binding(mode),
    }


def _refuse_own(remote: Sequence[Mapping[str, Any]], names: Sequence[Any], ports: set[int]) -> None:
    """Refuse remote instances that are the host's own, as far as their names tell."""
    own = {str(name).lower() for name in names if name}
    for instance in remote:
        if instance["host"].lower() in own and instance["port"] in ports:
            raise AnsibleFilterError(
                f"pgops_instances: {instance['name']} at {instance['host']}:{instance['port']} is an instance of "
                "this host itself. Declare it without host."
            )


def administrator_password(declared: Sequence[Mapping[str, Any]], name: str) -> str:
    """The password of a remote instance's administrator, '' where none is given."""
    return next((str(entry.get("login_password") or "") for entry in declared if entry.get("name") == name), "")


def _refuse_twice(what: str, values: Sequence[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise AnsibleFilterError(
            f"pgops_instances has {what}{twice[0]} twice. Each instance has a name and port of its own."
        )


def _refuse_unknown(entry: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(entry) - known)
    if unknown or "name" not in entry:
        wrong = f"unknown keys {', '.join(unknown)}" if unknown else "no name"
        shown = entry.get("name", "an entry")
        raise AnsibleFilterError(f"pgops_instances: {shown} has {wrong}. Known: {', '.join(sorted(known))}.")


def _declared(entry: Mapping[str, Any], by_port: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    remote = sorted(set(entry) & REMOTE - {"host"})
    if remote:
        raise AnsibleFilterError(
            f"pgops_instances: {entry.get('name')} has {', '.join(remote)}, and no host. Only a remote instance has "
            "these."
        )
    _refuse_unknown(entry, KNOWN)
    port = int(entry.get("port", 5432))
    found = by_port.get(port, {})
    # One name everywhere: facts know an instance by the one that it has on its host.
    if found and entry["name"] != found["name"] and not found["name"].startswith("port-"):
        raise AnsibleFilterError(
            f"pgops_instances calls the instance at port {port} {entry['name']}; on the host it is {found['name']}. "
            "Use that name, or correct the port."
        )
    return {**found, "port": port, **entry}


def credential_source(
    variables: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], target: Mapping[str, Any]
) -> dict[str, Any]:
    """Where an instance gets its cluster's credential: ``host`` and ``instance`` that keep it, or the first of the
    cluster's, whose ``drawn`` one all take.

    Raises AnsibleFilterError where a node that may keep one was not looked at in this run.
    """
    nodes = [
        {"host": host, "instance": found["name"], "drawn": not found["credential"]}
        for host in hosts
        for found in variables[host].get("pgops_targets", [])
        if found["cluster"] == target["cluster"]
    ]
    kept = [node for node in nodes if not node["drawn"]]
    if kept:
        return kept[0]
    expected = 1 + len(target["peers"])
    if len(nodes) < expected:
        raise AnsibleFilterError(
            f"Instance {target['name']} has no credential for cluster {target['cluster']} yet, and of the cluster's "
            f"{expected} nodes, one of which may keep it, this run sees {len(nodes)}. Run without --limit, with an "
            f"inventory group named {target['cluster']} that holds the cluster's hosts, or set pgops_password."
        )
    return nodes[0]


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {
            "targets": targets,
            "superseded": superseded,
            "deployed": deployed,
            "credential_source": credential_source,
            "administrator_password": administrator_password,
            "passfile_password": passfile.password,
        }
