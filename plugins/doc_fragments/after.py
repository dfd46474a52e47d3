# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option of modules that keep something which all instances of a host share, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    """What a play has handled before."""

    DOCUMENTATION = r"""
options:
  after:
    description:
      - Other instances of this host that the same play handles before this one. What they share with it, check mode
        takes for handled then; a run does not look at this.
    type: list
    elements: str
    default: []
"""
