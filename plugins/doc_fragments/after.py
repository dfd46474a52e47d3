# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option of modules that install something which all instances of a host share, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    """Instances that the play has processed before."""

    DOCUMENTATION = r"""
options:
  after:
    description:
      - Other instances of this host that the same play has processed before this one. Check mode assumes that what
        they share is done; a run ignores it.
    type: list
    elements: str
    default: []
"""
