# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The line of the WAL that leads to a timeline: which file holds each segment of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..repository import wal, windows
from ..repository.wal import Ancestor
from ..repository.windows import Piece, Span


@dataclass(frozen=True)
class Line:
    """A timeline with the WAL that leads to it, the oldest first."""

    timeline: int
    segment_bytes: int
    pieces: tuple[Piece, ...]
    spans: tuple[Span, ...]

    def timeline_of(self, segment: int) -> int:
        """Whose file holds a segment."""
        return next(span.timeline for span in reversed(self.spans) if segment >= span.first)

    def name(self, segment: int) -> str:
        """The name of a segment's file."""
        return wal.name(self.timeline_of(segment), segment, self.segment_bytes)

    def leaves(self, timeline: int) -> int | None:
        """The byte at which the line goes on from a timeline to the next; None if it does not."""
        return next((piece.end for piece in self.pieces if piece.timeline == timeline), None)


def to(timeline: int, histories: Mapping[int, Sequence[Ancestor]], segment_bytes: int) -> Line:
    """The line that leads to a timeline."""
    return Line(
        timeline,
        segment_bytes,
        windows.line(timeline, histories),
        windows.spans(timeline, histories, segment_bytes),
    )
