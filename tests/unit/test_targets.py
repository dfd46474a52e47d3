# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles work on, and where an instance's credential comes from."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ansible.errors", reason="filters run on the controller only")

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.filter.targets import (
    administrator_password,
    cluster_hosts,
    cluster_nodes,
    credential_source,
    databases_of,
    followed,
    in_turn,
    limits,
    moved,
    moves,
    peers,
    reasons,
    settings_for,
    superseded,
    targets,
)

PEER = {"host": "db2", "port": 5432}


def facts(
    *instances: tuple[str, int],
    agents: dict[str, bool] | None = None,
    clusters: dict[str, str] | None = None,
    ports: dict[str, int] | None = None,
) -> dict[str, Any]:
    names, known = clusters or {}, {**dict(instances), **(ports or {})}
    return {
        "host": {
            "agents": [
                {"name": name, "credential": kept, "cluster": names.get(name), "port": known.get(name)}
                for name, kept in (agents or dict.fromkeys(names, False)).items()
            ]
        },
        "instances": [
            {"name": name, "port": port, "socket_directory": "/run/postgresql", "running": True, "start": "auto"}
            for name, port in instances
        ],
    }


def with_one_down(**agents: bool) -> dict[str, Any]:
    """An old cluster beside a running one."""
    found = facts(("15-main", 5433), ("17-main", 5432), agents=agents)
    found["instances"][0].update(
        running=False, error={"code": "unreachable", "message": "The server 15-main is down."}
    )
    return found


def test_what_is_down_and_was_never_deployed_is_named_with_what_leaves_it_out():
    with pytest.raises(AnsibleFilterError, match="15-main is down, and was never deployed") as caught:
        targets(with_one_down(), [], "db1", "orders", [])
    said = str(caught.value)
    assert 'set pgops_instances to [{"name": "17-main", "port": 5432}]' in said
    (one,) = targets(with_one_down(), [{"name": "17-main", "port": 5432}], "db1", "orders", [])
    assert one["name"] == "17-main"
    with pytest.raises(AnsibleFilterError, match="take it out of pgops_instances"):
        targets(with_one_down(), [{"name": "15-main", "port": 5433}], "db1", "orders", [])


def test_what_was_deployed_may_be_down():
    found = targets(with_one_down(**{"15-main": False}), [], "db1", "orders", [])
    assert [one["name"] for one in found] == ["15-main", "17-main"]


def test_a_server_that_is_too_old_is_refused_before_anything_is_changed():
    found = facts(("14-main", 5433), ("17-main", 5432), agents={"14-main": True})
    found["instances"][0] |= {"support": "too old", "major": 14}
    with pytest.raises(AnsibleFilterError, match="14-main is PostgreSQL 14, which is no longer supported") as caught:
        targets(found, [], "db1", "orders", [])
    assert 'set pgops_instances to [{"name": "17-main", "port": 5432}]' in str(caught.value)
    with pytest.raises(AnsibleFilterError, match="take it out of pgops_instances"):
        targets(found, [{"name": "14-main", "port": 5433}], "db1", "orders", [])
    (one,) = targets(found, [{"name": "17-main", "port": 5432}], "db1", "orders", [])
    assert one["name"] == "17-main"
    assert len(targets(found, [], "db1", "orders", [], {"required": False})) == 2


def test_of_what_was_never_deployed_nothing_is_removed():
    (one,) = targets(with_one_down(), [], "db1", "orders", [], {"required": False})
    assert one["name"] == "17-main"


def test_a_server_that_lets_nobody_in_is_not_down():
    found = with_one_down()
    found["instances"][0]["error"]["message"] = "The socket belongs to somebody else."
    assert len(targets(found, [], "db1", "orders", [])) == 2


