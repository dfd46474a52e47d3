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
HBA, IDENT = access.lines(Access(), "pgops", [("db2", "10.0.0.2/32")])
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
    assert HBA.splitlines()[1:-1] == [
        'local all "pgops" peer',
        'hostssl "pgops" "pgops" 10.0.0.2/32 scram-sha-256',
    ]
    assert IDENT == ""


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


def test_a_name_with_a_line_break_is_refused() -> None:
    with pytest.raises(InvalidInput):
        access.quoted("a\nb")


def test_peers_are_addresses_networks_or_names() -> None:
    assert access.resolve(["10.0.0.0/24", "::1", "localhost"])[:2] == [
        ("10.0.0.0/24", "10.0.0.0/24"),
        ("::1", "::1/128"),
    ]
    with pytest.raises(InvalidInput, match="no-such-host"):
        access.resolve(["no-such-host.invalid"])
