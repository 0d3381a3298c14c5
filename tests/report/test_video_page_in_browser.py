"""The page of one video in a real browser: it plays, seeks and draws what the answer says."""

import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import av
import pytest
from playwright.sync_api import Browser, Page

from tests.report.test_video_page import HOSTILE
from tests.support.answers import DURATION_S, NAMES, answer, expected_score, highest
from tests.support.browser import Theme, chromium, needs_chromium, opened, overflow
from tubelet.service.report.video_page import Download, PlayableVideo, render_video_page
from tubelet.service.server.app import SAMPLE_CLIP

pytestmark = needs_chromium

WAIT_FOR_VIDEO = "() => document.querySelector('#player video').readyState >= 2"
TIME = "() => document.querySelector('#player video').currentTime"
# The height of each lane's bar in the middle of each second, 0 to 1, as it is drawn.
BAR_HEIGHTS = """seconds => [...document.querySelectorAll('#lanes canvas')].map((canvas) => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext('2d', { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return Array.from({ length: seconds }, (_, second) => {
    const x = Math.floor(((second + 0.5) / seconds) * canvas.width);
    let rows = 0;
    for (let y = 0; y < canvas.height; y++) rows += pixels[(y * canvas.width + x) * 4 + 3] > 0;
    return rows / canvas.height;
  });
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the sample clip, with its video."""
    path = tmp_path_factory.mktemp("pages") / "clip.html"
    video = PlayableVideo("video/mp4", SAMPLE_CLIP.read_bytes())
    downloads = [Download("CSV", "clip.csv", "text/csv", "a,b\nü,\u2028\n")]
    path.write_text(render_video_page("clip.mp4", answer(), video, ["a note"], downloads), encoding="utf-8")
    return path


def shown_lanes(page: Page) -> list[str]:
    return page.locator("#lanes .track-name bdi").all_inner_texts()


def settle(page: Page) -> None:
    """Wait until the page has drawn what was asked of it."""
    page.wait_for_function("""() => {
      const canvas = document.querySelector('#slider canvas');
      return canvas.width === Math.round(canvas.clientWidth * devicePixelRatio);
    }""")
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def seek(page: Page, time_s: float) -> None:
    page.evaluate(
        """time => new Promise((seeked) => {
          const video = document.querySelector('#player video');
          video.addEventListener('seeked', () => requestAnimationFrame(seeked), { once: true });
          video.currentTime = time;
        })""",
        time_s,
    )


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_lanes_and_numbers_agree_with_the_answer(
    browser: Browser, page_path: Path, width: int, theme: Theme
) -> None:
    with opened(browser, page_path, width=width, theme=theme) as page:
        settle(page)
        page.wait_for_function(WAIT_FOR_VIDEO)
        page.click("#more-lanes")
        names = shown_lanes(page)
        assert sorted(names) == sorted(NAMES)
        settle(page)
        for name, heights in zip(names, page.evaluate(BAR_HEIGHTS, DURATION_S), strict=True):
            for second, height in enumerate(heights):
                assert height == pytest.approx(expected_score(name, second) or 0, abs=0.06), (name, second)
        for second in (0, 3, 9, 15):
            seek(page, second + 0.5)
            numbers = page.locator("#lanes .value").all_inner_texts()
            expected = [expected_score(name, second) for name in names]
            assert numbers == ["–" if number is None else f"{number:.2f}" for number in expected]
        assert overflow(page) == 0
        plot, panel = (page.locator(each).bounding_box() for each in ("#slider", "#scroller"))
        assert plot is not None
        assert panel is not None
        assert plot["x"] + plot["width"] == pytest.approx(panel["x"] + panel["width"], abs=1)


