# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server's configured and running settings, and where each value comes from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidInput, QueryFailed
from ..server import managers
from ..server.pins import ENDING, EVENT_TRIGGERS
from ..server.session import READS_FILES, Session
from .autoconf import NAME
from .parameters import Meaning, Parameter

# The last entry of a parameter is the one that counts: pg_file_settings shows `applied` as false also for what waits
# for a restart.
PARAMETERS = """
SELECT s.name, s.setting, s.unit, s.vartype, s.context, s.min_val, s.max_val, s.enumvals, s.source, s.boot_val,
       s.pending_restart, s.sourcefile, s.sourceline
FROM pg_settings AS s
WHERE lower(s.name) = ANY (%s) OR s.pending_restart OR lower(s.name) = ANY (
    ARRAY['allow_alter_system', 'config_file', 'data_directory', 'dynamic_library_path', 'listen_addresses', 'port',
          'ssl'])
"""
ENTRIES = """
SELECT f.seqno, f.name, f.setting, f.sourcefile, f.sourceline, f.error
FROM pg_file_settings AS f
ORDER BY f.seqno
"""
LIBRARY = """
SELECT EXISTS (
    SELECT FROM unnest(%(places)s::text[]) AS p (place), unnest(ARRAY['', '.so', '.dylib', '.dll']) AS e (ending)
    CROSS JOIN LATERAL (
        SELECT replace(p.place, '$libdir', (SELECT c.setting FROM pg_config() AS c WHERE c.name = 'PKGLIBDIR'))
    ) AS at (directory)
    WHERE NOT (pg_stat_file(at.directory || %(name)s || e.ending, true)).isdir
)
"""


CHOSEN = ("override", "dynamic default")
"""Sources of values that the server has computed."""
LIKE = {"log_timezone": "timezone"}
"""Parameters that a session cannot set, and others with values of the same kind."""
NOT_TRIED = ("client_encoding", "role", "session_authorization")
SPELLED = "SELECT set_config(%s, %s, true)"


@dataclass(frozen=True)
class Entry:
    """A line of a configuration file. ``name`` is None if the line could not be parsed."""

    name: str | None
    value: str | None
    file: str | None = None
    line: int | None = None
    error: str | None = None

    @property
    def automatic(self) -> bool:
        """Whether ALTER SYSTEM wrote it."""
        return os.path.basename(self.file or "") == NAME


@dataclass(frozen=True)
class Running:
    """A parameter as the server runs with it. ``source`` is the column of pg_settings; ``file`` and ``line``
    are where it comes from."""

    parameter: Parameter
    value: str
    source: str = "default"
    default: str | None = None
    pending: bool = False
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Current:
    """All that a plan needs. ``running`` is by lower-case name; ``missing`` are libraries without a file; ``primary``
    are the primary's values of settings that a standby must not have lower; ``spelled`` is how the server itself
    writes values, by the parameter's lower-case name and the text."""

    running: Mapping[str, Running] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    version_num: int = 0
    in_recovery: bool = False
    manager: str = ""
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    primary: Mapping[str, int] = field(default_factory=dict)
    spelled: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def parameter(self, name: str) -> Parameter:
        """The parameter of a name; one of a library that is not loaded yet accepts any text."""
        found = self.running.get(name.lower())
        return found.parameter if found else Parameter(name, "string")

    def entry(self, name: str, automatic: bool | None = None) -> Entry | None:
        """The entry that counts for a parameter, or None: of all files, of ALTER SYSTEM's, or of the others."""
        found = [
            entry
            for entry in self.entries
            if entry.name and entry.name.lower() == name.lower() and automatic in (None, entry.automatic)
        ]
        return found[-1] if found else None

    def automatic(self, name: str) -> str | None:
        """The value that ALTER SYSTEM has set, or None."""
        entry = self.entry(name, automatic=True)
        return entry.value if entry else None

    def configured(self, name: str) -> str | None:
        """The value after a restart; None for an unknown parameter."""
        entry = self.entry(name)
        if entry is not None:
            return entry.value
        found = self.running.get(name.lower())
        return found.default if found else None

    def setting(self, name: str) -> str:
        """The value that the server runs with; '' for a parameter it does not know."""
        found = self.running.get(name.lower())
        return found.value if found else ""

    def same(self, name: str, one: str | None, other: str | None) -> bool:
        """Whether two values of a parameter mean the same, also by what the server makes of them."""
        if same(self.parameter(name), one, other):
            return True
        made = [self.spelled.get((name.lower(), text)) if text is not None else None for text in (one, other)]
        return made[0] is not None and made[0] == made[1]

    def chosen(self, name: str, value: str | None) -> bool:
        """Whether a value leaves the choice to the server (wal_buffers = -1), which has chosen another one: then the
        two differ as long as it runs, and nothing waits for a restart."""
        found = self.running.get(name.lower())
        return found is not None and found.source in CHOSEN and same(found.parameter, value, found.default)

    @property
    def data_directory(self) -> str:
        """The server's own name for it; '' if the role may not see it."""
        return self.setting("data_directory")


