"""``tubelet classify --html``: which pages are written, what they hold, and what happens when that fails."""

import asyncio
import json
import os
import re
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.report.test_video_page import answer, embedded
from tests.support.cli_process import TUBELET
from tests.support.running_server import Served
from tests.support.sample_clip import panning_clip
from tests.support.videos import render
from tubelet.service.cli.app import app
from tubelet.service.cli.pages.answer_pages import AnswerPages, PageOptions
from tubelet.service.cli.runs.video_sources import Source
from tubelet.service.config.config import DecodeConfig


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a video, one that browsers do not play, and a file that is none."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(panning_clip(2.0))
    render(tmp_path / "clips" / "a.avi", 20, codec="mpeg4")
    (tmp_path / "clips" / "<b>&.mp4").write_text("not a video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classify(served: Served, *arguments: str) -> Result:
    """Run the command in this process, which is faster than starting another."""
    return CliRunner().invoke(app, ["classify", "--server", served.target, *arguments])


def held_video(page: str) -> tuple[str, bytes] | None:
    found = re.search(r'id="video" data-type="([^"]*)">(.*?)</script>', page)
    return None if found is None else (found[1], b64decode(found[2]))


def test_a_page_holds_the_answer_the_video_and_pictures(served: Served, folder: Path) -> None:
    found = classify(served, "clips/a.mp4", "--json", "--html", "page.html")
    assert found.exit_code == 0
    printed = json.loads(found.stdout)
    assert "thumbnails" not in printed  # they are the page's
    page = Path("page.html").read_text()
    assert held_video(page) == ("video/mp4", Path("clips/a.mp4").read_bytes())
    assert len(embedded(page, "thumbnails")) > 0
    data: dict[str, Any] = embedded(page, "answer")
    assert data["labels"][data["ranked"][0]] == printed["segments"][0]["labels"][0]["label"] == "pan_right"
    assert data["scores"][0] == pytest.approx(printed["segments"][0]["labels"][0]["score"], abs=1e-4)
    assert [each["title"] for each in embedded(page, "downloads-data")] == ["JSON", "CSV", "SRT", "WebVTT"]
    assert re.search(r"<dt>Request id</dt><dd>[0-9a-f]{32}</dd>", page)


def test_several_videos_have_pages_and_an_index(served: Served, folder: Path) -> None:
    found = classify(served, "-r", "clips", "--html", "pages")
    assert found.exit_code == 1  # one is no video
    assert "whole video" in found.stdout
    names = sorted(path.name for path in Path("pages").iterdir())
    assert names == ["a-2.html", "a.html", "index.html"]
    index = Path("pages/index.html").read_text()
    assert re.findall(r'href="([^"]*)"', index) == ["a.html", "a-2.html"]
    assert "&lt;b&gt;&amp;.mp4" in index
    assert "the file is not a video" in index
    videos = [held_video(Path("pages", name).read_text()) for name in names[:2]]
    assert all(video is not None and video[0] == "video/mp4" for video in videos)
    assert Path("clips/a.mp4").read_bytes() in [video[1] for video in videos if video is not None]


def test_a_later_run_keeps_the_links_of_an_earlier_one(served: Served, folder: Path) -> None:
    arguments = ("clips/a.mp4", "clips/a.avi", "--out", "out.jsonl", "--html", "pages", "--no-video")
    classify(served, *arguments[:1], *arguments[2:])
    assert re.findall(r'href="([^"]*)"', Path("pages/index.html").read_text()) == ["a.html"]
    classify(served, *arguments)
    index = Path("pages/index.html").read_text()
    assert re.findall(r'href="([^"]*)"', index) == ["a.html", "a-2.html"]
    assert len(re.findall(r">0:00:0\d\.\d</td>", index)) == 2


def test_a_missing_page_of_an_earlier_run_is_reported(served: Served, folder: Path) -> None:
    arguments = ("-r", "clips", "--out", "out.jsonl", "--html", "pages", "--no-video")
    classify(served, *arguments)
    Path("pages/a-2.html").unlink()
    again = classify(served, *arguments)
    assert again.exit_code == 1
    assert "missing: pages/a-2.html; the answers are of an earlier run" in again.stderr
    index = Path("pages/index.html").read_text()
    assert re.findall(r'href="([^"]*)"', index) == ["a.html"]
    assert "its page is missing" in index
    assert "the file is not a video" in index
    kept = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()[1:]]
    for best in (each["labels"][0] for each in kept if "labels" in each):
        row = rf'{best["label"]}</bdi></td>\s*<td class="num" data-value="{best["score"]}">'
        assert re.search(row, index)

    Path("single").mkdir()
    single = ("clips/a.mp4", "--out", "out.jsonl", "--html", "single/page.html")
    assert "missing: single/page.html" in classify(served, *single).stderr


