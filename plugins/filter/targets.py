# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles work on: the instances of a host, the nodes of their clusters, and where a credential comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.module_utils import credentials

KNOWN = {"name", "port", "socket_directory", "cluster", "peers"}


def targets(
    facts: Mapping[str, Any],
    declared: Sequence[Mapping[str, Any]],
    host: str,
    cluster: str,
    peers: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The instances to work on, of the facts ``pg_ops`` of a host.

    Raises AnsibleFilterError for a declaration that cannot be meant.
    """
    _refuse_twice("", [str(entry.get("name")) for entry in declared])
    _refuse_twice("port ", [f"{entry.get('port', 5432)}" for entry in declared])
    by_port = {int(instance["port"]): instance for instance in facts["instances"]}
    chosen = [_declared(entry, by_port) for entry in declared] or [dict(found) for found in facts["instances"]]
    if not chosen:
        raise AnsibleFilterError(
            f"No PostgreSQL instance was found on {host}. Create one, or declare it in pgops_instances."
        )
    several = len(chosen) > 1
    keepers = {agent["name"] for agent in facts["host"]["agents"] or () if agent["credential"]}
    return [
        {
            "name": instance["name"],
            "port": int(instance["port"]),
            "socket_directory": instance.get("socket_directory") or "",
            # Two instances of a host are never of one cluster unless somebody says so.
            "cluster": instance.get("cluster") or (f"{cluster}-{instance['name']}" if several else cluster),
            "node": f"{host}/{instance['name']}",
            "peers": list(instance.get("peers") or ([] if several else peers)),
            "credential": instance["name"] in keepers,
            "role": instance.get("role") or "",
            "owner": instance.get("owner") or "",
        }
        for instance in chosen
    ]


def _refuse_twice(what: str, values: Sequence[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise AnsibleFilterError(f"pgops_instances has {what}{twice[0]} twice. Each instance has a name and port.")


def _declared(entry: Mapping[str, Any], by_port: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    unknown = sorted(set(entry) - KNOWN)
    if unknown or "name" not in entry:
        wrong = f"unknown keys {', '.join(unknown)}" if unknown else "no name"
        raise AnsibleFilterError(f"pgops_instances: {dict(entry)} has {wrong}. Known: {', '.join(sorted(KNOWN))}.")
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
            "credential_source": credential_source,
            "passfile_password": credentials.password,
        }
