"""Comparison of two evaluations: figures, refusals, text and JSON of the command, its page in a browser."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner, Result

from tests.support.browser import DESKTOP, PHONE, chromium, needs_chromium, opened, overflow
from tests.support.evaluations import random_outcomes
from tubelet.service.cli.app import app
from tubelet.service.cli.evaluation.comparison import Comparison, SavedEvaluation, compare
from tubelet.service.cli.evaluation.comparison_output import comparison_page
from tubelet.service.cli.evaluation.outcomes import Outcome
from tubelet.service.report.own_files import write_own
from tubelet.service.types.result import Label

LABELS = tuple(f"class {number}" for number in range(12))


def settings(model: str, data: str = "/data") -> dict[str, Any]:
    return {"model": model, "version": "1.0.0", "data": data, "clips": None, "crops": None}


def save(folder: Path, answers: dict[str, tuple[str, str]], data: str = "/data") -> Path:
    """Write results.jsonl as an evaluation does; ``answers`` are true and best label by video."""
    lines = [{"settings": settings(folder.name, data)}]
    lines += [
        {"video": video, "label": label, "labels": [{"label": best, "score": 0.75}]}
        for video, (label, best) in answers.items()
    ]
    folder.mkdir()
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def compared(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", "--compare", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    a = {"1": ("x", "x"), "2": ("x", "y"), "3": ("y", "y"), "4": ("y", "y"), "only a": ("y", "y")}
    b = {"4": ("y", "x"), "3": ("y", "y"), "2": ("x", "x"), "1": ("x", "x"), "\x1b[1mb": ("x", "y")}
    return save(tmp_path / "first", a), save(tmp_path / "second", b)


def test_only_common_videos_are_compared(folders: tuple[Path, Path]) -> None:
    done = compared(*folders)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "A  first 1.0.0, sliding windows, /data: 5 videos"
    assert "top 1 of A   0.750  (95 %: 0.301 to 0.954)" in lines
    assert "B minus A   +0.000  (95 %: -0.750 to +0.750); McNemar's p is 1.000" in lines
    assert "4 common videos: 2 right in both, 1 only in A, 1 only in B, 0 in neither" in lines
    assert lines[-2:] == ["x: A y 0.750, B x 0.750: 2", "y: A y 0.750, B x 0.750: 4"]

    report = json.loads(compared(*folders, "--json").stdout)
    assert (report["videos"], report["a"]["videos"], report["b"]["videos"]) == (4, 5, 5)
    classes = {each["label"]: (each["recall_a"], each["recall_b"]) for each in report["classes"]}
    assert classes == {"y": (1.0, 0.5), "x": (0.5, 1.0)}
    assert [each["label"] for each in report["classes"]] == ["y", "x"]  # the largest loss first
    assert report["disagreements"][0] == {
        "video": "2",
        "label": "x",
        "a": {"label": "y", "score": 0.75},
        "b": {"label": "x", "score": 0.75},
    }


def test_interval_of_paired_answers_is_narrower_than_of_separate_ones() -> None:
    found = comparison(videos=400)
    low, high = found.difference_interval
    assert low < found.counts.difference < high
    separate = sum(end - start for start, end in (found.interval_a, found.interval_b)) / 2**0.5
    assert high - low < separate
    assert sum(counts.videos for _, counts in found.classes) == 400


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"other": ("x", "x")}, "A and B have no video in common: A is of /data, B of /elsewhere"),
        (
            {"1": ("x", "x"), "3": ("x", "x")},
            "A and B are of different labels: 3 is 'y' in A and 'x' in B; so are 1 of 2 common videos",
        ),
        ({}, "has no answers yet"),
    ],
)
def test_evaluations_of_something_else_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, answers: dict[str, tuple[str, str]], says: str
) -> None:
    done = compared(folders[0], save(tmp_path / "other", answers, "/elsewhere"), "--json")
    assert done.exit_code == 2
    assert says in done.stderr
    assert json.loads(done.stdout)["error"]["reason"] == "INVALID_COMPARISON"


@pytest.mark.parametrize("content", ["[]", '{"top1": 1}', '{"settings": {}}\n{"video": "a"}\n', "\x00"])
def test_file_of_something_else_is_refused(folders: tuple[Path, Path], tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    done = compared(folders[0], tmp_path / "report.json")
    assert done.exit_code == 2
    assert (
        f"{tmp_path / 'report.json'} does not hold the answers of an evaluation; --compare takes"
        in done.stderr
    )
    done = compared(folders[0], tmp_path / "gone")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"{tmp_path / 'gone'} cannot be read: No such file or directory" in done.stderr


def test_compare_takes_no_options_of_a_run(folders: tuple[Path, Path]) -> None:
    done = compared(*folders, "--clips", "2")
    assert done.exit_code == 2
    assert "--compare cannot be combined with --clips" in done.stderr
    done = CliRunner().invoke(app, ["evaluate"])
    assert done.exit_code == 2
    assert "DATA is missing" in done.stderr


def comparison(videos: int = 300) -> Comparison:
    """Compare random answers with others that differ in every fifth video, of which B has fewer right."""
    a = random_outcomes(LABELS, videos)
    b = [
        replace(each, predicted=(each.predicted[1], each.predicted[0])) if number % 5 == 0 else each
        for number, each in enumerate(a)
    ]
    return compare(saved("first", a), saved("second", b))


def saved(model: str, outcomes: list[Outcome]) -> SavedEvaluation:
    return SavedEvaluation(settings(model), {each.video: each for each in outcomes})


@needs_chromium
def test_comparison_page_shows_the_videos_of_each_kind(tmp_path: Path) -> None:
    found = comparison()
    write_own(tmp_path / "page.html", comparison_page(found))
    with chromium() as browser:
        for width in (DESKTOP, PHONE):
            with opened(browser, tmp_path / "page.html", width, "dark") as page:
                assert overflow(page) == 0
                title = page.locator("#chosen-title")
                expect(title).to_have_text("Different labels in A and B: 60 videos")
                only_a = page.get_by_role("button", name=f"Right in A only: {found.counts.only_a}")
                only_a.focus()
                page.keyboard.press("Enter")
                expect(title).to_have_text(f"Right in A only: {found.counts.only_a} videos")
                expect(title).to_be_in_viewport()
                expect(only_a).to_have_attribute("aria-pressed", "true")
                answers = page.locator("#chosen .card").first.locator("p").all_inner_texts()
                assert [answer.split()[:2] for answer in answers] == [["A", "✓"], ["B", "✗"]]
                label, counts = found.classes[3]
                page.locator('#classes button[data-class="3"]').click()
                expect(title).to_have_text(f"All of {label}: {counts.videos} videos")


@needs_chromium
def test_hostile_labels_and_names_are_text(tmp_path: Path) -> None:
    hostile = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a\u202eb", "x" * 10_000)
    outcomes = [
        Outcome(f"{hostile[number % 4]}{number}", hostile[number % 4], (Label(hostile[number // 4], 0.9),))
        for number in range(16)
    ]
    found = compare(saved(hostile[0], outcomes), saved(hostile[1], outcomes))
    write_own(tmp_path / "page.html", comparison_page(found))
    assert (tmp_path / "page.html").stat().st_size < 100_000
    with chromium() as browser, opened(browser, tmp_path / "page.html", PHONE) as page:
        assert overflow(page) == 0
        page.locator('#classes button[data-class="0"]').click()
        expect(page.locator("#chosen-title")).to_contain_text("</script><script>alert(1)</script>")
        assert page.locator("main img").count() == 0
