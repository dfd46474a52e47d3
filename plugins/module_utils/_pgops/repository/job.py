# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job that updates the catalogue of the repository."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import InvalidInput
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from .catalogue import update


def catalogue(settings: Configuration, layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    """Record the files of the repository."""
    if not settings.repository:
        hint = "Set pgops_repository and run site.yml (docs/archiving.md)."
        raise InvalidInput("This instance has no repository.", hint)
    return update(settings, options.rebuild, keeping=layout.keeping)
