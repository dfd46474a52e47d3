# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings that are not what they should be: declared by this collection, written in the files, in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import secrecy
from ..errors import InvalidInput
from ..instance.layout import Layout
from ..server.session import READS_FILES, Session
from ..settings import originals, present
from ..settings.parameters import Parameter
from ..settings.present import Current

FILED = ("configuration file", "default")
"""Sources of a value that a reload replaces by what is written."""
OF_SESSIONS = ("client", "database", "database user", "interactive", "session", "user")
"""Sources of values of this session: with what the server runs is not known."""
NAMES = "SELECT DISTINCT lower(f.name) AS name FROM pg_file_settings AS f WHERE f.name IS NOT NULL"


def declared(layout: Layout) -> dict[str, str | None]:
    """What this collection last set on the host, by name; None for a setting that it removed.

    Raises HostFailed.
    """
    return originals.ours(layout.before)


def read(session: Session, wanted: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """The settings that differ, as rows of differing(), by a superuser's session.

    Raises QueryFailed.
    """
    with session.answering(READS_FILES):
        written = [row["name"] for row in session.rows(NAMES)]
    return list(differing(present.read(session, [*wanted, *written], {}), wanted))


def differing(current: Current, wanted: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """Each setting whose declared, written and running values do not mean the same: ``setting``, ``declared`` (None:
    not by this collection), ``file`` (None: in none), its ``place``, ``running``, its ``source``, ``why``. Pure."""
    written = {entry.name.lower() for entry in current.entries if entry.name}
    for name in sorted({*map(str.lower, wanted), *written}):
        why = _why(current, name, {key.lower(): value for key, value in wanted.items()})
        found = current.running.get(name)
        if why and found:
            entry, parameter = current.entry(name), found.parameter
            asked = next((value for key, value in wanted.items() if key.lower() == name), None)
            yield {
                "setting": parameter.name,
                "declared": secrecy.setting(name, asked, parameter.vartype),
                "file": secrecy.setting(name, entry.value, parameter.vartype) if entry else None,
                "place": f"{entry.file}:{entry.line}" if entry else None,
                "running": secrecy.setting(name, parameter.human(found.value), parameter.vartype),
                "source": found.source,
                "why": why,
            }


def _why(current: Current, name: str, wanted: Mapping[str, str | None]) -> str:
    """What is wrong with a setting, in words; '' for nothing."""
    found = current.running.get(name)
    if found is None:
        return ""
    entry = current.entry(name)
    # The server says so of lines that are not valid, and of those that it can obey after a restart only.
    if entry and entry.error and not found.pending and not _after_restart(found.parameter, entry.value):
        return f"its line is not valid: {entry.error}"
    asked = wanted.get(name)
    if asked is not None and not current.same(name, asked, current.configured(name)):
        return "another value is written than was declared"
    if found.pending or (entry and entry.error):
        return "it waits for a restart"
    value = current.configured(name)
    if found.source in OF_SESSIONS or current.same(name, value, found.value) or current.chosen(name, value):
        return ""
    return "it waits for a reload" if found.source in FILED else f"overridden: {found.source}"


def _after_restart(parameter: Parameter, value: str | None) -> bool:
    """Whether a parameter takes a value at the start of the server, as far as that shows without asking it."""
    try:
        parameter.meaning(value or "")
    except InvalidInput:
        return False
    return parameter.restarts
