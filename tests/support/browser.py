"""Pages in a headless Chromium: opened from their files, and watched for errors and for requests.

Playwright's loop runs while the browser is open, so that nothing in such a test may call ``asyncio.run``.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

DESKTOP, PHONE = 1280, 390  # widths in CSS pixels
Theme = Literal["light", "dark"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, file: Path, width: int = DESKTOP, theme: Theme = "light") -> Iterator[Page]:
    """Open a page; at the end, fail if it logged an error, was refused anything, or asked the network."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", lambda request: problems.append(f"request: {request.url[:200]}"))
    page.goto(file.absolute().as_uri())
    yield page
    context.close()
    own = f"request: {file.absolute().as_uri()}"
    local = ("request: data:", "request: blob:")
    unexpected = [each for each in problems if each != own and not each.startswith(local)]
    assert not unexpected, "; ".join(unexpected)


def overflow(page: Page) -> int:
    """Return by how many CSS pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
