# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What variables mean that were written as texts: the command line and INI inventories know nothing else."""

from __future__ import annotations

import json
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.validation import check_type_dict

YES = ("1", "on", "t", "true", "y", "yes")
NO = ("", "0", "f", "false", "n", "no", "none", "null", "off")


def yes_or_no(value: Any) -> bool:
    """Whether a variable that is either yes or no is yes.

    Raises AnsibleFilterError for another text.
    """
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().lower()
    if word in YES or word in NO:
        return word in YES
    raise AnsibleFilterError(f"A variable has a value that is neither yes ({', '.join(YES)}) nor no.")


def listed(value: Any) -> list[Any]:
    """A list, of JSON, or of words separated by commas; empty for what YAML has no value for.

    Raises AnsibleFilterError for JSON that is no list.
    """
    if value is None:
        return []
    if not isinstance(value, str):
        return list(value) if isinstance(value, (list, tuple, set)) else [value]
    if not value.strip().startswith("["):
        return [word for word in map(str.strip, value.split(",")) if word]
    try:
        return list(json.loads(value))
    except ValueError as error:
        raise AnsibleFilterError(f"A list is not valid JSON: {error}.") from None


def mapped(value: Any) -> dict[str, Any]:
    """A mapping, of JSON, or of words like ``key=value``.

    Raises AnsibleFilterError for anything else, and does not show it: it may hold secrets.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    try:
        return dict(check_type_dict(value.strip() if isinstance(value, str) else value))
    except (TypeError, ValueError):
        raise AnsibleFilterError(
            "A variable that maps names to values is neither a mapping nor JSON of one."
        ) from None


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"yes_or_no": yes_or_no, "listed": listed, "mapped": mapped}