def test_a_page_says_why_it_has_pictures_only(served: Served, folder: Path) -> None:
    assert classify(served, "clips/a.mp4", "--html", "page.html", "--no-video").exit_code == 0
    page = Path("page.html").read_text()
    assert held_video(page) is None
    assert "pictures only" not in page  # it was asked for

    enough_for_pictures = f"{Path('page.html').stat().st_size / 1e6 + 0.01}"
    found = classify(served, "clips/a.mp4", "--html", "page.html", "--html-mb", enough_for_pictures)
    assert found.exit_code == 0
    page = Path("page.html").read_text()
    assert held_video(page) is None
    assert re.search(r"pictures only: the video has [\d.]+ MB, and the page has room for 0\.0 MB", page)

    with open("clips/a.mp4", "rb") as video:
        command = [TUBELET, "classify", "-", "--server", served.target, "--html", "page.html"]
        assert subprocess.run(command, stdin=video, capture_output=True).returncode == 0
    assert "The page has pictures only: the video came from standard input." in Path("page.html").read_text()


def test_answers_are_not_lost_when_a_page_cannot_be_written(served: Served, folder: Path) -> None:
    Path("pages").mkdir()
    Path(f"pages/.a.html.{os.getpid()}.part").mkdir()
    found = classify(served, "clips/a.mp4", "--json", "--html", "pages")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["labels"]
    assert "its page could not be written" in Path("pages/index.html").read_text()


async def test_an_interrupted_conversion_leaves_a_page_with_pictures(folder: Path) -> None:
    said: list[str] = []
    sources = [Source("clips/a.avi")]
    pages = AnswerPages(PageOptions(Path("pages")), sources, DecodeConfig(), said.append, said.append)
    async with pages:
        task = asyncio.create_task(pages.add(sources[0], answer()))
        await asyncio.sleep(0)  # now the worker that decodes the video is starting
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    page = Path("pages/a.html").read_text()
    assert held_video(page) is None
    assert "The page has pictures only: the command was interrupted" in page
    assert re.findall(r'href="([^"]*)"', Path("pages/index.html").read_text()) == ["a.html"]
    assert not said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clips/a.mp4", "clips/a.avi", "--html", "a.html"), "a.html has room for one video"),
        (("clips/a.mp4", "--no-video"), "--no-video needs --html"),
        (("clips/a.mp4", "--html-mb", "3"), "--html-mb needs --html"),
        (
            ("clips/a.mp4", "--json", "--html", "a.html", "--thumbnails", "3"),
            "--html cannot be combined",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    served: Served, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    found = classify(served, *arguments)
    assert found.exit_code == 2
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", found.stderr).split())


def test_a_page_over_its_limit_is_refused_with_a_sentence(served: Served, folder: Path) -> None:
    found = classify(served, "clips/a.mp4", "--html", "page.html", "--html-mb", "0.1")
    assert found.exit_code == 1
    assert re.search(
        r"the page of clips/a\.mp4 is not written: even without its video it has [\d.]+ MB, and the limit is "
        r"0\.1 MB; --html-mb \d+ allows it",
        found.stderr,
    )
    assert not Path("page.html").exists()
    assert "whole video" in found.stdout


async def test_a_page_far_over_its_limit_is_refused_before_it_is_rendered(folder: Path) -> None:
    said: list[str] = []
    options, sources = PageOptions(Path("page.html"), max_bytes=100_000), [Source("clips/a.mp4")]
    async with AnswerPages(options, sources, DecodeConfig(), said.append, said.append) as pages:
        await pages.add(sources[0], answer(segments=10_000))
    assert said == [
        "the page of clips/a.mp4 is not written: its 10,000 segments need more than 0.3 MB, and the limit is "
        "0.1 MB; use longer windows, or raise --html-mb"
    ]