def test_all_that_is_found_is_worked_on_and_several_are_clusters_of_their_own():
    (one,) = targets(facts(("17-main", 5432), agents={"17-main": True}), [], "db1", "orders", [PEER])
    assert one == {
        "name": "17-main",
        "host": "",
        "port": 5432,
        "socket_directory": "/run/postgresql",
        "cluster": "orders",
        "node": "db1/17-main",
        "peers": [PEER],
        "credential": True,
        "role": "",
        "owner": "",
        "login": {"login_host": "/run/postgresql", "login_port": 5432, "login_user": ""},
    }
    several = targets(facts(("17-main", 5432), ("17-archive", 5433)), [], "db1", "orders", [PEER])
    assert [(found["cluster"], found["peers"]) for found in several] == [
        ("orders-17-main", []),
        ("orders-17-archive", []),
    ]


def clusters(*found: dict[str, Any]) -> dict[str, tuple[str, list[Any]]]:
    """The clusters and peers that instances get."""
    return {one["name"]: (one["cluster"], one["peers"]) for one in found}


def test_the_name_that_a_cluster_was_given_stays_when_instances_come_and_go():
    two = (("17-main", 5432), ("17-archive", 5433))
    joined = targets(facts(*two, clusters={"17-main": "orders"}), [], "db1", "orders", [PEER])
    assert clusters(*joined) == {"17-main": ("orders", [PEER]), "17-archive": ("orders-17-archive", [])}
    alone = facts(("17-main", 5432), clusters={"17-main": "orders-17-main", "17-archive": "orders-17-archive"})
    assert clusters(*targets(alone, [], "db1", "orders", [PEER])) == {"17-main": ("orders-17-main", [PEER])}
    declared = [{"name": "17-main"}]
    assert clusters(*targets(facts(*two, clusters={"17-main": "orders"}), declared, "db1", "orders", [PEER])) == {
        "17-main": ("orders", [PEER])
    }


@pytest.mark.parametrize("given", [None, "shop", "orders-17", "orders-main", "orders-17-archive", "Xorders"])
def test_a_name_that_the_inventory_changed_is_taken(given):
    known = facts(("17-main", 5432), clusters={"17-main": given})
    assert clusters(*targets(known, [], "db1", "orders", [PEER])) == {"17-main": ("orders", [PEER])}
    declared = [{"name": "17-main", "cluster": "eu"}]
    known = facts(("17-main", 5432), clusters={"17-main": "orders"})
    assert clusters(*targets(known, declared, "db1", "orders", [PEER])) == {"17-main": ("eu", [PEER])}


def upgraded(**known: Any) -> dict[str, Any]:
    """A host after pg_upgradecluster: 15-main is down, and its port is that of 17-main."""
    found = facts(("15-main", 5433), ("17-main", 5432), ports={"15-main": 5432}, **known)
    found["instances"][0].update(running=False, start="manual")
    return found


@pytest.mark.parametrize("name", ["orders", "orders-15-main"])
@pytest.mark.parametrize("before", [{}, {"17-main": "orders-17-main"}, {"17-main": None}])
def test_what_was_upgraded_is_left_alone_and_its_successor_takes_its_place(name, before):
    known = upgraded(clusters={"15-main": name, **before})
    assert superseded(known) == {"15-main": "17-main"}
    (main,) = targets(known, [], "db1", "orders", [PEER])
    assert (main["name"], main["cluster"], main["peers"]) == ("17-main", name, [PEER])
    # once the old one is dropped, before or after the next run
    del known["instances"][0]
    assert superseded(known) == {"15-main": "17-main"}
    assert targets(known, [], "db1", "orders", [PEER]) == [main]
    known["host"]["agents"] = [{"name": "17-main", "credential": False, "cluster": name, "port": 5432}]
    assert superseded(known) == {}
    assert targets(known, [], "db1", "orders", [PEER]) == [main]


@pytest.mark.parametrize(
    ("of", "change"),
    [
        (0, {"running": True}),
        (0, {"start": "auto"}),
        (0, {"name": "18-main"}),
        (1, {"running": False}),
        (1, {"port": 5434}),
        (1, {"name": "17-other"}),
        (1, {"start": None}),
    ],
)
def test_what_runs_or_is_to_be_started_or_has_no_successor_was_not_upgraded(of, change):
    known = upgraded(clusters={"15-main": "orders", "18-main": "orders"})
    known["host"]["agents"][1]["port"] = 5432
    known["instances"][of].update(change)
    assert superseded(known) == ({} if change != {"name": "18-main"} else {"15-main": "17-main"})


