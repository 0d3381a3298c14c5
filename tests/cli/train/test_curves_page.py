"""The curves by epoch of a training's page: corners of the lines, ticks, and values that are no numbers."""

import math

from tubelet.service.cli.train.report.curves_page import epoch_charts


def epoch(number: int, loss: float, accuracy: float) -> dict[str, float]:
    return {
        "epoch": number,
        "loss": loss,
        "accuracy": accuracy,
        "validation_loss": 2 * loss,
        "validation_accuracy": accuracy / 2,
    }


def test_lines_reach_from_the_first_epoch_to_the_last() -> None:
    history = [epoch(1, 1.0, 0.5), epoch(2, 0.5, 0.75), epoch(3, 0.25, 1.0)]
    loss, accuracy = epoch_charts({"history": history, "best_epoch": 2})
    assert [line["points"] for line in loss["lines"]] == [
        "0.0,150.0 150.0,225.0 300.0,262.5",
        "0.0,0.0 150.0,150.0 300.0,225.0",
    ]
    assert accuracy["lines"][0]["points"] == "0.0,150.0 150.0,75.0 300.0,0.0"
    assert (loss["mark"], [tick["text"] for tick in loss["x_ticks"]]) == (150.0, ["1", "2", "3"])
    assert [tick["text"] for tick in loss["y_ticks"]] == ["0", "0.5", "1", "1.5", "2"]


def test_curves_of_one_epoch_of_many_and_of_none() -> None:
    assert epoch_charts({}) == []
    (one, _) = epoch_charts({"history": [epoch(1, math.nan, 0.5)], "best_epoch": 0})
    assert (one["mark"], one["lines"][0]["points"]) == (None, "")
    (many, _) = epoch_charts({"history": [epoch(n + 1, 1.0, 0.5) for n in range(100)], "best_epoch": 7})
    assert len(many["x_ticks"]) <= 5
