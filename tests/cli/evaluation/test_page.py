"""The page of an evaluation in a browser: figures, matrix, clips, keyboard, many classes, hostile names."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import DESKTOP, PHONE, Theme, chromium, needs_chromium, opened, overflow
from tests.support.evaluations import random_outcomes
from tubelet.service.cli.evaluation.outcomes import Outcome
from tubelet.service.cli.evaluation.page import MAX_CLIPS, MAX_THUMBNAIL_BYTES, evaluation_page
from tubelet.service.cli.evaluation.report import Report, make_report
from tubelet.service.report.own_files import write_own
from tubelet.service.types.result import Label

LABELS = tuple(f"class {number}" for number in range(10))
MANY = tuple(f"class {number}" for number in range(400))
SKIPPED = [
    {"video": f"{number}.mp4", "code": "INVALID_ARGUMENT", "reason": "NOT_A_VIDEO", "message": "not a video"}
    for number in range(120)
]
RUN: dict[str, Any] = {
    "model": "moves",
    "version": "1.0.0",
    "data": "/data/val",
    "activation": "softmax",
    "clips": 2,
    "crops": 3,
    "videos_per_s": 3.5,
    "cost_per_video": {"processor_s": 0.25, "workers_s": 0.2, "joules": {"cpu:0": 1500.0}},
    "skipped": SKIPPED,
}
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"><img src='http://127.0.0.1:9/x' onerror='alert(1)'>",
    "a\u202egpj.exe",
    "line\u2028separator\x1b[31m",
    "x" * 10_000,
)


def page_of(outcomes: list[Outcome], labels: tuple[str, ...], **run: Any) -> tuple[str, Report]:
    report = make_report(outcomes, labels)
    return evaluation_page(report, outcomes, RUN | run), report


def data_of(page: str) -> dict[str, Any]:
    (content,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(content)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The page of ten classes, and its report."""
    page, report = page_of(random_outcomes(LABELS, 300), LABELS)
    path = tmp_path_factory.mktemp("ten") / "page.html"
    write_own(path, page)
    return path, report


def cell(page: Page, row: int, column: int) -> Any:
    return page.locator(f'.matrix button[data-cell="{row},{column}"]')


def test_page_holds_what_it_says() -> None:
    outcomes = random_outcomes(LABELS, 300)
    page, report = page_of(outcomes, LABELS)
    data = data_of(page)
    counts = {(row, column): count for row, column, count in data["cells"]}
    assert counts == {
        (row, column): int(count)
        for row, counted in enumerate(report.confusion)
        for column, count in enumerate(counted)
        if count
    }
    assert {clip["name"] for clip in data["clips"]} == {outcome.video for outcome in outcomes}
    assert all(clip["picture"] for clip in data["clips"])
    assert "have no picture" not in page
    assert "NOT_A_VIDEO</span>: 120 videos" in page
    assert "and 20 more" in page


def test_large_page_is_bounded_and_says_what_it_leaves_out() -> None:
    outcomes = random_outcomes(LABELS, 30_000)
    page, _ = page_of(outcomes, LABELS)
    clips = data_of(page)["clips"]
    assert len(clips) == MAX_CLIPS
    assert f"{30_000 - MAX_CLIPS} of 30000 videos are not listed here" in page
    pictures = [clip["picture"] for clip in clips if clip["picture"]]
    assert 0.99 * MAX_THUMBNAIL_BYTES < sum(map(len, pictures)) <= MAX_THUMBNAIL_BYTES
    assert f"{MAX_CLIPS - len(pictures)} of {MAX_CLIPS} videos have no picture here" in page
    assert len(page) < 14 << 20
    # Each cell has at least one picture.
    shown = {(clip["true"], clip["predicted"]) for clip in clips if clip["picture"]}
    assert shown == {(clip["true"], clip["predicted"]) for clip in clips}


def test_page_of_a_multi_label_model_has_average_precisions() -> None:
    outcomes = random_outcomes(LABELS, 200)
    page, report = page_of(outcomes, LABELS, activation="sigmoid")
    assert report.mean_average_precision is not None
    assert "moves scores each label independently" in page
    assert f'<p class="figure-value">{report.mean_average_precision:.3f}</p>' in page
    assert f">{report.classes[0].average_precision:.3f}</td>" in page
    page, _ = page_of([replace(outcome, scores=None) for outcome in outcomes], LABELS)
    assert "mAP" not in page
    assert "scores each label independently" not in page


def test_page_of_answers_without_thumbnails_says_so() -> None:
    outcomes = [Outcome("1.mp4", "a", (Label("a", 0.9),)), Outcome("2.mp4", "a", (Label("b", 0.9),))]
    page, _ = page_of(outcomes, ("a", "b"))
    assert "2 of 2 videos have no picture: their answers came without one." in page


@needs_chromium
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_press_on_a_cell_shows_its_clips(
    browser: Browser, ten: tuple[Path, Report], width: int, theme: Theme
) -> None:
    path, report = ten
    with opened(browser, path, width, theme) as page:
        assert overflow(page) == 0
        expect(page.locator(".matrix tbody tr")).to_have_count(10)
        for row, column in ((0, 0), (3, 4)):
            count = int(report.confusion[row, column])
            expect(cell(page, row, column)).to_have_text(str(count))
            cell(page, row, column).click()
            expect(page.locator("#chosen-title")).to_contain_text(f"{count} video")
            expect(page.locator("#chosen-title")).to_be_in_viewport()
            # As many cards as videos, in portions.
            while (more := page.locator("#chosen button")).is_visible():
                more.click()
            expect(page.locator("#chosen .card")).to_have_count(count)
            guesses = page.locator("#chosen .card p:first-of-type bdi").all_inner_texts()
            assert guesses == [f"class {column}"] * count
            picture = page.locator("#chosen .card img").first
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160


