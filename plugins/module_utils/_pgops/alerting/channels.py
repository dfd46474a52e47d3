# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The addresses of the channels that this host sends to. They are secrets: the file is the agent's alone, and what
others see of them are their names."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ..errors import HostFailed, InvalidInput
from ..secrecy import SHORT

FORMAT = 1
KINDS = ("apprise", "alertmanager", "heartbeat")
LARGEST = 1024 * 1024
"""Bytes of the file that are read."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
"""Of channels and targets."""


@dataclass(frozen=True)
class Channel:
    """A channel as its sender knows it: ``targets`` are addresses by their names. Of the kind apprise they are URLs
    of Apprise, of the kind alertmanager those of Alertmanagers, of the kind heartbeat those that the watch calls."""

    name: str
    kind: str
    targets: Mapping[str, str] = field(repr=False)


def load(path: str) -> tuple[dict[str, Channel], list[str]]:
    """The channels by their names, none where there is no file; and what is wrong with others, which must not keep
    those from being told anything.

    Raises HostFailed, and InvalidInput where the file is wrong, or others could read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        hint = "It has to belong to the agent's user."
        raise HostFailed(f"{path} cannot be read: {error.strerror}.", hint) from error
    with open(descriptor, encoding="utf-8") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise InvalidInput(f"{path} is not a file.")
        if mode & 0o077:
            raise InvalidInput(f"Others may read {path}, which holds secrets.", f"Run: chmod 600 {path}")
        try:
            return parse(file.read(LARGEST), path)
        except UnicodeDecodeError:
            raise InvalidInput(f"{path} is not UTF-8.") from None


def parse(text: str, path: str) -> tuple[dict[str, Channel], list[str]]:
    """The channels of a file's text, ``{"format": 1, "channels": {NAME: {"kind": ..., "targets": {NAME: URL}}}}``.
    Pure. Nothing that is said of what is wrong quotes an address.

    Raises InvalidInput if nothing of it can be read.
    """
    try:
        data = json.loads(text)
    except ValueError:
        data = None  # the error's own text would show a part of the file
    if not isinstance(data, dict) or not isinstance(data.get("channels"), dict):
        raise InvalidInput(f"{path} is not JSON with an object named channels.")
    if data.get("format") != FORMAT:
        raise InvalidInput(f"{path} has a format that this version cannot read.", "Run site.yml on this host.")
    found: dict[str, Channel] = {}
    errors = []
    for name, given in data["channels"].items():
        try:
            found[name] = _channel(name, given, path)
        except InvalidInput as error:
            errors.append(str(error))
    return found, errors


def _channel(name: str, given: Any, path: str) -> Channel:
    if not NAME.match(name):
        raise InvalidInput(f"{path}: a channel has a name that cannot be used.")
    kind, targets = (given.get("kind"), given.get("targets")) if isinstance(given, dict) else (None, None)
    if kind not in KINDS:
        raise InvalidInput(f"{path}: channel {name} has none of the kinds {', '.join(KINDS)}.")
    if not isinstance(targets, dict) or not targets:
        raise InvalidInput(f"{path}: channel {name} has no targets.")
    for target, url in targets.items():
        if not NAME.match(target) or not isinstance(url, str) or "://" not in url:
            raise InvalidInput(f"{path}: a target of channel {name} is not a name with a URL.")
    return Channel(name, kind, targets)


def secrets(url: str) -> set[str]:
    """All parts of an address that an error could quote, as they are written and decoded. Which of them are secret is
    the service's matter: in slack://A/B/C even what looks like the host is a token. Pure."""
    rest = url.partition("://")[2]
    parts = {part.rpartition("=")[2] for part in re.split(r"[/:@?&#,;]+", rest)}
    found = {url, rest, *parts, *(unquote(part) for part in parts)}
    return {part for part in found if len(part) >= SHORT}
