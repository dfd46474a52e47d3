# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends the SQL files along with the module."""

from __future__ import annotations

from ansible_collections.pgops.fleet.plugins.plugin_utils.packed import PackedAction


class ActionModule(PackedAction):
    """pg_ops_schema with the collection's SQL."""

    parts = (("sql", (".sql",)),)