def test_an_old_one_that_is_started_again_is_a_cluster_of_its_own():
    known = upgraded(clusters={"15-main": "orders", "17-main": "orders"})
    known["instances"][0]["running"] = True
    assert clusters(*targets(known, [], "db1", "orders", [PEER])) == {
        "15-main": ("orders-15-main", []),
        "17-main": ("orders", [PEER]),
    }


def test_peers_are_those_of_the_host_unless_several_instances_share_it():
    declared = [{"name": "17-main", "cluster": "eu"}]
    assert clusters(*targets(facts(("17-main", 5432)), declared, "db1", "orders", [PEER])) == {
        "17-main": ("eu", [PEER])
    }
    both = [{"name": "17-main", "cluster": "orders"}, {"name": "17-copy", "port": 5433, "cluster": "orders"}]
    found = targets(facts(("17-main", 5432), ("17-copy", 5433)), both, "db1", "orders", [PEER])
    assert clusters(*found) == {"17-main": ("orders", []), "17-copy": ("orders", [])}


def test_a_declared_instance_keeps_what_was_found_of_it():
    declared = [{"name": "mine", "port": 5433, "cluster": "orders", "peers": [PEER]}]
    (one,) = targets(facts(("port-5433", 5433), agents={"mine": True}), declared, "db1", "db1", [])
    assert (one["socket_directory"], one["credential"], one["peers"]) == ("/run/postgresql", True, [PEER])


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([{"port": 5432}], "no name"),
        ([{"name": "x", "sockt": 1, "port": 6000}], "unknown keys sockt"),
        ([{"name": "main", "port": 5432}], "on the host it is 17-main"),
        ([{"name": "a", "port": 6000}, {"name": "a", "port": 6001}], "has a twice"),
        ([{"name": "17-main"}, {"name": "b"}], "has port 5432 twice"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(declared, words):
    with pytest.raises(AnsibleFilterError, match=words):
        targets(facts(("17-main", 5432)), declared, "db1", "db1", [])


def test_a_host_without_any_instance_is_refused_unless_something_is_removed():
    with pytest.raises(AnsibleFilterError, match="No PostgreSQL instance was found on db1"):
        targets(facts(), [], "db1", "db1", [])
    assert targets(facts(), [], "db1", "db1", [], {"required": False}) == []


def node(name: str, credential: bool, cluster: str = "orders") -> dict[str, Any]:
    return {"pgops_targets": [{"name": name, "cluster": cluster, "credential": credential}]}


NEW = {"name": "17-main", "cluster": "orders", "peers": [PEER]}


def test_a_kept_credential_is_taken_also_from_an_instance_of_another_name():
    variables = {"db1": node("17-main", False), "db2": node("17-copy", True)}
    assert credential_source(variables, ["db1", "db2"], NEW) == {
        "host": "db2",
        "instance": "17-copy",
        "drawn": False,
    }


def test_where_none_is_kept_all_take_the_one_that_the_first_drew():
    variables = {"db1": node("x", False, "other"), "db2": node("17-main", False), "db3": node("17-main", False)}
    source = credential_source(variables, ["db1", "db2", "db3"], NEW)
    assert (source["host"], source["drawn"]) == ("db2", True)


def test_a_node_that_was_not_looked_at_may_keep_one():
    with pytest.raises(AnsibleFilterError, match=r"of the cluster's 2 nodes, .* this run sees 1"):
        credential_source({"db1": node("17-main", False), "db2": {}}, ["db1", "db2"], NEW)


# --- remote instances

ORDERS = {"name": "orders", "host": "orders.example.org", "login_user": "admin", "login_password": "secret"}


def test_remote_instances_come_after_those_of_the_host_which_stay_as_they_are():
    alone = targets(facts(("17-main", 5432)), [], "db1", "shop", [PEER])
    *own, orders = targets(facts(("17-main", 5432), agents={"orders": True}), [ORDERS], "db1", "shop", [PEER])
    assert own == alone
    assert (orders["node"], orders["cluster"], orders["peers"]) == ("orders.example.org/orders", "orders", [])
    assert (orders["host"], orders["port"], orders["credential"]) == ("orders.example.org", 5432, True)
    assert "secret" not in repr(orders)
    assert administrator_password([{"name": "x"}, ORDERS], "orders") == "secret"
    assert administrator_password([{"name": "x"}, ORDERS], "x") == ""


def test_a_host_may_have_remote_instances_alone():
    (one,) = targets(facts(), [ORDERS], "watcher", "watcher", [])
    assert one["name"] == "orders"
    assert targets(facts(("17-main", 5432)), [ORDERS], "watcher", "watcher", [], {"discover": False}) == [one]


def test_what_was_asked_of_a_remote_instance_is_none_of_the_host():
    known = facts(("17-main", 5432))
    known["instances"].append({"name": "orders", "host": "orders.example.org", "port": 5432, "role": "standby"})
    assert [one["name"] for one in targets(known, [], "db1", "shop", [])] == ["17-main"]
    assert targets(known, [ORDERS], "db1", "shop", [])[1]["role"] == "standby"


@pytest.mark.parametrize(
    ("given", "mode", "binding"),
    [
        ({}, "require", "require"),
        ({"ca_cert": "/ca.pem"}, "verify-full", "prefer"),
        ({"ca_cert": "/ca.pem", "ssl_mode": "verify-ca"}, "verify-ca", "require"),
        ({"ssl_mode": "disable"}, "disable", "disable"),
    ],
)
def test_what_proves_the_server_is_as_safe_as_can_be(given, mode, binding):
    (one,) = targets(facts(), [{**ORDERS, **given}], "watcher", "watcher", [])
    assert (one["ssl_mode"], one["channel_binding"]) == (mode, binding)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([ORDERS, {**ORDERS, "name": "again"}], "has orders.example.org:5432 twice"),
        ([ORDERS, {**ORDERS, "port": 5433}], "has orders twice"),
        ([{**ORDERS, "name": "17-main"}], "has 17-main twice"),
        ([{**ORDERS, "host": "DB1"}], "orders at DB1:5432 is an instance of this host itself"),
        ([{**ORDERS, "host": "127.0.0.1"}], "an instance of this host itself"),
        ([{**ORDERS, "host": "own.name"}], "an instance of this host itself"),
        ([{**ORDERS, "socket_directory": "/run"}], "unknown keys socket_directory"),
        ([{**ORDERS, "ssl_mode": "prefer"}], "no ssl_mode prefer"),
        ([{**ORDERS, "ssl_mode": "verify-full"}], "ssl_mode verify-full without ca_cert"),
        ([{"name": "17-main", "login_user": "x"}], "17-main has login_user, and no host"),
        ([{**ORDERS, "nme": 1}], r"unknown keys nme"),
    ],
)
def test_a_remote_instance_that_cannot_be_meant_is_refused(declared, words):
    known = facts(("17-main", 5432))
    known["host"]["hostname"] = "own.name"
    with pytest.raises(AnsibleFilterError, match=words) as refused:
        targets(known, declared, "db1", "db1", [])
    assert "secret" not in str(refused.value)


