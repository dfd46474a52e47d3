# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a fleet: one file of HTML that has its data, its script and its style in itself, and asks nobody."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import HostFailed
from .packing import packed

ASSETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets")
STYLES = ("uPlot/uPlot.min.css", "page.css")
SCRIPTS = (
    "uPlot/uPlot.iife.min.js",
    *("text.js", "state.js", "tables.js", "charts.js", "fleet.js", "instance.js", "main.js"),
)
POLICY = "default-src 'none'; script-src '{script}'; style-src '{style}'; base-uri 'none'; form-action 'none'"
"""What a browser lets the page do: run this script and no other, and reach nothing."""


def page(document: Mapping[str, Any], folder: str = ASSETS) -> str:
    """The page of a document of fleet.py. It is the same for the same document.

    Raises HostFailed where the page's parts cannot be read.
    """
    script, style = _joined(folder, SCRIPTS), _joined(folder, STYLES)
    parts = {
        "policy": POLICY.format(script=digest(script), style=digest(style)),
        "style": style,
        "script": script,
        "data": packed(document),
    }
    text = _text(folder, "page.html")
    for name, part in parts.items():
        text = text.replace("{{" + name + "}}", part, 1)
    return text


def digest(text: str) -> str:
    """The hash of an inline script or style, as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _joined(folder: str, names: Sequence[str]) -> str:
    return "\n".join(_text(folder, name) for name in names)


def _text(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise HostFailed(f"{path} cannot be read: {error.strerror}.") from error
