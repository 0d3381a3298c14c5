"""What the study reports: means and intervals by model and size, paired differences, tables, pictures."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import binomtest

from tubelet.models.training.simulation.sources import Source
from tubelet.models.training.study.design import Design, Run
from tubelet.models.training.study.results import Result
from tubelet.models.training.study.windows import read_windows, render
from tubelet.service.cli.training.study_report import Point, difference, summarise, write_report

DESIGN = Design(sizes=(20, 40), head_sizes=(20,), repeated_to=20, seeds=2, search_windows=20)
LABELS = np.arange(200) % 10


def result(run: Run, right: int, labels: np.ndarray = LABELS) -> Result:
    """Return a result that has the first ``right`` test windows right."""
    answers = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % 10)
    share = right / len(labels)
    return Result(run, run.rate or 1e-3, 100, 1234, 60.0, share, share, answers.tolist(), "abc")


def test_a_point_has_the_mean_over_seeds_and_the_ends_of_all_their_intervals() -> None:
    runs = {Run("r2plus1d", 20, seed): right for seed, right in enumerate((150, 160))}
    runs[Run("r2plus1d", 20, 0, rate=2e-3)] = 10  # the search does not count
    points = summarise({run: result(run, right) for run, right in runs.items()}, LABELS)
    (point,) = points.values()
    assert point.accuracy == pytest.approx(155 / 200)
    intervals = [binomtest(right, 200).proportion_ci(method="wilson") for right in (150, 160)]
    assert point.interval == pytest.approx((intervals[0].low, intervals[1].high))


def test_a_difference_is_that_of_a_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 500)) < 0.6, rng.random((2, 500)) < 0.7
    points = [Point("m", 20, (0.0,), (0, 1), 1, 1.0, right) for right in (first, second)]
    mean, interval = difference(*points)
    each = second.mean(axis=0) - first[:2].mean(axis=0)
    drawn = [rng.choice(each, len(each)).mean() for _ in range(4000)]
    assert mean == pytest.approx(each.mean())
    assert interval == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.005)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A study whose test windows are rendered."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 160, 200, 3), np.uint8)
    source = Source("still.mp4", moving=False, read=lambda: picture)
    render("test", 20, [source], tmp_path / "windows", lambda _: None)
    return tmp_path


def test_a_report_shows_what_is_done_and_leaves_out_what_is_not(out: Path) -> None:
    labels = read_windows("test", out / "windows").labels.numpy()
    runs = {Run("r2plus1d", 20, 0): 15, Run("factorised", 20, 0): 5, Run("r2plus1d", 40, 0): 20}
    write_report({run: result(run, right, labels) for run, right in runs.items()}, DESIGN, out)
    text = (out / "study.md").read_text()
    assert text.startswith("3 of 15 runs are done")
    assert re.search(r"\| R\(2\+1\)D \(CNN\) \| 0\.750 \(\S+ to \S+\) \| 1\.000 \(\S+ to 1\.000\) \|", text)
    assert re.search(r"\| factorised transformer, 5 heads \| 0\.250 \(\S+ to \S+\) \|  \|", text)
    assert "| factorised transformer, 5 heads | -0.500 (" in text
    cost = r"\| R\(2\+1\)D \(CNN\) \| 1,234 \| 60 s \| 720 J \| (\d\.\d+) s \| (\S+) J \|"
    found = re.search(cost, text)
    assert found is not None
    assert float(found[2]) == pytest.approx(12 * float(found[1]), rel=0.05)
    picture = ElementTree.parse(out / "accuracy-by-data.svg").getroot()
    names = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert len(names) == 3
    assert (out / "accuracy-by-heads.svg").is_file()


def test_a_report_without_any_run_has_no_picture(out: Path) -> None:
    write_report({}, DESIGN, out)
    assert (out / "study.md").read_text().startswith("0 of 15 runs are done")
    assert not list(out.glob("*.svg"))
