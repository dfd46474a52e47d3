# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The marked blocks in pg_hba.conf and pg_ident.conf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import Conflict, InvalidInput
from pgops.opsdb import access
from pgops.opsdb.access import Access

files = st.text().filter(lambda text: access.BEGIN not in text)
HBA, _IDENT = access.lines(Access(), "pgops", [("db2", "10.0.0.2/32")])
OTHER, _IDENT = access.lines(Access(), "pgops", [("db3", "10.0.0.3/32")])


@given(files)
def test_a_block_goes_in_and_out_again_without_a_trace(text: str) -> None:
    filled = access.replaced(text, HBA)
    assert filled == HBA + text
    assert access.replaced(filled, HBA) == filled
    assert access.replaced(filled, "") == text


@given(files, files)
def test_a_block_stays_where_somebody_moved_it(above: str, below: str) -> None:
    assert access.replaced(above + HBA + below, OTHER) == above + OTHER + below
    assert access.replaced(above + HBA + below, "") == above + below


def test_the_agent_is_let_in_by_peer_and_the_others_by_tls_and_password() -> None:
    hba, ident = access.lines(Access(), "ops", [("db2", "10.0.0.2/32"), ("db3", "10.0.0.3/32")])
    assert hba.splitlines() == [
        "# BEGIN pgops.fleet",
        'local all "pgops" peer',
        'hostssl "ops" "pgops" 10.0.0.2/32 scram-sha-256',
        'hostssl "ops" "pgops" 10.0.0.3/32 scram-sha-256',
        "# END pgops.fleet",
    ]
    assert hba.endswith("\n")
    assert ident == ""


def test_another_user_of_the_system_is_mapped() -> None:
    hba, ident = access.lines(Access(os_user='we"ird one'), "pgops", [])
    assert "peer map=pgops" in hba
    assert 'pgops "we""ird one" "pgops"' in ident


def test_the_role_that_plans_is_always_mapped() -> None:
    hba, ident = access.lines(Access(explain=True), "pgops", [])
    assert hba.splitlines()[1:-1] == ['local all "pgops" peer', 'local all "pgops_explain" peer map=pgops']
    assert ident.splitlines()[1:-1] == ['pgops "pgops" "pgops_explain"']
    _hba, ident = access.lines(Access("agent", explain=True), "pgops", [])
    assert ident.splitlines()[1:-1] == ['pgops "agent" "pgops"', 'pgops "agent" "pgops_explain"']


def test_the_servers_user_writes_as_the_agent_does() -> None:
    hba, ident = access.lines(Access(keeper="postgres"), "pgops", [])
    assert hba.splitlines()[1:-1] == ['local all "pgops" peer map=pgops']
    assert ident.splitlines()[1:-1] == ['pgops "pgops" "pgops"', 'pgops "postgres" "pgops"']
    _hba, ident = access.lines(Access("agent", keeper="agent"), "pgops", [])
    assert ident.splitlines()[1:-1] == ['pgops "agent" "pgops"']
    assert access.lines(Access(keeper="pgops"), "pgops", []) == access.lines(Access(), "pgops", [])


def test_the_servers_user_is_let_in_for_replication_alone() -> None:
    hba, ident = access.lines(Access("agent", explain=True, backup=True, keeper="postgres"), "pgops", [])
    assert hba.splitlines()[3:-1] == ['local replication "pgops_backup" peer map=pgops']
    assert ident.splitlines()[3:-1] == ['pgops "agent" "pgops_explain"', 'pgops "postgres" "pgops_backup"']


def test_patroni_is_told_to_leave_out_the_lines_of_a_role() -> None:
    hba, ident = access.lines(Access("agent", explain=True), "pgops", [])
    head = f"# written\n{access.PATRONI_HEADER}\n"
    found = access.AccessFiles("/hba", head + hba, "/ident", head + ident)
    asked = " ".join(access.left_to_patroni(found, ["pgops_explain"]))
    assert 'local all "pgops_explain" peer map=pgops' in asked
    assert 'pgops "agent" "pgops_explain"' in asked
    assert '"pgops" peer' not in asked
    assert 'local all "pgops" peer map=pgops' in " ".join(access.left_to_patroni(found))


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(Conflict):
        access.split(f"{access.BEGIN}\nlocal all all trust\n")
    with pytest.raises(Conflict):
        access.split(f"{access.END}\n{access.BEGIN}\nlocal all all trust\n")


@pytest.mark.parametrize("name", ["", "a\nb", "a\tb", "\x1f", "a\0"])
def test_a_name_that_the_file_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        access.quoted(name)
    with pytest.raises(InvalidInput):
        access.lines(Access(), name, [("db2", "10.0.0.2/32")])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("all", '"all"'),  # not everybody, but somebody of that name
        ("+staff", '"+staff"'),
        ("/^p", '"/^p"'),
        ("a b", '"a b"'),
        (" ", '" "'),
        ('"', '""""'),
        ("größe", '"größe"'),
    ],
)
def test_a_name_means_itself_whatever_it_is(name: str, written: str) -> None:
    assert access.quoted(name) == written


def present(hba: str = "", ident: str = "", outdated: bool = False) -> access.AccessFiles:
    return access.AccessFiles("/hba", hba, "/ident", ident, outdated=outdated)


