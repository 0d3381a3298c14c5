"""The calibration error of a model before and after its temperature, of clips and of windows.

C clips, W windows.
"""

from dataclasses import dataclass

import numpy as np

from tubelet.service.cli.evaluation.measures import Interval, calibration, grouped_calibration_error

Scored = tuple[np.ndarray, np.ndarray]
"""Scores between 0 and 1, and whether each is right: (n,), (n,) bool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationErrors:
    """Expected calibration errors (ECE) with 95 % intervals, with and without (``before``) the temperature.

    Those of windows are what the segments of an answer have; their intervals resample clips as a whole.
    """

    ece: float
    ece_interval: Interval
    ece_before: float
    ece_before_interval: Interval
    window_ece: float
    window_ece_interval: Interval
    window_ece_before: float
    window_ece_before_interval: Interval


def measure_errors(
    before: Scored, after: Scored, windows_before: Scored, windows_after: Scored, clips: np.ndarray
) -> CalibrationErrors:
    """Measure the errors of clips and of windows; ``clips`` has the clip of each score of a window."""
    clips_before, clips_after = calibration(*before), calibration(*after)
    window_before, window_before_interval = grouped_calibration_error(*windows_before, clips)
    window_after, window_after_interval = grouped_calibration_error(*windows_after, clips)
    return CalibrationErrors(
        ece=clips_after.ece,
        ece_interval=clips_after.ece_interval,
        ece_before=clips_before.ece,
        ece_before_interval=clips_before.ece_interval,
        window_ece=window_after,
        window_ece_interval=window_after_interval,
        window_ece_before=window_before,
        window_ece_before_interval=window_before_interval,
    )


def error_lines(found: CalibrationErrors) -> list[str]:
    """Return the lines of text on calibration errors."""
    return [
        "calibration error (ECE), with its 95 % interval:",
        f"  of clips: {found.ece:.3f} ({span(found.ece_interval)}), before the temperature "
        f"{found.ece_before:.3f} ({span(found.ece_before_interval)})",
        f"  of windows: {found.window_ece:.3f} ({span(found.window_ece_interval)}), before the temperature "
        f"{found.window_ece_before:.3f} ({span(found.window_ece_before_interval)})",
    ]


def span(interval: Interval) -> str:
    """Format an interval."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
