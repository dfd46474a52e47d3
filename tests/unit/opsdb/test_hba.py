"""Whether rules that are there admit somebody: examples of every part, and what always holds."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pgops.opsdb import access, hba
from pgops.opsdb.access import Access
from pgops.opsdb.hba import Rule

LOCAL = Rule("local", ("all",), ("pgops",), "", "peer")
MAPPED = dataclasses.replace(LOCAL, options=("map=pgops",))
REMOTE = Rule("hostssl", ("ops",), ("pgops",), "10.0.0.7/32", "scram-sha-256")

ANY = some.builds(
    Rule,
    type=some.sampled_from(["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"]),
    databases=some.lists(some.sampled_from(["all", "ops", "shop", "sameuser", "replication", "/^o"]), min_size=1).map(
        tuple
    ),
    users=some.lists(some.sampled_from(["all", "pgops", "postgres", "+staff", "/^p"]), min_size=1).map(tuple),
    network=some.sampled_from(["all", "samenet", "example.org", "10.0.0.0/24", "10.0.0.7/32", "10.0.0.7/31", "::/0"]),
    method=some.sampled_from(["peer", "trust", "scram-sha-256", "md5", "reject", "cert"]),
)


def changed(rule: Rule, **parts: object) -> Rule:
    return dataclasses.replace(rule, **parts)


@pytest.mark.parametrize(
    ("wanted", "present", "expected"),
    [
        (LOCAL, [], False),
        (LOCAL, [LOCAL], True),
        (LOCAL, [changed(LOCAL, users=("all",))], True),
        (LOCAL, [changed(LOCAL, users=("all",), method="trust")], True),
        (LOCAL, [changed(LOCAL, users=("postgres",)), LOCAL], True),
        (LOCAL, [changed(LOCAL, users=("all",), method="scram-sha-256"), LOCAL], False),
        (LOCAL, [changed(LOCAL, users=("+staff",), method="reject"), LOCAL], False),
        (LOCAL, [changed(LOCAL, users=("+staff",)), LOCAL], True),
        (LOCAL, [changed(LOCAL, users=("+staff",))], False),
        (LOCAL, [changed(LOCAL, databases=("shop",))], False),
        (LOCAL, [changed(LOCAL, databases=("shop",), method="reject"), LOCAL], False),
        (LOCAL, [changed(LOCAL, databases=("replication",), method="reject"), LOCAL], True),
        # A role's members and regular expressions: whom they are for is not known, so all has to go well either way.
        (LOCAL, [changed(LOCAL, users=("/^pg",))], False),
        (LOCAL, [changed(LOCAL, users=("/^pg",)), LOCAL], True),
        (LOCAL, [changed(LOCAL, users=("/^pg",), method="reject"), LOCAL], False),
        (LOCAL, [changed(LOCAL, users=("postgres", "/^pg"), method="reject"), LOCAL], False),
        (LOCAL, [changed(LOCAL, users=("pgops", "/^x"))], True),
        (LOCAL, [changed(LOCAL, users=("x+y", "x/y"), method="reject"), LOCAL], True),
        (LOCAL, [changed(LOCAL, databases=("/^s",), method="reject"), LOCAL], False),
        (LOCAL, [MAPPED], False),
        (MAPPED, [LOCAL], False),
        (MAPPED, [MAPPED], True),
        (MAPPED, [changed(LOCAL, method="trust")], True),  # whoever asks is let in
        (LOCAL, [changed(REMOTE, databases=("all",))], False),
        (REMOTE, [LOCAL], False),
        (REMOTE, [REMOTE], True),
        (REMOTE, [changed(REMOTE, type="host", method="md5")], True),
        (REMOTE, [changed(REMOTE, type="hostnossl", method="reject"), REMOTE], True),
        (REMOTE, [changed(REMOTE, method="trust")], False),  # the agent demands channel binding
        (REMOTE, [changed(REMOTE, network="all")], True),
        (REMOTE, [changed(REMOTE, network="10.0.0.0/8")], True),
        (REMOTE, [changed(REMOTE, network="10.0.1.0/24", method="reject"), REMOTE], True),
        (REMOTE, [changed(REMOTE, network="::/0", method="reject"), REMOTE], True),
        (REMOTE, [changed(REMOTE, network="samenet", method="reject"), REMOTE], False),
        (REMOTE, [changed(REMOTE, network="node2.example.org")], False),
        (changed(REMOTE, network="10.0.0.0/24"), [REMOTE], False),
        (REMOTE, [changed(REMOTE, databases=("shop", "ops"))], True),
        (REMOTE, [changed(REMOTE, databases=("sameuser",), method="reject"), REMOTE], False),
        (REMOTE, [changed(REMOTE, databases=("samerole",), method="reject"), REMOTE], False),
        (REMOTE, [changed(REMOTE, databases=("samegroup",), method="reject"), REMOTE], False),
        (REMOTE, [changed(REMOTE, databases=("/^o",), method="reject"), REMOTE], False),
        (REMOTE, [changed(REMOTE, databases=("replication", "shop"), method="reject"), REMOTE], True),
        (REMOTE, [changed(REMOTE, network="10.0.0.7/31", method="reject"), REMOTE], False),
        (changed(REMOTE, network="10.0.0.0/24"), [changed(REMOTE, method="reject"), REMOTE], False),
        (REMOTE, [changed(REMOTE, options=("clientcert=verify-full",))], False),
        (REMOTE, [changed(REMOTE, options=("clientcert=verify-full",)), REMOTE], False),
        (changed(REMOTE, options=("a=1", "b=2")), [changed(REMOTE, options=("b=2", "a=1"))], True),
        (changed(REMOTE, options=("a=1", "b=2")), [changed(REMOTE, options=("a=1",))], False),
    ],
)
def test_the_first_rule_that_fits_decides(wanted, present, expected):
    assert hba.admit(present, wanted) is expected


@given(some.lists(ANY), some.sampled_from([LOCAL, MAPPED, REMOTE]))
def test_our_rule_at_the_top_always_admits(present, wanted):
    assert hba.admit([wanted, *present], wanted)


@given(some.lists(ANY), some.sampled_from([LOCAL, MAPPED, REMOTE]))
def test_what_admits_goes_on_admitting_whatever_follows(present, wanted):
    if hba.admit(present, wanted):
        assert hba.admit([*present, changed(wanted, users=("all",), method="reject")], wanted)


@pytest.mark.parametrize(
    ("address", "netmask", "network"),
    [
        (None, None, ""),
        ("all", None, "all"),
        ("samenet", None, "samenet"),
        (".example.org", None, ".example.org"),
        ("10.0.0.7", "255.255.255.255", "10.0.0.7/32"),
        ("10.0.0.7", "255.255.255.0", "10.0.0.0/24"),
        ("10.0.0.7", "0.0.0.0", "0.0.0.0/0"),  # noqa: S104 - everybody
        ("fe80::7%eth0", "ffff:ffff:ffff:ffff::", "fe80::/64"),
        ("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1/128"),
    ],
)
def test_addresses_and_masks_are_networks(address, netmask, network):
    assert hba._network(address, netmask) == network


def test_lines_and_rules_are_the_same():
    wanted = access.wanted(Access("agent", explain=True), "ops", [("node2", "10.0.0.7/32")])
    assert wanted == {
        'local all "pgops" peer map=pgops': MAPPED,
        'local all "pgops_explain" peer map=pgops': changed(MAPPED, users=("pgops_explain",)),
        'hostssl "ops" "pgops" 10.0.0.7/32 scram-sha-256': REMOTE,
    }


def test_replication_is_no_database():
    (wanted,) = [
        rule
        for rule in access.wanted(Access(backup=True, keeper="postgres"), "ops", []).values()
        if rule.users == ("pgops_backup",)
    ]
    assert not hba.admit([changed(wanted, databases=("all",))], wanted)
    assert not hba.admit([changed(wanted, databases=("sameuser",))], wanted)
    assert hba.admit([changed(wanted, databases=("ops", "replication"))], wanted)
    assert hba.admit([changed(wanted, databases=("all",), method="reject"), wanted], wanted)
    assert not hba.admit([changed(wanted, databases=("replication",), method="reject"), wanted], wanted)
