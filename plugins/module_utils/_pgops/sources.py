# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection's own files (SQL, the library), as one argument of a module.

Ansible sends Python imports to a host, but no other files; an action plugin packs what a module needs.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping

from .errors import HostFailed, InvalidInput

LIBRARY = os.path.dirname(os.path.abspath(__file__))
"""The directory of the library's own files."""

Sources = Mapping[str, str]
"""Text by path relative to the library's folder, such as ``sql/migrations/0001_store.sql``."""


def gather(root: str, suffixes: tuple[str, ...], under: str = "") -> dict[str, str]:
    """All files below ``root``/``under`` whose names end with one of the suffixes; those of editors, which start
    with a dot, are left out.

    Raises HostFailed, and InvalidInput for a file that is not UTF-8.
    """
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(os.path.join(root, under)):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(suffixes) and not name.startswith("."):
                found[os.path.relpath(path, root)] = _text(path)
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise HostFailed(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not valid UTF-8: {error}.") from error


def pack(sources: Sources) -> str:
    """Sources as one ASCII word."""
    return base64.b64encode(zlib.compress(json.dumps(dict(sources)).encode(), 9)).decode()


def unpack(packed: str) -> dict[str, str]:
    """The sources of a packed word.

    Raises InvalidInput if the module was called without its action plugin.
    """
    try:
        unpacked = json.loads(zlib.decompress(base64.b64decode(packed)))
    except (ValueError, zlib.error):
        hint = "Do not set the argument 'sources'."
        raise InvalidInput("The module did not receive the collection's files.", hint) from None
    return {str(path): str(text) for path, text in unpacked.items()}


def below(sources: Sources, folder: str) -> dict[str, str]:
    """The sources of one folder, by file name, in the order of the names."""
    prefix = folder.rstrip("/") + "/"
    return {path[len(prefix) :]: sources[path] for path in sorted(sources) if path.startswith(prefix)}
