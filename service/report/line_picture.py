"""Pictures of lines over a logarithmic axis, as SVG that is readable on light and on dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tubelet.service.report.page import render_svg

_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 696.0, 96.0, 372.0  # of the plotted area, units of the picture
_MARGIN = 24.0  # of the plotted area before the first x and after the last one
_DODGE = 7.0  # between the marks of two lines at one x, so that their whiskers stay apart
_LEGEND_COLUMNS = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured value ``y`` at ``x``, with an interval from ``low`` to ``high``; values are in 0..1."""

    x: float
    y: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.x <= 0 or not 0 <= self.low <= self.y <= self.high <= 1:
            raise ValueError(f"x must be positive and 0 <= low <= y <= high <= 1; found {self}")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a picture: its name, and its marks in the order of x."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class LinePicture:
    """What a picture shows: up to four lines, and the value of ``chance`` as a dotted line."""

    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    chance: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.lines) <= 4:
            raise ValueError(f"a picture has one to four lines; found {len(self.lines)}")


def draw_lines(picture: LinePicture) -> str:
    """Draw a picture as an SVG document of its own, without scripts or anything from the network."""
    xs = sorted({mark.x for line in picture.lines for mark in line.marks})
    drawn = []
    for number, line in enumerate(picture.lines):
        shift = _DODGE * (number - (len(picture.lines) - 1) / 2)
        marks = [
            {
                "x": _position(mark.x, xs) + shift,
                "y": _height(mark.y),
                "low": _height(mark.low),
                "high": _height(mark.high),
                "title": f"{line.name}, {mark.x:,g}: {mark.y:.3f} ({mark.low:.3f} to {mark.high:.3f})",
            }
            for mark in line.marks
        ]
        column, row = number % _LEGEND_COLUMNS, number // _LEGEND_COLUMNS
        legend = {"x": _LEFT + 316 * column, "y": 54 + 22 * row}
        drawn.append({"name": line.name, "marks": marks, "legend": legend})
    return render_svg(
        "lines.svg",
        picture=picture,
        lines=drawn,
        x_ticks=[{"at": _position(x, xs), "text": f"{x:,g}"} for x in xs],
        y_ticks=[{"at": _height(y / 5), "text": f"{y / 5:.1f}"} for y in range(6)],
        chance=_height(picture.chance),
        area={"left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM},
    )


def _height(value: float) -> float:
    """Return the vertical position of a value in 0..1."""
    return _BOTTOM - (_BOTTOM - _TOP) * value


def _position(x: float, xs: Sequence[float]) -> float:
    """Return the horizontal position of ``x`` on a logarithmic axis over the sorted numbers ``xs``."""
    low, high = math.log(xs[0]), math.log(xs[-1])
    part = (math.log(x) - low) / (high - low) if high > low else 0.5
    return _LEFT + _MARGIN + (_RIGHT - _LEFT - 2 * _MARGIN) * part