# --- clusters: their hosts, nodes and places


@pytest.mark.parametrize(
    ("cluster", "hosts"),
    [
        ("orders", ["db1", "db2"]),
        ("shop-eu", ["db1", "db3"]),
        ("shop_eu", ["db1", "db3"]),
        ("web.de", ["db1", "db4"]),
        ("else-where", ["db1"]),
        ("none", ["db1"]),
    ],
)
def test_a_clusters_hosts_are_those_of_its_group_however_ansible_spells_it(cluster, hosts):
    groups = {
        "orders": ["db1", "db2"],
        "shop_eu": ["db1", "db3"],
        "web-de": ["db1", "db4"],
        "else_where": ["db8", "db9"],
    }
    assert cluster_hosts(groups, cluster, "db1") == hosts
    assert cluster_hosts(groups, "none", "db1", ["db1", "db7"]) == ["db1", "db7"]
    assert cluster_hosts(groups, "orders", "db1", ["db7"]) == ["db1", "db2"]


def seen(*instances: tuple[str, int], **variables: Any) -> dict[str, Any]:
    """A host that the run has looked at."""
    return {"pgops_targets_facts": {"ansible_facts": {"pg_ops": facts(*instances)}}, **variables}


def test_peers_are_reached_where_they_were_found_unless_the_inventory_says_otherwise():
    here = seen(("17-main", 5432))
    here["pgops_targets_facts"]["ansible_facts"]["pg_ops"]["host"]["agents"] = [
        {
            "name": "17-main",
            "port": 5432,
            "cluster": "orders",
            "credential": True,
            "peers": ["db7:5440", "10.0.0.8:5441"],
        }
    ]
    variables = {
        "db1": here,
        "db2": seen(("17-main", 5433)),
        "db3": seen(("17-main", 5433), pgops_address="10.0.0.3", pgops_port=6432, ansible_host="172.16.0.3"),
        "db4": seen(("17-main", 5433), ("17-other", 5434), ansible_host="10.0.0.4"),
        "db7": {},
        "db8": {"ansible_host": "10.0.0.8"},
        "db9": {},
        "db10": {
            **seen(("17-main", 5432)),
            "pgops_targets": [{"host": "", "port": 5435}, {"host": "far", "port": 1}],
        },
    }
    found = peers(variables, [host for host in variables if host != "db1"], "db1")
    assert [(peer["host"], peer["port"]) for peer in found] == [
        ("db2", 5433),
        ("10.0.0.3", 6432),
        ("10.0.0.4", 5432),
        ("db7", 5440),
        ("10.0.0.8", 5441),
        ("db9", 5432),
        ("db10", 5435),
    ]