def same(parameter: Parameter, one: str | None, other: str | None) -> bool:
    """Whether two values mean the same; an invalid one only equals the same text."""
    if one is None or other is None:
        return one is other
    meant = _meaning(parameter, one)
    return one == other or (meant is not None and meant == _meaning(parameter, other))


def _meaning(parameter: Parameter, text: str) -> Meaning | None:
    try:
        return parameter.meaning(text)
    except InvalidInput:
        return None


def spelled(session: Session, current: Current, values: Mapping[str, Collection[str]]) -> dict[tuple[str, str], str]:
    """How the server writes values of the parameters that a session can set, if they are names of something: the
    texts by parameter. It is asked in transactions that are rolled back; what it refuses is left out."""
    found: dict[tuple[str, str], str] = {}
    for name, texts in values.items():
        parameter, asked = current.parameter(name), LIKE.get(name.lower(), name.lower())
        if parameter.vartype not in ("string", "enum") or asked in NOT_TRIED or parameter.context == "postmaster":
            continue
        for text in texts:
            with contextlib.suppress(QueryFailed), session.transaction(rollback=True):
                found[name.lower(), text] = str(session.value(SPELLED, [asked, text]))
    return found


def read(session: Session, names: Collection[str], libraries: Mapping[str, tuple[str, ...]]) -> Current:
    """The configured and running values of the parameters named; ``libraries``, by the parameter that loads them, are
    looked up on the server's disk."""
    # First: it makes this session compare the files as they are now with the running values, reloaded or not.
    with session.answering(READS_FILES):
        entries = tuple(_entry(row) for row in session.rows(ENTRIES))
    rows = session.rows(PARAMETERS, [[name.lower() for name in names]])
    running = {row["name"].lower(): _running(row) for row in rows}
    path = running["dynamic_library_path"].value
    return Current(
        running=_without_ours(running, entries),
        entries=entries,
        version_num=session.version_num,
        in_recovery=session.in_recovery,
        manager=managers.manager(session),
        missing={
            name: tuple(word for word in words if not _exists(session, name, word, path))
            for name, words in libraries.items()
        },
    )


def _without_ours(running: Mapping[str, Running], entries: tuple[Entry, ...]) -> dict[str, Running]:
    """What this session has set at its login (server/pins.py) hides how the server runs; the files show it."""
    files = Current(running=running, entries=entries)
    ours = [name for name in (EVENT_TRIGGERS, *ENDING) if name in running and running[name].source == "client"]
    shown = {
        name: replace(running[name], value=files.configured(name) or "", source="configuration file") for name in ours
    }
    return {**running, **shown}


def _running(row: Mapping[str, Any]) -> Running:
    parameter = Parameter(
        name=row["name"],
        vartype=row["vartype"],
        unit=row["unit"],
        minimum=row["min_val"],
        maximum=row["max_val"],
        choices=tuple(row["enumvals"] or ()),
        context=row["context"],
    )
    return Running(
        parameter=parameter,
        value=row["setting"],
        source=row["source"],
        default=row["boot_val"],
        pending=row["pending_restart"],
        file=row["sourcefile"],
        line=row["sourceline"],
    )


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(row["name"], row["setting"], row["sourcefile"], row["sourceline"], row["error"])


def _exists(session: Session, parameter: str, library: str, path: str) -> bool:
    """Whether a library's file exists where the server looks for it (load_libraries and dfmgr.c)."""
    if parameter.lower() == "local_preload_libraries" and "/" not in library:
        library = f"$libdir/plugins/{library}"
    directory, slash, name = library.rpartition("/")
    places = [directory + slash] if slash else [f"{place.strip()}/" for place in path.split(":") if place.strip()]
    return bool(session.value(LIBRARY, {"places": places, "name": name}))
