# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every module promises, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of modules."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: What check mode reports is what a run then changes.
    support: full
  diff_mode:
    description:
      - What is created or removed is shown by a line each, and what is changed with what is before and after. Secrets
        are not shown.
    support: full
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
  platform:
    description: The operating systems of the hosts.
    platforms: debian
    support: full
"""

    FACTS = r"""
attributes:
  check_mode:
    description: The module changes nothing, so check mode is the same as a run.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  facts:
    description: The result is kept as facts of the host.
    support: full
  platform:
    description: The operating systems of the hosts.
    platforms: posix
    support: full
"""
