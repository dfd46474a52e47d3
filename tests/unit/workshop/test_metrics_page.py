# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of all metrics says what the collectors say."""

from __future__ import annotations

import metrics_page


def test_the_page_is_made_of_the_collectors_as_they_are() -> None:
    assert metrics_page.PAGE.read_text() == metrics_page.page(), "run: python tests/workshop/metrics_page.py"