def test_maps_are_written_before_the_rules_that_name_them() -> None:
    hba, ident = access.lines(Access("agent"), "pgops", [])
    made = access.plan(present("local all all peer\n", "# maps\n"), hba, ident)
    assert [(one.line, one.before, one.after) for one in made] == [
        ("create block in /ident", None, ident),
        ("create block in /hba", None, hba),
    ]
    assert [one.file for one in made] == [
        access.Rewritten("/ident", "# maps\n", ident + "# maps\n"),
        access.Rewritten("/hba", "local all all peer\n", hba + "local all all peer\n"),
    ]
    assert access.plan(present(hba, ident), hba, ident) == ()


def test_a_block_is_replaced_or_taken_out_and_the_rest_stays() -> None:
    old, _ident = access.lines(Access(), "pgops", [("db2", "10.0.0.9/32")])
    (changed,) = access.plan(present(f"# top\n{old}local all all peer\n"), HBA, "")
    assert (changed.line, changed.before, changed.after) == ("update block in /hba", old, HBA)
    assert changed.file.new == f"# top\n{HBA}local all all peer\n"  # type: ignore[union-attr]
    (gone,) = access.plan(present(f"{old}local all all peer\n"), "", "")
    assert (gone.line, gone.before, gone.after) == ("remove block in /hba", old, None)


def test_the_block_ends_at_the_first_line_that_says_so() -> None:
    twice = f"# top\n{HBA}local all all peer\n{HBA}# bottom\n"
    assert access.split(twice) == ("# top\n", HBA, f"local all all peer\n{HBA}# bottom\n")
    assert access.split(f"{access.BEGIN}\n{access.END}") == ("", f"{access.BEGIN}\n{access.END}", "")


def test_files_that_the_server_has_not_loaded_are_loaded() -> None:
    (reload,) = access.plan(present(HBA, outdated=True), HBA, "")
    assert reload.file is None
    assert reload.line == "update access rules of the server"
    assert (reload.before, reload.after) == ("not reloaded since the files changed", "loaded")
    # One that is written is loaded anyway.
    (written,) = access.plan(present(outdated=True), HBA, "")
    assert written.subject == "block in /hba"


HEAD = f"# written\n{access.PATRONI_HEADER}\n"
"""What Patroni puts at the top."""


def test_a_file_that_patroni_writes_is_left_alone() -> None:
    hba, ident = access.lines(Access("agent"), "pgops", [])
    assert access.plan(present(HEAD, HEAD), hba, ident, patroni=True) == ()
    (one,) = access.plan(present(HEAD, "# by hand\n"), hba, ident, patroni=True)
    assert one.subject == "block in /ident"
    (one,) = access.plan(present("# by hand\n", HEAD), hba, ident, patroni=True)
    assert one.subject == "block in /hba"
    # Left from a time with Patroni.
    assert len(access.plan(present(HEAD, HEAD), hba, ident)) == 2


def test_patroni_is_asked_for_what_is_missing_and_nothing_else() -> None:
    who = Access("agent", explain=True)
    rules, maps = access.wanted(who, "ops", [("db2", "10.0.0.2/32")]), access.mappings(who)
    hba, ident = access.asked_of_patroni(present(HEAD, HEAD), [], rules, maps)
    # The first rule that fits decides; maps may stand in any order.
    assert hba.startswith("Patroni writes pg_hba.conf. Add at the top of the list postgresql.pg_hba ")
    assert hba.endswith(": " + "; ".join(rules))
    assert ident.startswith("Patroni writes pg_ident.conf. Add to the list postgresql.pg_ident ")
    assert ident.endswith(": " + "; ".join(maps))
    # One that is there already, in other words.
    admitted = list(rules.values())[:2]
    (hba,) = access.asked_of_patroni(
        present(HEAD, f"{HEAD}pgops  agent pgops\npgops agent  pgops_explain\n"), admitted, rules, maps
    )
    assert hba.endswith(f": {list(rules)[2]}")
    (ident,) = access.asked_of_patroni(present(HEAD, f"{HEAD}{maps[0]}\n"), list(rules.values()), rules, maps)
    assert ident.endswith(f": {maps[1]}")
    assert access.asked_of_patroni(present(HEAD, HEAD + "\n".join(maps)), list(rules.values()), rules, maps) == ()
    assert access.asked_of_patroni(present(), [], rules, maps) == ()


def test_only_lines_of_the_role_are_to_be_taken_from_patroni() -> None:
    others = "host all postgres 10.0.0.0/8 md5\nlocal pgops other peer\n# local all pgops peer\n\n"
    assert access.left_to_patroni(present(HEAD + others, HEAD)) == ()
    assert access.left_to_patroni(present("local all pgops peer\n")) == ()
    (asked,) = access.left_to_patroni(present(f"{HEAD}{others}local all pgops peer\n"))
    assert "Remove from the list postgresql.pg_hba " in asked
    assert asked.endswith(": local all pgops peer")
    (asked,) = access.left_to_patroni(present(HEAD, f"{HEAD}pgops agent pgops\nadmins agent postgres\n"))
    assert "Remove from the list postgresql.pg_ident " in asked
    assert asked.endswith(": pgops agent pgops")


def test_peers_are_addresses_networks_or_names() -> None:
    assert access.resolve(["10.0.0.7/24", "::1", "localhost"])[:2] == [
        ("10.0.0.7/24", "10.0.0.0/24"),
        ("::1", "::1/128"),
    ]
    assert {peer for peer, _network in access.resolve(["localhost"])} == {"localhost"}
    with pytest.raises(InvalidInput, match="no-such-host"):
        access.resolve(["no-such-host.invalid"])
