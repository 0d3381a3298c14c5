"""Tables of pages in a browser: sorted by a column's header, filtered by a search field."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import DESKTOP, PHONE, Theme, chromium, needs_chromium, opened, overflow
from tubelet.service.cli.pages.answer_pages import IndexRow
from tubelet.service.report.own_files import write_own
from tubelet.service.report.page import render_page

pytestmark = needs_chromium

ROWS = [("b10.mp4", "walk", 0.5, 3), ("a.mp4", "run", 0.75, 20), ("b9.mp4", "walk", 0.25, 100)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three videos."""
    rows = [
        IndexRow(name, label=label, score=score, duration_ns=seconds * 10**9)
        for name, label, score, seconds in ROWS
    ]
    path = tmp_path_factory.mktemp("pages") / "index.html"
    write_own(path, render_page("index.html", ["table.js"], title="Videos", note="", rows=rows))
    return path


def names(page: Page) -> list[str]:
    return page.locator("#videos tbody tr:visible td:first-child").all_inner_texts()


def test_header_sorts_by_its_column(browser: Browser, index: Path) -> None:
    with opened(browser, index) as page:
        page.get_by_role("button", name="Score").click()
        assert names(page) == ["a.mp4", "b10.mp4", "b9.mp4"]
        page.keyboard.press("Enter")  # the header has the focus
        assert names(page) == ["b9.mp4", "b10.mp4", "a.mp4"]
        assert page.get_by_role("columnheader", name="Score").get_attribute("aria-sort") == "ascending"
        page.get_by_role("button", name="Length").click()
        assert names(page) == ["b9.mp4", "a.mp4", "b10.mp4"]
        page.get_by_role("button", name="Video", exact=True).click()
        assert names(page) == ["a.mp4", "b9.mp4", "b10.mp4"]  # numbers in names in their order


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hint_of_a_search_field_has_the_colour_of_other_hints(
    browser: Browser, index: Path, theme: Theme
) -> None:
    colour = "([selector, part]) => getComputedStyle(document.querySelector(selector), part).color"
    with opened(browser, index, theme=theme) as page:
        assert page.evaluate(colour, ["input", "::placeholder"]) == page.evaluate(colour, [".kicker", None])


def test_search_field_filters_rows(browser: Browser, index: Path) -> None:
    with opened(browser, index) as page:
        field = page.get_by_role("searchbox")
        field.fill("WALK")
        assert names(page) == ["b10.mp4", "b9.mp4"]
        assert page.get_by_text("No video has this text.").is_hidden()
        field.fill("swim")
        assert names(page) == []
        assert page.get_by_text("No video has this text.").is_visible()


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_page_is_not_wider_than_the_window(browser: Browser, index: Path, width: int) -> None:
    with opened(browser, index, width) as page:
        assert overflow(page) == 0


@pytest.mark.parametrize(
    ("content", "noticed"),
    [
        ("<img src='http://127.0.0.1:9/a.png'>", "request: http://127.0.0.1:9/a.png"),
        ("<script>missing()</script>", "missing is not defined"),
        ("<script>console.log('said')</script>", "console: said"),
    ],
)
def test_watched_page_fails_for_what_it_does(
    browser: Browser, tmp_path: Path, content: str, noticed: str
) -> None:
    (tmp_path / "page.html").write_text(content)
    with pytest.raises(AssertionError, match=noticed), opened(browser, tmp_path / "page.html") as page:
        page.wait_for_timeout(100)
