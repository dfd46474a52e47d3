# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From when to when the cluster can be recovered, how long that will take, and which recovery points: in the ops
database, as the repository was when it was last looked at from end to end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput
from ..server.session import Session
from . import chains, restores, wal, windows
from .backups import Kept
from .inventory import Inventory
from .restores import Forecast, Speed
from .windows import Window

MOST_NAMES = 10_000
"""Of the segments that a recovery point names one by one."""

WORDS = {
    windows.NO_BACKUP: "no base backup",
    windows.INCOMPLETE_CHAIN: "no base backup whose chain is complete",
    windows.DAMAGED_HISTORY: "the history file of timeline {timeline} is damaged",
    windows.MISSING_WAL: "{missing}",
}
"""Why nothing can be restored, or not to the end."""
NOT_ARCHIVED = "not archived yet"

CLEAR = "DELETE FROM pgops.recovery_window WHERE generation = %s"
WINDOW = """
INSERT INTO pgops.recovery_window (
    generation, timeline, start_lsn, end_lsn, starts_at, ends_at, missing_wal, backups, newest, recovery_seconds,
    recovery_basis, recovery_parts
) VALUES (
    %(generation)s, %(timeline)s, %(since)s::pg_lsn, %(until)s::pg_lsn, %(since_time)s,
    (SELECT max(f.archived_at) FROM pgops.wal_file AS f JOIN pgops.generation AS g USING (generation_id)
     WHERE g.name = %(generation)s AND f.wal_filename = ANY (%(last)s)),
    %(missing)s, %(backups)s::uuid[], %(newest)s, %(seconds)s, %(basis)s, %(parts)s::jsonb
)
"""
STATE = """
UPDATE pgops.generation SET recoverable = %(recoverable)s, obstacle = %(obstacle)s, restore_speeds = %(speeds)s::jsonb
WHERE name = %(generation)s
"""
SPEEDS = "SELECT g.restore_speeds FROM pgops.generation AS g WHERE g.name = %s"
POINTS = """
SELECT r.recovery_id::text AS id, r.timeline, (r.target_lsn - '0/0'::pg_lsn)::bigint AS byte
FROM pgops.recovery_point AS r
WHERE r.generation = %(generation)s AND (%(all)s OR r.required_segments IS NULL)
"""
POINT = """
UPDATE pgops.recovery_point
SET base_backup_id = %(base)s::uuid, required_wal_files = %(names)s::text[], required_segments = %(segments)s,
    obstacle = %(obstacle)s
WHERE recovery_id = %(id)s::uuid
"""
OLD_POINTS = """
DELETE FROM pgops.recovery_point AS r
WHERE r.generation = %s AND r.required_segments IS NULL AND r.created_at < now() - (
    SELECT make_interval(days => s.value::integer) FROM pgops.setting AS s WHERE s.name = 'retention_days')
"""


def note(
    session: Session, inventory: Inventory, timeline: int | None, less: bool, speeds: Mapping[str, Speed]
) -> None:
    """Record the windows of a generation with how long a restore to their ends will take, at the speeds of restores
    before; whether all of it can be recovered, and what its recovery points need. ``timeline`` is the server's, None
    for a generation of the past; ``less``: what could be recovered may no longer.

    Raises QueryFailed.
    """
    kept = good(inventory)
    found = windows.windows(inventory, kept)
    newest, obstacle = to_newest(inventory, found, timeline), prevents(inventory, found, timeline)
    with session.transaction():
        session.execute(CLEAR, [inventory.generation])
        for window in found:
            row = {**_window(inventory, window), **_expected(expected(inventory, kept, window, speeds))}
            session.execute(WINDOW, {**row, "newest": window == newest})
        state = {"generation": inventory.generation, "recoverable": obstacle is None, "obstacle": obstacle}
        session.execute(STATE, {**state, "speeds": _written(restores.shown(speeds))})
    for point in session.rows(POINTS, {"generation": inventory.generation, "all": less}):
        session.execute(POINT, {"id": point["id"], **required(inventory, kept, point["timeline"], point["byte"])})
    session.execute(OLD_POINTS, [inventory.generation])


def known_speeds(session: Session, generation: str) -> Any:
    """What restores have shown, as it is recorded; None where nothing is yet. Raises QueryFailed."""
    return session.value(SPEEDS, [generation])


def good(inventory: Inventory) -> tuple[Kept, ...]:
    """The backups in which the last verification found nothing wrong."""
    return tuple(kept for kept in inventory.listing.backups if not kept.problems)