def test_what_pg_upgradecluster_left_is_no_place_of_a_peer():
    known = upgraded(clusters={"15-main": "orders"})
    variables = {"db1": {}, "db2": {"pgops_targets_facts": {"ansible_facts": {"pg_ops": known}}}}
    assert peers(variables, ["db2"], "db1") == [{"host": "db2", "port": 5432}]


def place(port: int, directory: str = "/run/postgresql", name: str = "17-main") -> dict[str, Any]:
    return {"pgops_target": {"name": name}, "port": port, "socket_directory": directory, "limits": {"standby": False}}


def test_a_server_that_listens_elsewhere_is_worked_on_there():
    here = targets(facts(("17-main", 5432)), [ORDERS], "db1", "db1", [])
    assert not moves(here, [place(5432)])
    assert not moves(here, [])
    for there in (place(5433), place(5432, "/srv")):
        assert moves(here, [there])
        main, orders = moved(here, [there])
        assert (main["port"], main["socket_directory"]) == (there["port"], there["socket_directory"])
        assert main["login"] == {
            "login_host": there["socket_directory"],
            "login_port": there["port"],
            "login_user": "",
        }
        assert orders == here[1]
        # In check mode it is still to be reached where it was.
        assert moved(here, [there], True)[0]["port"] == there["port"]
        assert moved(here, [there], True)[0]["login"] == here[0]["login"]
    assert limits([place(5433), {"skipped": True}]) == {"17-main": {"standby": False}}


def test_an_instance_is_known_by_its_name_when_its_port_has_changed():
    (one,) = targets(facts(("17-main", 5433)), [{"name": "17-main", "port": 5432}], "db1", "db1", [])
    assert (one["name"], one["port"]) == ("17-main", 5433)
    two = facts(("17-main", 5433), ("17-other", 5432))
    with pytest.raises(AnsibleFilterError, match="on the host it is 17-other"):
        targets(two, [{"name": "17-main"}], "db1", "db1", [])
    # One that has no name of its own on the host keeps that of its agent.
    known = facts(("port-5433", 5433), agents={"port-5432": False}, ports={"port-5432": 5433})
    for declared in ([], [{"name": "port-5432", "port": 5432}]):
        (one,) = targets(known, declared, "db1", "db1", [])
        assert (one["name"], one["port"]) == ("port-5432", 5433)
    known = facts(("port-5433", 5433), ("port-5432", 5432), agents={"port-5432": False}, ports={"port-5432": 5433})
    assert [one["name"] for one in targets(known, [], "db1", "db1", [])] == ["port-5433", "port-5432"]