@needs_chromium
def test_arrow_keys_move_over_the_cells_with_videos(browser: Browser, ten: tuple[Path, Report]) -> None:
    path, report = ten
    with opened(browser, path) as page:
        cell(page, 0, 0).focus()
        page.keyboard.press("ArrowRight")
        filled = [column for column in range(1, 10) if report.confusion[0, column]]
        expect(cell(page, 0, filled[0])).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#chosen-title")).to_contain_text(f"class 0 predicted as class {filled[0]}: ")
        expect(cell(page, 0, filled[0])).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")  # there is none: the focus stays
        expect(cell(page, 0, 0)).to_be_focused()
        # Of all cells, the tab key reaches one.
        assert page.locator('.matrix button[tabindex="0"]').count() == 1


@needs_chromium
def test_mistakes_are_those_of_the_report(browser: Browser, ten: tuple[Path, Report]) -> None:
    path, report = ten
    with opened(browser, path) as page:
        cards = page.locator("#mistakes .card")
        for number, outcome in enumerate(report.mistakes[:5]):
            lines = [line for line in cards.nth(number).inner_text().splitlines() if line]
            score = f"{outcome.best.score:.3f}"
            assert lines == [outcome.best.name, score, f"not {outcome.label}", outcome.video]


@needs_chromium
def test_number_of_a_class_shows_its_clips(browser: Browser, ten: tuple[Path, Report]) -> None:
    path, report = ten
    videos = int(report.confusion[2].sum())
    with opened(browser, path) as page:
        page.locator('#classes button[data-class="2"]').click()
        expect(page.locator("#chosen-title")).to_have_text(f"All of class 2: {videos} videos")
        expect(page.locator("#chosen-title")).to_be_in_viewport()
        # Those that are wrong come first.
        expect(page.locator("#chosen .card").first.locator(".verdict").nth(1)).to_have_text("not class 2")


@needs_chromium
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_hostile_labels_and_names_are_text(browser: Browser, tmp_path: Path, width: int) -> None:
    outcomes = [
        Outcome(
            f"{HOSTILE[(number + 1) % 6]}/{number}", HOSTILE[number % 6], (Label(HOSTILE[number // 6], 0.9),)
        )
        for number in range(36)
    ]
    failed = [{"video": name, "code": "X", "reason": "", "message": name} for name in HOSTILE]
    page, _ = page_of(outcomes, HOSTILE, skipped=failed, data=HOSTILE[0], model=HOSTILE[2])
    assert len(page) < 400_000  # names of 10,000 characters are cut
    write_own(tmp_path / "page.html", page)
    with opened(browser, tmp_path / "page.html", width) as shown:
        assert overflow(shown) == 0
        expect(shown.locator(".matrix tbody th").first).to_have_text(HOSTILE[0])
        cell(shown, 3, 2).click()
        expect(shown.locator("#chosen-title")).to_contain_text(HOSTILE[2])
        assert r"a\u202egpj.exe" in shown.locator("#chosen-title").inner_text()
        assert shown.locator("main img").count() == 0


@needs_chromium
def test_many_classes_are_a_map_and_parts_of_the_matrix(browser: Browser, tmp_path: Path) -> None:
    labels = MANY[:60]
    page, report = page_of(random_outcomes(labels, 600), labels)
    write_own(tmp_path / "page.html", page)
    with opened(browser, tmp_path / "page.html") as shown:
        explore_many(shown, report)


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_page_of_kinetics_size(browser: Browser, tmp_path: Path, width: int) -> None:
    page, report = page_of(random_outcomes(MANY, 10_000), MANY)
    write_own(tmp_path / "page.html", page)
    with opened(browser, tmp_path / "page.html", width) as shown:
        assert overflow(shown) == 0
        explore_many(shown, report)


def explore_many(page: Page, report: Report) -> None:
    """Reach the same cell by the list of confusions, by the choice of a class and by the map."""
    first = page.locator("#confusions tbody tr").first
    true, predicted, count = first.locator("td").all_inner_texts()
    row, column = report.labels.index(true), report.labels.index(predicted)
    off_diagonal = report.confusion.copy()
    off_diagonal[range(len(off_diagonal)), range(len(off_diagonal))] = 0
    assert int(count) == off_diagonal.max() == report.confusion[row, column]
    first.locator("button").click()
    title = f"{true} predicted as {predicted}: {count} video"
    expect(page.locator("#chosen-title")).to_contain_text(title)

    page.get_by_label("Class", exact=True).select_option(str(row))
    expect(page.locator("#chosen-title")).to_contain_text(f"All of {true}: ")
    expect(cell(page, row, column)).to_have_text(count)
    assert page.locator(".matrix tbody tr").count() <= 13

    confusion_map = page.locator("#map")
    confusion_map.scroll_into_view_if_needed()
    side = confusion_map.evaluate("map => map.clientWidth") / len(report.labels)
    position: Any = {"x": (column + 0.5) * side, "y": (row + 0.5) * side}
    confusion_map.hover(position=position)
    expect(page.locator("#under-pointer")).to_contain_text(f"{true}, predicted as {predicted}: {count} video")
    confusion_map.click(position=position)
    expect(page.locator("#chosen-title")).to_contain_text(title)
    drawn = "map => map.getContext('2d').getImageData(0, 0, map.width, map.height).data.some(byte => byte)"
    assert confusion_map.evaluate(drawn)
