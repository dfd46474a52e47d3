# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection's version, the same as in galaxy.yml."""

from __future__ import annotations

VERSION = "0.1.0"