def test_peers_follow_except_those_that_are_declared():
    declared = [{"name": "17-main"}, {"name": "17-other", "peers": [PEER]}]
    here = [
        {"name": "17-main", "host": "", "peers": [PEER]},
        {"name": "17-other", "host": "", "peers": [PEER]},
        {"name": "17-alone", "host": "", "peers": []},
        {"name": "orders", "host": "far", "peers": [PEER]},
    ]
    new = [{"host": "db2", "port": 5433}]
    assert [one["peers"] for one in followed(here, declared, new)] == [new, [PEER], [], [PEER]]


def test_servers_of_both_kinds_on_a_host_have_their_own_turns():
    here = [
        {"name": "a", "host": "", "role": "primary"},
        {"name": "b", "host": "", "role": "standby"},
        {"name": "c", "host": "", "role": ""},
        {"name": "d", "host": "far", "role": "primary"},
    ]
    assert [one["name"] for one in in_turn(here, "standby")] == ["b"]
    assert [one["name"] for one in in_turn(here, "primary")] == ["a", "c"]
    assert [one["name"] for one in in_turn(here)] == ["a", "b", "c"]


def test_the_nodes_of_a_cluster_are_those_of_its_hosts_and_its_declared_peers():
    main = {"name": "17-main", "host": "", "cluster": "orders", "port": 5433}
    variables = {
        "db1": {"pgops_targets": [{**main, "node": "db1/17-main"}]},
        "db2": {
            "pgops_targets": [{**main, "node": "db2/17-main"}, {**main, "node": "db2/x", "cluster": "other"}],
            "pgops_settings_limits": {"17-main": {"standby": True}},
            "ansible_host": "10.0.0.2",
        },
        "db3": {"pgops_targets": [{**main, "node": "db3/17-main"}], "pgops_settings_limits": {}},
        "db4": {},
    }
    target = {
        "cluster": "orders",
        "node": "db1/17-main",
        "peers": [{"host": "10.0.0.2", "port": 5433}, {"host": "db9"}],
    }
    assert cluster_nodes(variables, list(variables), target) == [
        {"name": "db2/17-main", "host": "10.0.0.2", "port": 5433, "limits": {"standby": True}},
        {"name": "db3/17-main", "host": "db3", "port": 5433},
        {"name": "db4", "host": "db4", "port": 5432},
        {"name": "db9", "host": "db9", "port": 5432},
    ]
    del variables["db1"]["pgops_targets"]
    assert "db1" not in [node["name"] for node in cluster_nodes(variables, list(variables), target)]


def test_why_a_task_failed_is_told_of_its_items():
    wrong = {"failed": True, "msg": "no"}
    assert reasons({"msg": "One or more items failed", "results": [wrong, {"msg": "yes"}, wrong]}) == "no"
    assert reasons(wrong) == "no"
    assert reasons({"results": [{"unreachable": True, "msg": "lost"}]}) == "lost"
    assert reasons({}) == "The host cannot be reached."


MAIN, REPORTS = {"name": "17-main", "port": 5432}, {"name": "reports", "port": 5433}


@pytest.mark.parametrize("target", [MAIN, REPORTS])
def test_a_list_of_databases_is_for_all_instances(target):
    assert databases_of(["shop", "crm"], target) == ["shop", "crm"]


@pytest.mark.parametrize("key", [5433, "5433", "reports"])
def test_databases_of_one_instance_are_declared_by_its_name_or_port(key):
    assert databases_of({key: ["warehouse"]}, REPORTS) == ["warehouse"]
    assert databases_of({key: ["warehouse"], "17-main": None}, MAIN) == []


@pytest.mark.parametrize("key", [5433, "5433", "reports"])
def test_settings_of_one_instance_win_over_those_for_all(key):
    declared = {"work_mem": "8MB", "search_path": ["a", "b"], "geqo": None, key: {"work_mem": "64MB", "jit": None}}
    assert settings_for(declared, MAIN) == {"work_mem": "8MB", "search_path": ["a", "b"], "geqo": None}
    assert settings_for(declared, REPORTS) == {**settings_for(declared, MAIN), "work_mem": "64MB", "jit": None}