def test_clicks_and_keys_seek_and_play(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        settle(page)
        page.wait_for_function(WAIT_FOR_VIDEO)
        lane = page.locator("#lanes .track-plot").first.bounding_box()
        assert lane is not None
        page.mouse.click(lane["x"] + lane["width"] * 0.75, lane["y"] + 5)
        assert page.evaluate(TIME) == pytest.approx(12, abs=0.1)
        page.click("#segments tbody tr:nth-child(3) button")
        assert page.evaluate(TIME) == pytest.approx(4, abs=0.01)
        page.wait_for_selector("#segments tr[aria-current]:has-text('0:00:04.0')")

        page.focus("#slider")
        for key, time_s in (("ArrowRight", 5), ("ArrowLeft", 4), ("End", 16), ("ArrowLeft", 15), ("Home", 0)):
            page.keyboard.press(key)
            assert page.evaluate(TIME) == pytest.approx(time_s, abs=0.05), key
        page.wait_for_selector("#slider[aria-valuetext='0:00:00.0, static 0.90']")
        page.keyboard.press(" ")
        page.wait_for_function(f"() => ({TIME})() > 0.2")
        page.keyboard.press(" ")
        assert page.evaluate("() => document.querySelector('#player video').paused")


def test_the_view_zooms_and_labels_are_found_by_name(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        settle(page)
        page.wait_for_function(WAIT_FOR_VIDEO)
        assert page.is_disabled("#zoom-out")
        page.click("#zoom-in")
        page.click("#zoom-in")
        assert page.evaluate("() => document.querySelector('#scroller').scrollWidth") == pytest.approx(
            4 * page.evaluate("() => document.querySelector('#scroller').clientWidth"), abs=4
        )
        page.evaluate("() => { document.querySelector('#scroller').scrollLeft = 1e6; }")
        settle(page)
        lane = page.locator("#lanes .track-plot").first.bounding_box()
        assert lane is not None
        page.mouse.click(lane["x"] + lane["width"] / 2, lane["y"] + 5)  # the middle of the last quarter
        assert page.evaluate(TIME) == pytest.approx(14, abs=0.1)
        page.click("#zoom-all")
        assert page.is_disabled("#zoom-out")

        page.fill("#search", "PAN")
        assert sorted(shown_lanes(page)) == ["pan_left", "pan_right"]
        page.fill("#search", "no such label")
        assert page.locator("#lanes-note").inner_text() == "No label of a segment has this text."


def test_a_download_has_the_bytes_of_the_file(browser: Browser, page_path: Path) -> None:
    with opened(browser, page_path) as page:
        with page.expect_download() as begun:
            page.click("#downloads button")
        assert begun.value.suggested_filename == "clip.csv"
        assert begun.value.path().read_text(encoding="utf-8") == "a,b\nü,\u2028\n"


def test_without_a_video_the_pictures_follow_the_time(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "clip.html"
    path.write_text(render_video_page("clip.mp4", answer(), None, ["pictures only"], []), encoding="utf-8")
    with opened(browser, path) as page:
        assert page.is_hidden("#player video")
        page.click("#segments tbody tr:nth-child(4) button")
        assert page.get_attribute("#player img", "alt") == "Picture at 0:00:05.5"
        assert page.inner_text("#now") == "0:00:06.0"


def test_an_unplayable_video_gives_way_to_pictures(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "clip.html"
    broken = PlayableVideo("video/mp4", b"no video")
    path.write_text(render_video_page("clip.mp4", answer(), broken, [], []), encoding="utf-8")
    with opened(browser, path) as page:
        page.wait_for_selector("#unplayable", state="visible")
        assert page.is_visible("#player img")


def test_hostile_names_are_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "clip.html"
    download = Download("JSON", "clip.json", "application/json", json.dumps(HOSTILE))
    text = render_video_page(HOSTILE[0], answer(tuple(HOSTILE)), None, HOSTILE, [download])
    path.write_text(text, encoding="utf-8")
    with opened(browser, path, width=390) as page:
        page.click("#more-lanes")
        assert page.inner_text("h1") == HOSTILE[0]
        shown = shown_lanes(page)
        assert len(shown) == len(HOSTILE)
        assert {HOSTILE[0], HOSTILE[1], HOSTILE[2]} <= set(shown)
        assert page.locator("script").count() == 4  # three of data, one of the page
        assert overflow(page) == 0


@pytest.mark.parametrize("late_s", [0.08, 1.5])
def test_a_video_whose_clock_starts_late_begins_at_zero(
    browser: Browser, tmp_path: Path, late_s: float
) -> None:
    content = BytesIO()
    with av.open(SAMPLE_CLIP, "r") as source, av.open(content, "w", format="mp4") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue  # the end
            late = round(late_s / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + late, packet.dts + late, stream
            copy.mux(packet)
    path = tmp_path / "clip.html"
    video = PlayableVideo("video/mp4", content.getvalue())
    path.write_text(render_video_page("clip.mp4", answer(), video, [], []), encoding="utf-8")
    with opened(browser, path) as page:
        page.wait_for_function(f"late => ({TIME})() > late - 0.001", arg=late_s)
        page.wait_for_function("() => document.querySelector('#now').textContent === '0:00:00.0'")
        page.focus("#slider")
        for key, time_s in (("ArrowRight", 1), ("ArrowRight", 2), ("Home", 0)):
            page.keyboard.press(key)
            page.wait_for_selector(f"#slider[aria-valuenow='{time_s}.0']")
            assert page.evaluate(TIME) == pytest.approx(late_s + time_s, abs=0.001)


def test_arrow_keys_go_over_gaps_to_the_next_segment(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "clip.html"
    found = answer()
    kept = tuple(each for each in found.segments if 2 <= each.start_s < 4 or each.start_s >= 10)
    path.write_text(
        render_video_page("clip.mp4", replace(found, segments=kept), None, [], []), encoding="utf-8"
    )
    with opened(browser, path) as page:
        page.focus("#slider")
        presses = {"ArrowRight": [2, 3, 10, 11], "ArrowLeft": [10, 3, 2, 1], "Home": [0]}
        for key, times_s in presses.items():
            for time_s in times_s:
                page.keyboard.press(key)
                assert float(page.get_attribute("#slider", "aria-valuenow") or "") == time_s, key
        # PageUp, 1.6 s at a time, ends in the gap.
        for key, time_s in (("PageUp", 1.6), ("PageUp", 3.2), ("PageUp", 4.8), ("ArrowRight", 10)):
            page.keyboard.press(key)
            assert float(page.get_attribute("#slider", "aria-valuenow") or "") == time_s, key
        for key, time_s in (("PageDown", 8.4), ("ArrowLeft", 3)):
            page.keyboard.press(key)
            assert float(page.get_attribute("#slider", "aria-valuenow") or "") == time_s, key


@pytest.mark.parametrize("segments", [0, 1])
def test_an_answer_with_hardly_any_segment_opens(browser: Browser, tmp_path: Path, segments: int) -> None:
    path = tmp_path / "clip.html"
    text = render_video_page("clip.mp4", answer(segments=segments), None, [], [])
    path.write_text(text, encoding="utf-8")
    with opened(browser, path) as page:
        assert page.locator("#segments tbody tr").count() == segments
        page.focus("#slider")
        for key in ("ArrowRight", "ArrowLeft", "End", "+", "Home"):
            page.keyboard.press(key)


def test_two_hours_are_drawn_by_their_highest_scores(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "clip.html"
    found = answer(segments=7200)
    path.write_text(render_video_page("clip.mp4", found, None, [], []), encoding="utf-8")
    with opened(browser, path) as page:
        settle(page)
        width = page.evaluate("() => document.querySelector('#lanes canvas').width")
        for name, heights in zip(shown_lanes(page), page.evaluate(BAR_HEIGHTS, 50), strict=True):
            for place, height in enumerate(heights):
                column = int((place + 0.5) / 50 * width)
                first, end = (side * 7200 / width for side in (column, column + 1))
                inner, outer = (highest(found, name, first + off, end - off) for off in (1, -1))
                assert inner - 0.06 <= height <= outer + 0.06
        assert page.locator("#segments tbody tr").count() == 100
        page.click("#more-segments")
        assert page.locator("#segments tbody tr").count() == 200
        page.focus("#slider")
        for _ in range(12):
            page.keyboard.press("+")
        settle(page)
        assert page.is_disabled("#zoom-in")
        heights = page.evaluate(BAR_HEIGHTS, 2)  # the first two seconds
        names = shown_lanes(page)
        for name, lane in zip(names, heights, strict=True):
            assert lane[0] == pytest.approx(expected_score(name, 0) or 0, abs=0.06)
