"""Take the pictures of the documentation, of a page that `make demo` or the playbook report has written.

python tests/workshop/pictures.py build/demo/index.html
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from browsing import opened  # noqa: E402

PICTURES = ROOT / "docs" / "images"


def main() -> None:
    """One of the fleet and one of its first instance, as they begin."""
    page = Path(sys.argv[1]).resolve()
    with opened(page) as visit:
        visit.sit(1200, 420)
        visit.page.screenshot(path=PICTURES / "fleet.png")
        visit.page.locator("tbody a").first.click()
        visit.page.wait_for_selector(".grid canvas")
        visit.sit(1200, 1000)
        visit.page.screenshot(path=PICTURES / "demo.png")


if __name__ == "__main__":
    main()
