# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles work on: the instances of a host, the nodes of their clusters, and who holds a credential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.module_utils import credentials

KNOWN = {"name", "port", "socket_directory", "cluster", "peers", "database", "login_user"}


def targets(
    found: Sequence[Mapping[str, Any]],
    declared: Sequence[Mapping[str, Any]],
    host: str,
    cluster: str,
    peers: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The instances to work on.

    Raises AnsibleFilterError for a declaration that cannot be meant.
    """
    by_port = {int(instance["port"]): instance for instance in found}
    chosen = [_declared(entry, by_port) for entry in declared] or [dict(instance) for instance in found]
    if not chosen:
        raise AnsibleFilterError(
            f"No PostgreSQL instance was found on {host}. Create one, or declare it in pgops_instances."
        )
    several = len(chosen) > 1
    return [
        {
            "name": instance["name"],
            "port": int(instance["port"]),
            "socket_directory": instance.get("socket_directory") or "",
            # Two instances of a host are never of one cluster unless somebody says so.
            "cluster": instance.get("cluster") or (f"{cluster}-{instance['name']}" if several else cluster),
            "node": f"{host}/{instance['name']}",
            "peers": list(instance.get("peers") or ([] if several else peers)),
            "credential": bool(instance.get("credential")),
        }
        for instance in chosen
    ]


def _declared(entry: Mapping[str, Any], by_port: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    unknown = sorted(set(entry) - KNOWN)
    if unknown or "name" not in entry:
        wrong = f"unknown keys {', '.join(unknown)}" if unknown else "no name"
        raise AnsibleFilterError(f"pgops_instances: {dict(entry)} has {wrong}. Known: {', '.join(sorted(KNOWN))}.")
    port = int(entry.get("port", 5432))
    return {**by_port.get(port, {}), "port": port, **entry}


def credential_holder(hosts: Mapping[str, Mapping[str, Any]], others: Sequence[str], cluster: str) -> str:
    """The first of the other hosts on which the cluster's credential was found; empty for none.

    Raises AnsibleFilterError where a host that may have it was not looked at in this run.
    """
    for host in others:
        for target in hosts[host].get("pgops_targets", []):
            if target["cluster"] == cluster and target["credential"]:
                return host
    unseen = [host for host in others if "pgops_targets" not in hosts[host]]
    if unseen:
        raise AnsibleFilterError(
            f"This host has no credential for cluster {cluster} yet, and {', '.join(unseen)}, which may hold it, is "
            "not part of this run, or failed in it. Run without --limit, or set pgops_password."
        )
    return ""


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {
            "targets": targets,
            "credential_holder": credential_holder,
            "passfile_password": credentials.password,
        }
