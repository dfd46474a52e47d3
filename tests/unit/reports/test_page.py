# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page as a file: it holds all that it needs, and no text of others in it is markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import HostFailed
from pgops.reports import packing, page

DOCUMENT: dict[str, Any] = {
    "name": "</script><script>alert(1)</script>",
    "odd": "\ud800\u202e\x00",
    "list": [1, None],
}


def part(html: str, pattern: str) -> str:
    (found,) = re.findall(pattern, html, re.DOTALL)
    return str(found)


def test_its_data_comes_back() -> None:
    html = page.page(DOCUMENT)
    data = packing.unpacked(part(html, r'<script type="application/octet-stream" id="data">(.*?)</script>'))
    assert data == DOCUMENT
    assert "alert(1)" not in html
    assert page.page(DOCUMENT) == html


def test_its_policy_lets_its_own_script_and_style_work_and_nothing_else() -> None:
    html = page.page(DOCUMENT)
    policy = part(html, r'http-equiv="Content-Security-Policy" content="(.*?)"')
    assert f"script-src '{page.digest(part(html, r'<script>(.*?)</script>'))}'" in policy
    assert f"style-src '{page.digest(part(html, r'<style>(.*?)</style>'))}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert re.findall(r'(?:src|href|action)="', html) == []


def test_what_would_end_the_script_is_not_in_it() -> None:
    assert page.page(DOCUMENT).count("</script>") == 2


def test_a_page_whose_parts_are_gone_is_an_error() -> None:
    with pytest.raises(HostFailed, match="uPlot"):
        page.page(DOCUMENT, "/nowhere")


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.floats(allow_nan=False), st.booleans())))
def test_documents_come_back(document: dict[str, Any]) -> None:
    assert packing.unpacked(packing.packed(document)) == document


@pytest.mark.parametrize("word", ["", "no base64!", "aGVsbG8=", packing.packed({})[:-8]])
def test_what_is_no_document_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        packing.unpacked(word)
