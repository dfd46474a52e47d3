# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host on which Ansible finds no Python is told what it needs, once."""

from __future__ import annotations

from pathlib import Path

import playbooks


def test_a_host_without_python_is_told_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("bare ansible_connection=local ansible_python_interpreter=/nowhere/python3\n")
    run = playbooks.play(tmp_path / "hosts", tmp_path, "pgops.fleet.site", "-e", "pgops_become=false")
    assert run.code != 0
    (failed,) = [said for said in run.outcomes if said["state"] == "failed"]
    assert "has no Python" in failed["msg"]
    assert "ansible.builtin.raw" in failed["msg"]
    assert run.text.count("ansible_python_interpreter") <= 2  # the error, and the result
    assert "was not found" not in run.text
