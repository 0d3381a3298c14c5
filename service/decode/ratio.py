"""FFmpeg's ratios (AVRational) as Python's."""

from fractions import Fraction
from typing import Protocol


class Ratio(Protocol):
    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


def exact(ratio: Ratio | None) -> Fraction | None:
    """None for one that is not set or is no number: 0/1, 0/0, 1/0, for which PyAV before 19 has None too."""
    if ratio is None or not ratio.numerator or not ratio.denominator:
        return None
    return Fraction(ratio.numerator, ratio.denominator)
