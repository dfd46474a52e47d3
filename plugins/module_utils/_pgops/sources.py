# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection's own files (the library, SQL), and how they get to a host.

Modules run with the agent's program, where it is of the same content, and else with what the action plugin has packed
(``library.py``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Mapping

from .errors import HostFailed, InvalidInput

LIBRARY = os.path.dirname(os.path.abspath(__file__))
"""The directory of the library's own files."""

Sources = Mapping[str, str]
"""Text by path relative to the library's folder, such as ``sql/migrations/0001_store.sql``."""

LACKING = "library_lacking"
"""The key of a module's result that asks the action plugin for the whole library."""


def shipped(root: str = LIBRARY) -> dict[str, str]:
    """All that the library in ``root`` brings to a host.

    Raises HostFailed, and InvalidInput for a file that is not UTF-8.
    """
    return gather(root, (".py", ".sql"))


def digest(sources: Sources) -> str:
    """SHA-256 over paths and contents, in hexadecimal."""
    whole = hashlib.sha256()
    for path, text in sorted(sources.items()):
        content = text.encode()
        whole.update(f"{path}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


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
    return base64.b64encode(zlib.compress(json.dumps(dict(sources)).encode())).decode()


def below(sources: Sources, folder: str) -> dict[str, str]:
    """The sources of one folder, by file name, in the order of the names."""
    prefix = folder.rstrip("/") + "/"
    return {path[len(prefix) :]: sources[path] for path in sorted(sources) if path.startswith(prefix)}
