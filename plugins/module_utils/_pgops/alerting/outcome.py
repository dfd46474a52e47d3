# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an attempt to send something ended."""

from __future__ import annotations

from dataclasses import dataclass

SENT, FAILED, AMBIGUOUS = "sent", "failed", "ambiguous"


@dataclass(frozen=True)
class Outcome:
    """``word`` is SENT, FAILED, or AMBIGUOUS where the message may have arrived all the same; ``error`` says why it
    is not SENT, without secrets."""

    word: str
    error: str = ""