def expected(inventory: Inventory, kept: Sequence[Kept], window: Window, speeds: Mapping[str, Speed]) -> Forecast:
    """How long it will take to restore the newest backup of a window, and to replay all WAL to its end."""
    known = {one.manifest.id: one for one in kept}
    chain = chains.lineage(known[window.backups[-1]], known)
    size = inventory.segment_bytes
    return restores.forecast(chain, window.until // size - chain[-1].manifest.start_lsn // size, speeds)


def _expected(forecast: Forecast) -> dict[str, Any]:
    """A forecast as parameters of WINDOW."""
    told = forecast.told()
    return {**told, "parts": _written(told["parts"])}


def _written(data: Any) -> str:
    return json.dumps(data, sort_keys=True)


def _window(inventory: Inventory, window: Window) -> dict[str, Any]:
    size = inventory.segment_bytes
    number = window.until // size - 1
    # On whichever timeline of the line the last segment is.
    last = [wal.name(run.timeline, number, size) for run in inventory.runs if run.first <= number <= run.last]
    return {
        **vars(window),
        "generation": inventory.generation,
        "since": wal.lsn(window.since),
        "until": wal.lsn(window.until),
        "last": last,
        "backups": list(window.backups),
    }


def prevents(inventory: Inventory, found: Sequence[Window], timeline: int | None) -> str | None:
    """Why the cluster cannot be recovered to the newest WAL of a timeline, with its windows ``found``, in words; None
    if it can. Without one, of the newest that there is."""
    here = _here(inventory, timeline)
    last = _last(found, here)
    if to_newest(inventory, found, timeline):
        return None
    if last:
        return _told(inventory, last.missing)
    reason = windows.prevented(inventory, good(inventory)).get(here, windows.NO_BACKUP)
    return WORDS[reason].format(timeline=here, missing=_told(inventory, _missing(inventory, here)))


def to_newest(inventory: Inventory, found: Sequence[Window], timeline: int | None) -> Window | None:
    """The window, among all that were ``found``, that goes to the newest WAL of a timeline; None if there is none.
    Without one, of the newest that there is."""
    here = _here(inventory, timeline)
    last = _last(found, here)
    newest = inventory.newest(here) or 0
    return last if last and last.until >= (newest + 1) * inventory.segment_bytes else None


def _here(inventory: Inventory, timeline: int | None) -> int:
    return timeline or max(windows.timelines(inventory), default=1)


def _last(found: Sequence[Window], timeline: int) -> Window | None:
    """The last window of a timeline."""
    return next((one for one in reversed(found) if one.timeline == timeline), None)


def _told(inventory: Inventory, segment: str) -> str:
    """What is the matter with a segment that cannot be replayed."""
    return f"{inventory.lack(segment)} segment {segment}"


def _missing(inventory: Inventory, timeline: int) -> str:
    """The first segment that the newest backup of a timeline's line lacks, '' if it lacks none."""
    usable = chains.complete(good(inventory))
    reached = [windows.reachable(kept.manifest, timeline, inventory) for kept in usable]
    return next((reach.missing for reach in reversed(reached) if reach.reason == windows.MISSING_WAL), "")


def required(inventory: Inventory, kept: tuple[Kept, ...], timeline: int, byte: int) -> dict[str, Any]:
    """What restoring to a byte on the line of a timeline takes, as parameters of POINT."""
    base = windows.base(inventory, kept, timeline, byte)
    nothing: dict[str, Any] = {"base": None, "names": None, "segments": None}
    if base is None:
        return {**nothing, "obstacle": _lacking(inventory, kept, timeline, byte)}
    try:
        names = windows.segments(base.manifest, timeline, byte, inventory.histories)
    except InvalidInput as error:  # a history file that contradicts another
        return {**nothing, "obstacle": str(error)}
    return {"base": base.manifest.id, "names": list(names[:MOST_NAMES]), "segments": len(names), "obstacle": None}


def _lacking(inventory: Inventory, kept: tuple[Kept, ...], timeline: int, byte: int) -> str:
    """Why no backup leads to a byte on the line of a timeline, in words."""
    newest = inventory.newest(timeline) or 0
    if byte > (newest + 1) * inventory.segment_bytes:
        return NOT_ARCHIVED
    before = [one for one in chains.complete(kept) if one.manifest.stop_lsn <= byte]
    reached = [windows.reachable(one.manifest, timeline, inventory) for one in before]
    missing = next((reach.missing for reach in reversed(reached) if reach.missing), "")
    why = windows.MISSING_WAL if missing else windows.prevented(inventory, kept).get(timeline, windows.NO_BACKUP)
    return WORDS[why].format(timeline=timeline, missing=_told(inventory, missing))
