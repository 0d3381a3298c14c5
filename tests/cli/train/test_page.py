"""The page of a training in a browser: its data, its result, its pictures, hostile labels."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from tests.cli.train.conftest import SCENES
from tests.support.browser import DESKTOP, PHONE, Theme, chromium, needs_chromium, opened, overflow
from tubelet.service.cli.app import app

HOSTILE = "<img src='http://127.0.0.1:9/x' onerror='alert(1)'>"


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The page of a model of two labels, a hostile one, with a duplicate and a broken clip; what was said."""
    folder = tmp_path_factory.mktemp("page")
    lines = ["path,label,split"]
    for scene in range(SCENES):
        split = "test" if scene == 0 else "train"
        lines += [f"{clips}/pans/{scene}.mp4,{HOSTILE},{split}", f"{clips}/stands/{scene}.mp4,stands,{split}"]
    shutil.copy(clips / "stands" / "2.mp4", folder / "copy.mp4")
    (folder / "broken.mp4").write_text("no video")
    lines += ["copy.mp4,stands,", "broken.mp4,stands,"]
    (folder / "clips.csv").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUBELET_MODELS__STORE", str(folder / "store"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        arguments = [
            "train",
            str(folder / "clips.csv"),
            "--name",
            "moves",
            "--out",
            str(folder / "out"),
            "--json",
        ]
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    return folder / "out" / "report.html", json.loads(done.stdout)


@pytest.fixture(scope="module")
def browser(trained: tuple[Path, dict[str, Any]]) -> Iterator[Browser]:
    with chromium() as running:
        yield running


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_shows_data_and_result(
    browser: Browser, trained: tuple[Path, dict[str, Any]], width: int, theme: Theme
) -> None:
    path, said = trained
    with opened(browser, path, width, theme) as page:
        assert overflow(page) == 0
        values = page.locator(".figure-value").all_inner_texts()
        assert values[:2] == [f"{said['figures']['accuracy']:.3f}", f"{said['test']['accuracy']:.3f}"]
        # The matrix and its clips.
        counts = page.locator(".matrix .cell").all_inner_texts()
        assert sum(map(int, counts)) == said["figures"]["clips"]
        page.locator(".matrix .cell").first.click()
        expect(page.locator("#chosen .card")).to_have_count(int(counts[0]))
        # Each picture of the page is one that the browser can decode.
        pictures = page.locator("main img")
        assert pictures.count() > 2 * SCENES
        decoded = "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth)))"
        assert min(pictures.evaluate_all(decoded)) >= 32
        # The data.
        rows = page.locator("#labels tbody tr").all_inner_texts()
        assert [row.split("\t")[0].strip() for row in rows] == ["stands", HOSTILE]
        findings = page.locator(".findings > li").all_inner_texts()
        assert len(findings) == len(said["findings"])
        assert any("copy.mp4 have the same content" in finding for finding in findings)
        expect(page.locator("#left-out td").first).to_have_text("broken.mp4")
        expect(page.locator(".commands")).to_contain_text("tubelet classify clip.mp4 --model moves")
        expect(page.locator("svg.chart")).to_have_count(2)
        phases = page.locator("#costs tbody tr").all_inner_texts()
        assert [phase.split("\t")[0].strip() for phase in phases] == list(said["costs"])
