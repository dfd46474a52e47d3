# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What PostgreSQL's backup_manifest lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgops.backup import contents
from pgops.backup.contents import Listed, Span
from pgops.errors import InvalidInput

TEXT = """{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 225, "Last-Modified": "2026-11-29 15:44:08 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "e0" },
{ "Encoded-Path": "62ff", "Size": 3, "Last-Modified": "2026-11-29 15:44:08 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "e1" },
{ "Path": "b\\u00e4\\"se", "Size": 0, "Last-Modified": "2026-11-29 15:44:08 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "e2" }
],
"WAL-Ranges": [
{ "Timeline": 3, "Start-LSN": "1/2000028", "End-LSN": "1/2000120" }
],
"Manifest-Checksum": "31"}
"""  # noqa: E501 - as PostgreSQL writes it


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "backup_manifest"
    path.write_text(text)
    return str(path)


def test_files_are_listed_whatever_their_names(tmp_path: Path) -> None:
    found = list(contents.listed(written(tmp_path, TEXT)))
    assert found == [Listed(b"backup_label", 225, "e0"), Listed(b"b\xff", 3, "e1"), Listed('bä"se'.encode(), 0, "e2")]


def test_the_wal_that_it_needs(tmp_path: Path) -> None:
    assert contents.span(written(tmp_path, TEXT)) == Span(3, 0x102000028, 0x102000120)


def test_wal_of_two_timelines_is_none_that_a_backup_can_need(tmp_path: Path) -> None:
    two = TEXT.replace('"1/2000120" }', '"1/2000120" },\n{ "Timeline": 4, "Start-LSN": "1/2", "End-LSN": "1/3" }')
    with pytest.raises(InvalidInput, match="changed its timeline") as caught:
        contents.span(written(tmp_path, two))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("old", "new"),
    [("WAL-Ranges", "WAL-Rages"), ('"Timeline": 3', '"Timeline": "x"'), ("1/2000028", "2000028")],
)
def test_what_is_damaged_is_said_to_be(tmp_path: Path, old: str, new: str) -> None:
    path = written(tmp_path, TEXT.replace(old, new))
    with pytest.raises(InvalidInput, match="is damaged"):
        contents.span(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("SHA256", "CRC32C"), ('"Size": 225', '"Size": '), ('"Size": 225', '"Seize": 225'), ("62ff", "6")],
)
def test_files_that_cannot_be_read_are_said_to_be_damaged(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(InvalidInput, match="is damaged"):
        list(contents.listed(written(tmp_path, TEXT.replace(old, new))))
