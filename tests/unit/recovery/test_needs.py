# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a dump needs of a server, by the texts that PostgreSQL's programs make of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.recovery import needs

LISTING = """;
; Archive created at 2026-11-30 03:20:00 UTC
;     dbname: shop
;
;
; Selected TOC Entries:
;
2; 3079 16390 EXTENSION - hstore\x20
3461; 0 0 COMMENT - EXTENSION hstore\x20
3; 3079 16401 EXTENSION - uuid-ossp\x20
218; 1259 16411 TABLE public item clerk
"""
SCHEMA = """--
-- Name: item; Type: TABLE; Schema: public; Owner: the "clerk"
--

SET default_tablespace = '';

SET default_table_access_method = heap;

SET default_tablespace = fast;

ALTER TABLE public.item OWNER TO "the ""clerk"" here";
CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$
    GRANT SELECT ON TABLE public.item TO indented;
GRANT SELECT ON TABLE public.item TO stranger;
$$;
CREATE POLICY "one TO all" ON public.item FOR SELECT TO teller, "a b" USING (true);
CREATE POLICY two ON public.item TO auditor;
CREATE USER MAPPING FOR mapped SERVER remote OPTIONS (password 'x');
GRANT SELECT ON TABLE public.item TO PUBLIC;
GRANT SELECT(n),UPDATE(n) ON TABLE public.item TO reader WITH GRANT OPTION;
SET SESSION AUTHORIZATION granter;
GRANT SELECT ON TABLE public.item TO reader;
RESET SESSION AUTHORIZATION;
REVOKE USAGE ON SCHEMA public FROM revoked;
ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA public GRANT SELECT ON TABLES TO taker;
COMMENT ON TABLE public.item IS 'GRANT x TO commented;';
"""
NAMES = (
    *('the "clerk" here', "teller", "a b", "auditor", "mapped", "reader", "granter", "revoked", "maker", "taker"),
    *("indented", "commented", "unneeded"),
)


def quoted(name: str) -> str:
    return name if name.isidentifier() and name.islower() else '"{}"'.format(name.replace('"', '""'))


GLOBALS = "".join(
    f"CREATE ROLE {quoted(name)};\nALTER ROLE {quoted(name)} WITH NOSUPERUSER LOGIN;\n" for name in NAMES
)


def test_what_a_dump_needs() -> None:
    found = needs.needs(LISTING, SCHEMA, GLOBALS, "indented")
    assert list(found.roles) == [*NAMES[:10], "indented"]
    assert found.roles['the "clerk" here'] == 'CREATE ROLE "the ""clerk"" here";'
    assert found.tablespaces == ("fast",)
    assert found.extensions == ("hstore", "uuid-ossp")


def test_only_roles_of_its_server_count() -> None:
    """The body of a function may look like a statement."""
    assert needs.needs(LISTING, SCHEMA, "", "owner").roles == {}
    assert "stranger" not in needs.needs(LISTING, SCHEMA, GLOBALS, "owner").roles


def test_what_is_lacking_is_told_in_order() -> None:
    assert needs.lacking(["c", "a", "b"], {"a"}) == ["c", "b"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\x85"), min_size=1))
def test_a_role_of_any_name_is_found(name: str) -> None:
    written = '"{}"'.format(name.replace('"', '""'))
    found = needs.needs("", f"ALTER TABLE a OWNER TO {written};\n", f"CREATE ROLE {written};\n", "")
    assert list(found.roles) == [name]


@pytest.mark.parametrize(("written", "name"), [("a", "a"), ('"A"', "A"), ('"a""b"', 'a"b')])
def test_identifiers_are_read(written: str, name: str) -> None:
    assert needs.plain(written) == name
