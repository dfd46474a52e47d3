# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documents as one ASCII word: a tenth as large, and no text in them can be taken for markup. Pure."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any


def packed(document: Mapping[str, Any]) -> str:
    """Base64 of gzip of JSON, the same for the same document."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), mtime=0)).decode()


def unpacked(word: str) -> dict[str, Any]:
    """The document. Raises ValueError for what is none."""
    try:
        return dict(json.loads(gzip.decompress(base64.b64decode(word, validate=True))))
    except (EOFError, OSError, TypeError) as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
