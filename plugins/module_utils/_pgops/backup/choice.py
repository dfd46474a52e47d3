# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backup is taken: full, or of what was changed since another one, and then since which. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..errors import Conflict, InvalidInput, PgOpsError
from ..repository import chains, manifests
from ..repository.backups import Kept, Listing
from ..repository.manifests import FULL, INCREMENTAL
from . import contents, native
from .options import NATIVE, Options
from .source import Source

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """A kind of manifests.KINDS, the backup that it adds to, None for a full one, and why it is this."""

    kind: str
    parent: Kept | None = None
    why: str = ""


@dataclass(frozen=True)
class Summaries:
    """The server's summaries of its WAL: rows of pg_available_wal_summaries(), and how far the server has come with
    them, a timeline and a byte of the WAL; it goes on from there."""

    rows: Sequence[Mapping[str, Any]] = ()
    timeline: int = 0
    reached: int = 0


NO_SUMMARIES = Summaries()


@dataclass(frozen=True)
class There:
    """What is there to add to: the backups, whether the last attempt to take one ``failed``, and the summaries."""

    listing: Listing
    failed: bool = False
    summaries: Summaries = NO_SUMMARIES


def chosen(asked: str, options: Options, source: Source, there: There, now: datetime) -> Choice:
    """What to take where ``asked`` is a kind, or AUTO.

    Raises InvalidInput for another kind, and Conflict if an incremental or differential one is asked for that cannot
    be.
    """
    if asked not in (AUTO, *manifests.KINDS):
        raise InvalidInput(f"There are no {asked} backups.", f"Use {', '.join((AUTO, *manifests.KINDS))}.")
    if asked == FULL:
        return Choice(FULL, why="a full one was asked for")
    due = _full_due(options, there, now) if asked == AUTO else ""
    if due:
        return Choice(FULL, why=due)
    kind = INCREMENTAL if asked == AUTO else asked
    try:
        return Choice(kind, _parent(kind, options, source, there))
    except PgOpsError as error:
        if asked != AUTO:
            raise
        return Choice(FULL, why=f"an incremental one cannot be taken: {error.message}")


def _full_due(options: Options, there: There, now: datetime) -> str:
    """Why it is time for a full backup; '' if it is not."""
    if not options.incremental:
        return "incremental backups are not declared (pgops_backup_incremental)"
    fulls = [kept for kept in there.listing.backups if kept.manifest.kind == FULL]
    if not fulls:
        return "there is no full one yet"
    if there.failed:
        # Perhaps because the server has refused an incremental one: the next would fail as well.
        return "the last attempt to take a backup failed"
    age = now - fulls[-1].manifest.started_at
    # A clock that was set back says nothing about an age.
    if not timedelta() <= age < timedelta(hours=options.full_interval_hours):
        return f"the last full one is older than {options.full_interval_hours:g} hours (or the clock was set back)"
    return ""


def _parent(kind: str, options: Options, source: Source, there: There) -> Kept:
    """The backup that an incremental or differential one adds to.

    Raises Conflict if it cannot be taken.
    """
    own = options.engine == NATIVE
    if own:
        native.check_incremental(source, options.unsafe_incremental)
    suited = [kept for kept in there.listing.backups if kind == INCREMENTAL or kept.manifest.kind == FULL]
    if not suited:
        raise _needs_full("There is no backup that it could add to.")
    parent, known = suited[-1], there.listing.by_id()
    line = chains.chain(parent, known)
    if line is None:
        raise _needs_full(f"{parent.name} lacks one of the backups that it adds to.")
    hurt = [kept.name for kept in line if kept.problems]
    if hurt:
        raise _needs_full(f"{hurt[0]} is damaged, as its last verification showed.")
    made = parent.manifest
    if made.timeline != source.timeline:
        raise _needs_full(f"The server is on timeline {source.timeline}, and {parent.name} on {made.timeline}.")
    if made.environment.get("data_checksums", source.data_checksums) != source.data_checksums:
        raise _needs_full(f"Data checksums were switched since {parent.name}.")
    if own and not covered(there.summaries, made.timeline, made.start_lsn):
        raise _needs_full(
            f"The server's summaries of WAL do not reach back to {parent.name} (wal_summary_keep_time)."
        )
    return parent


def _needs_full(why: str) -> Conflict:
    return Conflict(why, "Take a full backup.")


def covered(summaries: Summaries, timeline: int, start: int) -> bool:
    """Whether the server has, or is about to have, summaries of its WAL without a gap from a byte on."""
    spans = sorted(
        (contents.byte(one["start_lsn"]), contents.byte(one["end_lsn"]))
        for one in summaries.rows
        if one["tli"] == timeline
    )
    later = [(begin, end) for begin, end in spans if end > start]
    if not later:
        return summaries.timeline == timeline and 0 < summaries.reached <= start
    reached = start
    for begin, end in later:
        if begin > reached:
            return False
        reached = max(reached, end)
    return True
