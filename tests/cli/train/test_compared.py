"""The table and the page of ways to train that were compared."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score

from tests.support.browser import DESKTOP, PHONE, chromium, needs_chromium, opened, overflow
from tubelet.service.cli.train.report.compared import (
    ClassAnswers,
    Compared,
    LabelAnswers,
    comparison_lines,
    comparison_page,
    comparison_rows,
)

HOSTILE = "<img src=x onerror=alert(1)>"
RIGHT = np.arange(100) < 80
WAYS = [
    Compared("temporal", ClassAnswers(np.arange(100) < 70), 31.4, 5_700_000, 0.25),
    Compared("probe", ClassAnswers(RIGHT), 1.25, 4_650_000, 0.2),
    Compared(HOSTILE, ClassAnswers(np.arange(100) % 2 == 0), 240.0, 33_170_000, 0.9),
]


def test_the_best_comes_first_and_the_others_are_measured_against_it() -> None:
    rows = comparison_rows(WAYS)
    assert [row["name"] for row in rows] == ["probe", "temporal", HOSTILE]
    assert [row["accuracy"] for row in rows] == [0.8, 0.7, 0.5]
    assert [row["minus_best"] for row in rows] == pytest.approx([0, -0.1, -0.3])
    assert rows[0]["minus_best_interval"] == (0, 0)
    wanted = bootstrap(
        ((np.arange(100) % 2 == 0).astype(float) - RIGHT,), np.mean, method="percentile"
    ).confidence_interval
    assert rows[2]["minus_best_interval"] == pytest.approx((wanted.low, wanted.high), abs=0.02)
    low, high = rows[1]["interval"]
    assert low < 0.7 < high


def test_the_table_has_aligned_columns() -> None:
    lines = comparison_lines(comparison_rows(WAYS[:2]))
    assert len(lines) == 3
    assert " ".join(lines[1].split()) == "probe 0.800 (0.711 to 0.867) 1.2 s 4.65 M 0.200 s"
    assert "temporal  0.700 (0.604 to 0.781)  -0.100 (-0.160 to -0.050)" in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_independent_labels_are_compared_by_mean_average_precision() -> None:
    random = np.random.default_rng(0)
    truth = random.random((60, 3)) < [0.5, 0.2, 0.3]
    good, poor = (truth + noise * random.standard_normal((60, 3)) for noise in (0.5, 3.0))
    ways = [
        Compared(name, LabelAnswers(scores, truth), 1.0, 1, 0.1)
        for name, scores in (("poor", poor), ("good", good))
    ]
    rows = comparison_rows(ways)
    assert [row["name"] for row in rows] == ["good", "poor"]
    for row, scores in zip(rows, (good, poor), strict=True):
        assert row["mean_average_precision"] == pytest.approx(average_precision_score(truth, scores))
        assert row["interval"][0] < row["mean_average_precision"] < row["interval"][1]
    low, high = rows[1]["minus_best_interval"]
    assert low < rows[1]["minus_best"] < high < 0
    assert "mean average precision" in comparison_lines(rows)[0]
    assert "Mean average precision on unknown scenes" in comparison_page(Path("clips.csv"), rows, 5)


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_shows_bars_with_intervals(tmp_path: Path, width: int) -> None:
    file = tmp_path / "comparison.html"
    file.write_text(comparison_page(Path("clips.csv"), comparison_rows(WAYS), 5))
    with chromium() as browser, opened(browser, file, width=width) as page:
        bars, lines = page.locator(".chart .mark"), page.locator(".chart .whisker")
        expect(bars).to_have_count(3)
        expect(lines).to_have_count(3)
        widths = [bars.nth(number).bounding_box() for number in range(3)]
        shares = [box["width"] / widths[0]["width"] for box in widths if box and widths[0]]
        assert shares == pytest.approx([1, 0.7 / 0.8, 0.5 / 0.8], abs=0.01)
        expect(page.locator("tbody tr").nth(2)).to_contain_text(HOSTILE)
        assert overflow(page) <= 0
