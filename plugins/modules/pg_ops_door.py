#!/usr/bin/python
# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way of all modules of the collection to a host: a text that Ansible only puts the order into.

An ordinary module is packed on the controller with all that it imports of Ansible, sent, unpacked and imported on the
host, which takes longer than the work of most modules here. Their arguments are checked on the controller instead
(plugins/action/pg_ops_door.py), and what carries them out needs nothing of Ansible.
"""

DOCUMENTATION = r"""
module: pg_ops_door
short_description: Carry out a module of the collection (internal)
version_added: 0.1.0
description:
  - What the collection's action plugin runs on a host for each of its modules. Not for use in tasks.
author:
  - The pgops.fleet contributors (@pgops)
options: {}
"""

EXAMPLES = r"""
- name: Let the action plugin use it
  pgops.fleet.pg_ops_facts:
  become: true
"""

RETURN = r"""
library_lacking:
  description: Whether the host lacks the collection's library.
  returned: if so
  type: bool
"""

import sys

if __name__ == "__main__":  # before anything else is imported: the directory it is called from can be another user's
    sys.path = [path for path in sys.path if path not in ("", ".", sys.path[0])]

import base64
import importlib
import json
import zlib
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.util import spec_from_loader

# JSON has no three quotes in a row outside of a string, and escapes them within.
ORDER = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""
PACKAGE = "pgops"
OLDEST = (3, 9)


class Sent(ExecutionLoader, MetaPathFinder):
    """Imports files of the library from their texts: nothing is written, and a host needs no room for them."""

    def __init__(self, files):
        self.files = files

    def _path(self, fullname):
        """Where a file of the library would be; '' for what was not sent."""
        package, _dot, name = fullname.partition(".")
        within = name.replace(".", "/")
        places = (within + ".py", within + "/__init__.py") if name else ("__init__.py",)
        return next((path for path in places if package == PACKAGE and path in self.files), "")

    def find_spec(self, fullname, _path, _target=None):
        """As importlib asks for it."""
        return spec_from_loader(fullname, self) if self._path(fullname) else None

    def is_package(self, fullname):
        """Whether it is a directory of the library."""
        return self._path(fullname).endswith("__init__.py")

    def get_filename(self, fullname):
        """What a traceback shows."""
        return self._path(fullname)

    def get_source(self, fullname):
        """The text."""
        return self.files[self._path(fullname)]


def main():
    """Carry the order out, and print the result as JSON."""
    if not ORDER.startswith("{"):
        # Named so, since Ansible packs what it finds to import its files.
        basic = importlib.import_module("ansible.module_utils.basic")
        basic.AnsibleModule(argument_spec={}).fail_json(msg="Only the collection's action plugin uses this module.")
    order = json.loads(ORDER)
    if sys.version_info < OLDEST:
        have, need = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
        why = "pgops.fleet needs Python %s on the host; %s is %s. Set ansible_python_interpreter to a newer one."
        sys.stdout.write(
            json.dumps({"failed": True, "msg": why % (need, sys.executable, have), "code": "unsupported"})
        )
        return
    sent = json.loads(zlib.decompress(base64.b64decode(order["files"])))
    sys.meta_path.insert(0, Sent(sent))
    from pgops import library  # from what was sent

    sys.stdout.write(json.dumps(library.carry_out(order, sent)))


if __name__ == "__main__":
    main()
