# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A change of settings is a promise about the next start: everything that can refuse is asked before anything is
written, in check mode too."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from ..errors import Conflict, InvalidInput, PgOpsError, QueryFailed, SettingsRefused
from ..server.service import Service
from ..server.session import Session, connect, statement
from . import places, trial
from .parameters import elements
from .places import Places
from .planning import SettingsPlan, future
from .present import Current

RULES = """
SELECT {file} AS file, r.line_number AS line, r.error FROM pg_hba_file_rules AS r
WHERE r.error IS NOT NULL AND r.error NOT LIKE '% cannot match because %'
ORDER BY r.line_number
"""
"""The server goes on with rules that cannot match, such as hostssl without TLS, though it says so here."""
FILE = "pg_stat_file(%s, false)"
FILES = (
    "hba_file",
    "ident_file",
    "log_directory",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
)
"""Settings that name a file or directory of the server's host."""
PRELOADED = ("local_preload_libraries", "session_preload_libraries")
"""Lists of libraries that every new session loads: with one that cannot be loaded, nobody logs in."""
BLOCK = 8
"""kB of a block, in which shared_buffers counts."""
UNTOUCHED = "Nothing was changed."


def kept(session: Session, current: Current, planned: SettingsPlan, found: Service | None) -> SettingsPlan:
    """The plan, once it is certain that the server can start with it; ``found`` is where programs of the server can
    be run and its files be written, on its host and with its user's rights.

    What was wrong before is a warning, unless the server is to be restarted. Raises SettingsRefused, Conflict,
    HostFailed.
    """
    if not planned.plan:
        return planned
    _by_file(planned, found)
    _libraries(session, current, planned)
    names = {one.parameter.name.lower() for one in planned.settings}
    rules = _rules(session) if planned.restarts and "hba_file" not in names else ""
    if rules:
        raise _refused(planned, rules, ours=False)
    if found is None:
        _files(session, planned)
        return planned
    values = {one.parameter.name: one.text for one in planned.settings}
    now = replace(planned, written=())
    where = [_places(current, one) for one in (planned, now)]
    new, old = trial.complaints(found, [values, {}], where)
    if not new:
        return planned
    ours = not old or new != old
    if planned.restarts or ours:
        raise _refused(planned, new, ours)
    warning = f"The server could not start again, whatever is changed now: {new}"
    return replace(planned, warnings=(*planned.warnings, warning))


def _refused(planned: SettingsPlan, said: str, ours: bool) -> SettingsRefused:
    changed = {change.setting.parameter.name: change.after for change in planned.written}
    hidden = [one.setting.parameter.name for one in planned.written if one.after != one.setting.text]
    if any(name in said for name in hidden):
        said = "its own message would show a secret."
    if not ours:
        return SettingsRefused(
            f"The server could not start again, so it is not stopped: {said} {UNTOUCHED}",
            "Correct that first, or declare it together with the rest.",
        )
    named = ", ".join(f"{name} = {value}" for name, value in changed.items()) or "what waits for its restart"
    words = f"The server would not start with {named}: {said} {UNTOUCHED}"
    return SettingsRefused(words, "Correct the value, then retry.")


def _places(current: Current, planned: SettingsPlan) -> Places:
    values = {name: future(current, planned, name) for name in places.NAMES}
    return Places(
        values=values,
        written=tuple(one.parameter.name.lower() for one in planned.settings if one.text is not None),
        port=int(current.setting("port") or 0),
        buffers=_megabytes(current, values["shared_buffers"]),
    )


def _megabytes(current: Current, buffers: str) -> int:
    """The size of shared buffers; 0 for a value that the server does not accept."""
    with contextlib.suppress(InvalidInput, ValueError):
        return int(float(str(current.parameter("shared_buffers").meaning(buffers))) * BLOCK / 1024)
    return 0


def _by_file(planned: SettingsPlan, found: Service | None) -> None:
    names = [one.parameter.name for one in planned.settings if one.by_file]
    if names and found is None:
        raise Conflict(
            f"{', '.join(names)}: ALTER SYSTEM cannot write an empty list of this kind. {UNTOUCHED}",
            "Run this on the server's host as root, or remove it from the file that sets it.",
        )


def _rules(session: Session) -> str:
    """The first line of the access rules with which the server would not start."""
    file = "r.file_name" if session.major >= 16 else "current_setting('hba_file')"
    try:
        return next(places.lines(session.rows(RULES.format(file=file))), "")
    except QueryFailed as error:
        return error.message


def _libraries(session: Session, current: Current, planned: SettingsPlan) -> None:
    """Load what new sessions will load, in one of its own."""
    for change in planned.written:
        name = change.setting.parameter.name.lower()
        words = change.setting.words or () if name in PRELOADED else ()
        there = elements(current.configured(name) or "") if words else ()
        for word in words:
            plain = name == "local_preload_libraries" and "/" not in word
            if word not in there:
                _loaded(session, planned, f"$libdir/plugins/{word}" if plain else word)


def _loaded(session: Session, planned: SettingsPlan, library: str) -> None:
    try:
        with connect(session.target) as other:
            other.execute(statement("LOAD {}", library))
    except PgOpsError as error:
        raise _refused(planned, f"{library}: {error.message}.", ours=True) from error


def _files(session: Session, planned: SettingsPlan) -> None:
    """Over the network the server is asked whether files exist."""
    for setting in planned.settings:
        name = setting.parameter.name
        if setting.text and (name.lower() in FILES):
            try:
                session.value(f"SELECT ({FILE}).size", [setting.text])
            except QueryFailed as error:
                raise _refused(planned, f"{name}: {error.message}.", ours=True) from error
