# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pages in a real browser: Debian's Chromium, without a window."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import binaries
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Error, Page, Request, sync_playwright


@dataclass
class Visit:
    """A page that is open, what its console said, and what it asked for beyond its own address."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        """What is visible of each element."""
        return self.page.locator(selector).all_inner_texts()

    def violations(self) -> list[str]:
        """What axe-core finds wrong for those who cannot see it as others do."""
        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]

    def sit(self, width: int, height: int = 900) -> None:
        """Give the window another size."""
        self.page.set_viewport_size({"width": width, "height": height})


@contextlib.contextmanager
def opened(path: Path, dark: bool = False) -> Iterator[Visit]:
    """A page of a file, once it has drawn itself."""
    with sync_playwright() as playwright:
        # Root may not use its sandbox, and the page is our own.
        browser = playwright.chromium.launch(executable_path=str(binaries.chromium()), args=["--no-sandbox"])
        try:
            page = browser.new_page(
                viewport={"width": 1400, "height": 900}, color_scheme="dark" if dark else "light", locale="de-DE"
            )
            visit = Visit(page)

            def console(message: ConsoleMessage) -> None:
                visit.said.append(f"{message.type}: {message.text}")

            def failed(error: Error) -> None:
                visit.said.append(f"error: {error}")

            def asked(request: Request) -> None:
                if request.url != path.as_uri():
                    visit.asked.append(request.url)

            page.on("console", console)
            page.on("pageerror", failed)
            page.on("request", asked)
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready]", state="attached")
            yield visit
        finally:
            browser.close()
