"""The maps of a page in a real browser: where they lie on the picture, and what their controls do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.support.answers import answer
from tests.support.browser import Theme, chromium, needs_chromium, opened, overflow
from tests.support.segment_maps import segment_map
from tests.support.videos import render
from tubelet.service.report.maps.heat import scale_colours
from tubelet.service.report.maps.tracks import MapTrack, difference, map_track
from tubelet.service.report.video_page import PlayableVideo, render_video_page
from tubelet.service.types.explanation import MapQuestion
from tubelet.service.types.video import Rectangle

pytestmark = [needs_chromium, pytest.mark.slow]

SEEN = Rectangle(0.25, 0, 0.75, 1)
ROWS, COLUMNS, STEPS = 2, 4, 4
# The colour of the layer over the picture, at shares of its width and height: red, green, blue, opacity.
LAYER_AT = """([x, y]) => {
  const canvas = document.querySelector('#overlay');
  const box = canvas.getBoundingClientRect();
  const media = [...document.querySelectorAll('#player :is(video, img)')].find((each) => !each.hidden);
  const around = media.getBoundingClientRect();
  const ratio = (media.videoWidth || media.naturalWidth) / (media.videoHeight || media.naturalHeight);
  const width = Math.min(around.width, around.height * ratio);
  const height = width / ratio;
  const left = around.left - box.left + (around.width - width) / 2 + x * width;
  const top = around.top - box.top + (around.height - height) / 2 + y * height;
  const scale = canvas.width / box.width;
  const copy = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, -Math.round(left * scale), -Math.round(top * scale));
  return [...copy.getImageData(0, 0, 1, 1).data];
}"""
DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
STRIP_HEIGHTS = """steps => {
  const canvas = document.querySelector('#map-strip canvas');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return Array.from({ length: steps }, (_, step) => {
    const x = Math.floor(((step + 0.5) / steps) * canvas.width);
    let rows = 0;
    for (let y = 0; y < canvas.height; y++) rows += pixels[(y * canvas.width + x) * 4 + 3] > 0;
    return rows / canvas.height;
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def one_patch(question: MapQuestion, *at: tuple[int, int]) -> MapTrack:
    """Return a track of two seconds in which each step has all of its mass on one patch of ``at``."""
    values = np.zeros((STEPS, ROWS, COLUMNS))
    for step, (row, column) in enumerate(at):
        values[step, row, column] = step + 1
    label = question.label or "static"
    return map_track([segment_map(0, 2, steps=STEPS, label=label, values=values, rectangle=SEEN)], question)


PATCHES = ((0, 0), (0, 3), (1, 0), (1, 3))


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with several tracks, whose video is two seconds of grey, 128 x 64."""
    folder = tmp_path_factory.mktemp("pages")
    grey = np.full((64, 128, 3), 120, np.uint8)
    clip = render(folder / "clip.mp4", 20, draw=lambda _: grey)
    one, other = (
        one_patch(MapQuestion("relevance", *sides), *at)
        for sides, at in ((("a", "b"), PATCHES), (("b", "a"), PATCHES[::-1]))
    )
    attention = [
        one_patch(MapQuestion("attention", layer=layer, head=head), *PATCHES)
        for layer, head in ((0, 0), (0, 1), (3, 0), (3, 1))
    ]
    tracks = [one_patch(MapQuestion("relevance"), *PATCHES), difference(one, other), one, *attention]
    found = answer(segments=2)
    found = replace(found, metadata=replace(found.metadata, width=128, height=64), thumbnails=())
    path = folder / "clip.html"
    video = PlayableVideo("video/mp4", clip.read_bytes())
    path.write_text(render_video_page("clip.mp4", found, video, [], [], tracks), encoding="utf-8")
    return path


def show(page: Page, time_s: float) -> None:
    """Show the picture of a time."""
    page.wait_for_function("() => document.querySelector('#player video').readyState >= 2")
    page.evaluate(
        """time => new Promise((seeked) => {
          const video = document.querySelector('#player video');
          video.addEventListener('seeked', seeked, { once: true });
          video.currentTime = time;
        })""",
        time_s,
    )
    page.evaluate(DRAWN)


def patch_middle(row: int, column: int) -> tuple[float, float]:
    """Return the middle of a patch in shares of the picture."""
    return SEEN.left + (column + 0.5) / COLUMNS * (SEEN.right - SEEN.left), (row + 0.5) / ROWS


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_each_patch_lies_where_the_model_saw_it(
    browser: Browser, page_path: Path, width: int, theme: Theme
) -> None:
    with opened(browser, page_path, width=width, theme=theme) as page:
        for step, at in enumerate(PATCHES):
            show(page, step / 2 + 0.25)
            for patch in PATCHES:
                _, _, _, opacity = page.evaluate(LAYER_AT, patch_middle(*patch))
                assert (opacity > 10) == (patch == at), (step, patch)
            assert page.evaluate(LAYER_AT, [0.1, 0.5])[3] == 0  # outside of the crop
        assert overflow(page) == 0


def test_colours_are_those_of_the_scale_at_the_chosen_opacity(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        show(page, 1.75)
        page.fill("#map-opacity", "100")
        page.evaluate(DRAWN)
        *colour, opacity = page.evaluate(LAYER_AT, patch_middle(*PATCHES[3]))
        assert colour == pytest.approx(scale_colours("shares")[255, :3], abs=2)
        assert opacity == pytest.approx(255, abs=2)
        page.fill("#map-opacity", "40")
        page.evaluate(DRAWN)
        assert page.evaluate(LAYER_AT, patch_middle(*PATCHES[3]))[3] == pytest.approx(0.4 * 255, abs=2)
        page.select_option("#map-look", "off")
        page.evaluate(DRAWN)
        assert page.evaluate(LAYER_AT, patch_middle(*PATCHES[3]))[3] == 0


def test_a_smooth_map_has_no_edges(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        show(page, 1.75)
        edge = [SEEN.left + 3 / COLUMNS * (SEEN.right - SEEN.left) - 0.01, 0.75]
        assert page.evaluate(LAYER_AT, edge)[3] == 0
        page.select_option("#map-look", "smooth")
        page.evaluate(DRAWN)
        assert 10 < page.evaluate(LAYER_AT, edge)[3] < 170


def test_the_strip_has_the_mass_of_each_step(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        show(page, 0.25)
        heights = page.evaluate(STRIP_HEIGHTS, STEPS)
        assert heights == pytest.approx([0.25, 0.5, 0.75, 1], abs=0.06)
        show(page, 1.25)
        assert page.inner_text("#map-row .value") == "1.1×"  # 0.9 of the mass, 3 of 10 parts, 4 steps


def test_the_keyboard_chooses_a_track(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        show(page, 0.25)
        labels = page.locator("#map-label option").all_inner_texts()
        assert labels == ["best label of each segment", "a or b", "a rather than b", "any label"]
        assert page.inner_text("#map-now").startswith("Explained here: static. 10 % of this segment's map")
        page.focus("#map-label")
        page.keyboard.press("ArrowDown")
        page.evaluate(DRAWN)
        assert page.inner_text("#map-low") == "b, 12 times"
        assert page.inner_text("#map-high") == "a, 12 times or more"
        first, second = (page.evaluate(LAYER_AT, patch_middle(*patch)) for patch in (PATCHES[0], PATCHES[3]))
        assert first[0] > first[2] + 50  # orange: for a
        assert second[2] > second[0] + 50  # blue: for b

        page.select_option("#map-method", "attention")
        assert page.input_value("#map-label") == "any label"
        page.select_option("#map-layer", "3")
        page.select_option("#map-head", "1")
        assert [page.input_value(f"#map-{each}") for each in ("method", "layer", "head")] == [
            "attention",
            "3",
            "1",
        ]
        assert page.is_visible("text=Attention depends on no label")
        assert not page.is_visible("text=Relevance is what")


def test_the_picture_loses_its_colours_while_there_is_a_map(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        show(page, 0.25)
        filter_of = "() => getComputedStyle(document.querySelector('#player video')).filter"
        assert page.evaluate(filter_of) == "grayscale(0.8)"
        page.select_option("#map-look", "off")
        assert page.evaluate(filter_of) == "none"
