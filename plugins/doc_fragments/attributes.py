# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every module promises, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of modules."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Check mode reports exactly the changes of a run.
    support: full
  diff_mode:
    description:
      - Shows a line for each thing that is created or removed, and for a change the state before and after. Secrets
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
    description: The module changes nothing.
    support: full
  diff_mode:
    description: The module changes nothing.
    support: none
  facts:
    description: The result is stored as facts of the host.
    support: full
  platform:
    description: The operating systems of the hosts.
    platforms: posix
    support: full
"""
