"""The page of a batch in a browser: what it shows of the rows, whatever they are called."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.batches import PLAN, classified, failed, shard_commits
from tests.support.browser import DESKTOP, PHONE, chromium, needs_chromium, opened, overflow
from tubelet.service.batch.destination.store import FolderStore
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.rows import VideoRows
from tubelet.service.batch.source.items import Shard
from tubelet.service.cli.batch.report import write_report

pytestmark = needs_chromium

HOSTILE = '"><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def slow(number: int, wall_s: float, **values: object) -> VideoRows:
    """The rows of a video that took ``wall_s``."""
    rows = classified(number)
    return replace(rows, video=rows.video | {"wall_s": wall_s} | values)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 30 videos of two labels and of 60 failures, in a shard of four."""
    dest = tmp_path_factory.mktemp("batch")
    commits = shard_commits(FolderStore(dest))
    commits.read()
    commits.take()
    commits.commit([slow(number, 1.0 + number) for number in range(25)])
    pans = [slow(number, 0.5, labels=[f"pan{HOSTILE}"], scores=[0.5]) for number in range(25, 29)]
    silent = slow(29, 99.0, labels=[], scores=[], warnings=["damaged"], uri=f"s3://b/x/a%20{HOSTILE}.mp4")
    commits.commit([*pans, silent, *(failed(number) for number in range(30, 90))])
    name = write_report(FolderStore(dest), commits, PLAN, Shard(1, 4), BatchProgress(90))
    assert name == "report-shard-00001-of-00004.html"
    return dest / name


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_page_shows_counts_labels_failures_and_slow_videos(browser: Browser, page: Path, width: int) -> None:
    with opened(browser, page, width) as shown:
        assert overflow(shown) == 0
        names, values = (shown.locator(f".figure-{part}").all_inner_texts() for part in ("name", "value"))
        figures = dict(zip(names, values, strict=True))
        assert (figures["Classified"], figures["Failed"], figures["Length"]) == ("30", "60", "1:00")
        assert figures["Read"] == "30 kB"
        labels = shown.locator("#labels tbody tr").all_inner_texts()
        assert [row.split()[0] for row in labels] == ["static", f"pan{HOSTILE.split()[0]}"]
        assert [row.split()[-2:] for row in labels] == [["25", "0.75"], ["4", "0.50"]]
        assert "NOT_A_VIDEO: 60 videos" in shown.inner_text("#failures-title >> xpath=../..")
        shown.locator("details summary").click()
        assert shown.locator("details tbody tr").count() == 50
        assert "and 10 more; all are rows" in shown.inner_text("details")
        slowest = shown.locator("#slowest tbody tr td:first-child").all_inner_texts()
        assert slowest[:3] == [f"a {HOSTILE}.mp4", "24.mp4", "23.mp4"]
        assert len(slowest) == 20
        notes = shown.locator(".note").all_inner_texts()
        assert notes[0].startswith("1 of the videos that were classified have warnings")
        assert "shard 1/4" in shown.inner_text(".masthead")
