"""The curves of a training's page: loss and accuracy by epoch, and accuracy by the number of clips.

A chart is 300 pixels wide and high; its template draws it around.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tubelet.service.cli.train.learning_curve import CurvePoint

_SIDE = 300
_TICKS = 5


def epoch_charts(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the charts of loss and accuracy by epoch; none for a level without epochs."""
    history = details.get("history", ())
    if not history:
        return []
    epochs, best = [each["epoch"] for each in history], details["best_epoch"]
    charts = []
    measure = "f1" if "f1" in history[0] else "accuracy"
    for name in ("loss", measure):
        lines = [
            ("training", [each[name] for each in history]),
            ("validation", [each[f"validation_{name}"] for each in history]),
        ]
        values = filter(math.isfinite, (*lines[0][1], *lines[1][1]))
        top = 1.0 if name == measure else _round_top(max(values, default=1.0))
        charts.append(
            {
                "title": name.capitalize(),
                "x_title": "epoch",
                "x_ticks": _ticks(max(epochs)),
                "y_ticks": [
                    {"at": _SIDE - _SIDE * tick / (_TICKS - 1), "text": f"{top * tick / (_TICKS - 1):.3g}"}
                    for tick in range(_TICKS)
                ],
                "mark": _x(best, max(epochs)) if best else None,
                "dots": [],
                "lines": [
                    {"name": label, "points": _points(epochs, values, max(epochs), top)}
                    for label, values in lines
                ],
            }
        )
    return charts


def share_chart(curve: Sequence[CurvePoint]) -> dict[str, Any] | None:
    """Return the chart of the accuracy (or mean average precision) by the number of clips.

    None without points.
    """
    if not curve:
        return None
    most = max(point.clips for point in curve)
    dots = [
        {
            "x": _SIDE * point.clips / most,
            "y": _SIDE * (1 - point.value),
            "low": _SIDE * (1 - point.interval[0]),
            "high": _SIDE * (1 - point.interval[1]),
            "title": f"{point.clips} clips: {point.value:.3f}",
        }
        for point in curve
    ]
    return {
        "x_title": "clips trained on",
        "y_title": curve[0].measure,
        "x_ticks": [
            {"at": dot["x"], "text": str(point.clips)} for dot, point in zip(dots, curve, strict=True)
        ],
        "y_ticks": [
            {"at": _SIDE - _SIDE * tick / (_TICKS - 1), "text": f"{tick / (_TICKS - 1):g}"}
            for tick in range(_TICKS)
        ],
        "mark": None,
        "lines": [
            {"name": curve[0].measure, "points": " ".join(f"{dot['x']:.1f},{dot['y']:.1f}" for dot in dots)}
        ],
        "dots": dots,
    }


def _round_top(value: float) -> float:
    """Return the least number from ``value`` on that is 1, 2, 4 or 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(top for top in (power, 2 * power, 4 * power, 8 * power, 10 * power) if top >= value)


def _x(epoch: int, last: int) -> float:
    """Return where an epoch is; the first one is at 1, or in the middle if it is the only one."""
    return _SIDE / 2 if last <= 1 else _SIDE * (epoch - 1) / (last - 1)


def _points(epochs: Sequence[int], values: Sequence[float], last: int, top: float) -> str:
    """Return the corners of a line, in SVG's form; values that are no numbers are left out."""
    return " ".join(
        f"{_x(epoch, last):.1f},{_SIDE * (1 - value / top):.1f}"
        for epoch, value in zip(epochs, values, strict=True)
        if math.isfinite(value)
    )


def _ticks(last: int) -> list[dict[str, Any]]:
    """Return at most five whole numbers from 1 to ``last``."""
    step = max(1, math.ceil((last - 1) / (_TICKS - 1)))
    return [{"at": _x(epoch, last), "text": str(epoch)} for epoch in range(1, last + 1, step)]
