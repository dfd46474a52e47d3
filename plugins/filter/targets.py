# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles work on: the instances of a host, the nodes of their clusters, and where a credential comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.filter.written import listed, mapped
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
    found_here = [{**found, "name": _kept_name(found, facts)} for found in found_here]
    by_port = {int(instance["port"]): instance for instance in found_here}
    old = superseded(facts)
    chosen = [_declared(entry, by_port) for entry in here] or [
        dict(found) for found in found_here if wanted["discover"] and found["name"] not in old
    ]
    chosen = _without_down(chosen, facts, bool(here), bool(wanted["required"]))
    if wanted["required"]:
        _refuse_old(chosen, bool(here))
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


def _kept_name(found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The name of an instance. One that only its port gives a name keeps that of its agent, which follows it to
    other ports."""
    name = str(found["name"])
    if not name.startswith("port-"):
        return name
    there = {one["name"] for one in facts["instances"]}
    agents = [one["name"] for one in facts["host"]["agents"] or () if one["port"] == int(found["port"])]
    return str(next((agent for agent in agents if agent not in there), name))


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
        raise AnsibleFilterError(
            f"Instance {down[0]} is down, and was never deployed. Start it; or, {_left_out(chosen, down, declared)}"
        )
    return [one for one in chosen if one["name"] not in down]


def _refuse_old(chosen: Sequence[Mapping[str, Any]], declared: bool) -> None:
    """Raises AnsibleFilterError for a server that is too old: nothing has been changed yet, and the agent of an
    earlier release goes on."""
    old = [one["name"] for one in chosen if one.get("support") == "too old"]
    if old:
        major = next(one["major"] for one in chosen if one["name"] == old[0])
        raise AnsibleFilterError(
            f"Instance {old[0]} is PostgreSQL {major}, which is no longer supported. Upgrade it; or, "
            f"{_left_out(chosen, old, declared)}"
        )


def _left_out(chosen: Sequence[Mapping[str, Any]], names: Sequence[str], declared: bool) -> str:
    """How instances are left out, as the end of a sentence; ``declared``: the inventory lists the host's."""
    others = [{"name": one["name"], "port": int(one["port"])} for one in chosen if one["name"] not in names]
    if declared:
        return "to leave it out, take it out of pgops_instances."
    if others:
        return f"to leave it out, set pgops_instances to {json.dumps(others)} for this host."
    return "to leave it out, set pgops_discover to false for this host."


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


def databases_of(declared: Any, target: Mapping[str, Any]) -> list[str]:
    """The databases declared for an instance: a list is for all, a mapping has lists by instances' names or ports."""
    if not isinstance(declared, Mapping) and not str(declared).strip().startswith("{"):
        return listed(declared)
    by = {str(key): value for key, value in mapped(declared).items()}
    return [name for key in _keys(target) for name in listed(by.get(key) or [])]


def settings_for(declared: Any, target: Mapping[str, Any]) -> dict[str, Any]:
    """The settings declared for an instance: those for all, and over them those in mappings that have an instance's
    name or port as their key."""
    declared = mapped(declared)
    by = {str(key): value for key, value in declared.items() if isinstance(value, Mapping)}
    found = {name: value for name, value in declared.items() if not isinstance(value, Mapping)}
    for key in _keys(target):
        found.update(by.get(key, {}))
    return found


def _keys(target: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((str(target["port"]), str(target["name"]))))


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
    moved_to = [at for at, one in by_port.items() if one["name"] == entry["name"] and not found]
    if moved_to:  # by pgops_settings, maybe; its name is the same
        return {**by_port[moved_to[0]], **entry, "port": moved_to[0]}
    # One name everywhere: facts know an instance by the one that it has on its host.
    if found and entry["name"] != found["name"] and not found["name"].startswith("port-"):
        raise AnsibleFilterError(
            f"pgops_instances calls the instance at port {port} {entry['name']}; on the host it is {found['name']}. "
            "Use that name, or correct the port."
        )
    return {**found, "port": port, **entry}


def cluster_hosts(
    groups: Mapping[str, Sequence[str]], cluster: str, host: str, otherwise: Sequence[str] | None = None
) -> list[str]:
    """The hosts of a cluster: those of the inventory group with its name, or with that name as Ansible would have a
    group's, with underscores, if the host is in it; else ``otherwise``, or the host alone."""
    if cluster in groups:
        return list(groups[cluster])
    alike = [name for name in groups if _group(name) == _group(cluster) and host in groups[name]]
    return list(groups[alike[0]] if alike else [host] if otherwise is None else otherwise)


def _group(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def peers(variables: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], host: str) -> list[dict[str, Any]]:
    """The other ``hosts`` of a cluster as its nodes reach them."""
    return [_peer(variables[other], other, _remembered(variables[host])) for other in hosts]


def followed(
    targets_here: Sequence[Mapping[str, Any]],
    declared: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The instances with the peers as they are now ``found``, where these are not ``declared``."""
    fixed = {entry.get("name") for entry in declared if entry.get("peers")}
    return [
        {**one, "peers": list(found)} if one["peers"] and not one["host"] and one["name"] not in fixed else dict(one)
        for one in targets_here
    ]


def _peer(known: Mapping[str, Any], name: str, remembered: Mapping[str, int]) -> dict[str, Any]:
    host = str(known.get("pgops_address") or known.get("ansible_host") or name)
    port = known.get("pgops_port") or _found_port(known) or remembered.get(host) or 5432
    return {"host": host, "port": int(port)}


def _found_port(known: Mapping[str, Any]) -> int | None:
    """The port of a host's only instance, as far as this run has seen it."""
    own = [one for one in known.get("pgops_targets") or () if not one["host"]]
    if not own:
        facts = _facts(known)
        old = superseded(facts) if facts else {}
        own = [one for one in facts.get("instances", ()) if not one.get("host") and one["name"] not in old]
    return int(own[0]["port"]) if len(own) == 1 else None


def _remembered(known: Mapping[str, Any]) -> dict[str, int]:
    """The ports of peers, by their hosts, as the agents of a host have them."""
    agents = _facts(known).get("host", {}).get("agents") or ()
    places = [peer.rpartition(":") for agent in agents for peer in agent.get("peers") or ()]
    return {host: int(port) for host, _colon, port in places}


def _facts(known: Mapping[str, Any]) -> Mapping[str, Any]:
    gathered: Mapping[str, Any] = (known.get("pgops_targets_facts") or {}).get("ansible_facts", {})
    return gathered.get("pg_ops") or {}


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


def in_turn(targets_here: Sequence[Mapping[str, Any]], role: str = "") -> list[Mapping[str, Any]]:
    """The instances of the host itself whose turn it is: those of a ``role``, primary or standby, or all for ''."""
    return [one for one in targets_here if not one["host"] and role in ("", one["role"] or "primary")]


def limits(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the ``results`` of pg_ops_settings' loop say for the cluster's other nodes, by instance."""
    return {result["pgops_target"]["name"]: result["limits"] for result in results if "limits" in result}


def moves(targets_here: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a server listens elsewhere than it did, or will."""
    return any(
        new["port"] != old["port"] or new["socket_directory"] != old["socket_directory"]
        for new, old in zip(moved(targets_here, results), targets_here)
    )


def moved(
    targets_here: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]], check_mode: bool = False
) -> list[dict[str, Any]]:
    """The instances with the ports and socket directories that pg_ops_settings has given them, of the ``results`` of
    its loop. In check mode the servers are still to be reached where they were."""
    places = {
        result["pgops_target"]["name"]: {name: result[name] for name in ("port", "socket_directory")}
        for result in results
        if "port" in result
    }
    return [_moved(one, places.get(one["name"], {}), check_mode) for one in targets_here]


def _moved(one: Mapping[str, Any], place: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    now = {**one, **place}
    if check_mode or one["host"]:
        return now
    return {**now, "login": {**one["login"], "login_host": now["socket_directory"], "login_port": now["port"]}}


def cluster_nodes(
    variables: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], target: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The other nodes of an instance's cluster, as pg_ops_settings takes them: those of ``hosts``, with what this run
    has made of them, and peers that are declared."""
    found = [node for host in hosts for node in _nodes(variables, host, target)]
    places = {(node["host"], node["port"]) for node in found}
    peers = [{"host": str(peer["host"]), "port": int(peer.get("port", 5432))} for peer in target["peers"]]
    return found + [{"name": peer["host"], **peer} for peer in peers if (peer["host"], peer["port"]) not in places]


def _nodes(
    variables: Mapping[str, Mapping[str, Any]], host: str, target: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The nodes of a cluster on a host; one that was not looked at in this run has its host's name."""
    known = variables[host]
    there = {peer["host"]: int(peer.get("port", 5432)) for peer in target["peers"]}
    place = _peer(known, host, there)
    if "pgops_targets" not in known:
        if host != target["node"].partition("/")[0]:
            yield {"name": host, **place}
        return
    done = known.get("pgops_settings_limits") or {}
    for found in known["pgops_targets"]:
        if found["cluster"] == target["cluster"] and found["node"] != target["node"]:
            made = {"limits": done[found["name"]]} if found["name"] in done else {}
            port = int(known.get("pgops_port") or found["port"])
            yield {"name": found["node"], "host": found["host"] or place["host"], "port": port, **made}


def reasons(result: Mapping[str, Any]) -> str:
    """Why a task failed, of a loop why its items did."""
    failed = [one for one in result.get("results") or () if one.get("failed") or one.get("unreachable")]
    found = [str(one["msg"]) for one in failed or [result] if one.get("msg")]
    return " ".join(dict.fromkeys(found)) or "The host cannot be reached."


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {
            "targets": targets,
            "superseded": superseded,
            "deployed": deployed,
            "credential_source": credential_source,
            "cluster_hosts": cluster_hosts,
            "cluster_nodes": cluster_nodes,
            "in_turn": in_turn,
            "limits": limits,
            "moves": moves,
            "moved": moved,
            "peers": peers,
            "followed": followed,
            "reasons": reasons,
            "databases_of": databases_of,
            "settings_for": settings_for,
            "administrator_password": administrator_password,
            "passfile_password": passfile.password,
        }
