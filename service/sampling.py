"""Video facts + the model's sampling + options -> the plan of units and windows. Pure integers, no I/O."""

from itertools import pairwise

from models.contract import Sampling
from service.errors import MalformedOption
from service.plan import Grid, Plan
from service.values import NS_PER_S, Options, Sliding, VideoFacts, WholeVideo

_LAGS_PER_FRAME = 60


def check_options(sampling: Sampling, options: Options) -> None:
    """What can be said of the options before the video is there.

    Raises:
        MalformedOption: a range, window or stride that no video or not this model can have.
    """
    if isinstance(options.windowing, Sliding):
        _check_sliding(*_lengths(options.windowing, sampling), sampling)
    ranges = sorted(options.ranges_ns)
    for start, end in ranges:
        if not 0 <= start < end:
            raise MalformedOption(
                f"time range [{_s(start)}, {_s(end)}) s is empty or negative", field="ranges"
            )
    for (_, before), (after, _) in pairwise(ranges):
        if after < before:
            raise MalformedOption(
                f"time ranges overlap: one ends at {_s(before)} s, the next starts at {_s(after)} s",
                field="ranges",
            )


def make_plan(facts: VideoFacts, sampling: Sampling, options: Options) -> Plan:
    """The grids over every range asked for, in the order of time; the options were checked.

    A range shorter than a window gets one window that is as short as the range.

    Raises:
        MalformedOption: a range that starts after the video's end.
    """
    ranges = _ranges(facts.duration_ns, options.ranges_ns)
    lag_ns = _lag_ns(facts.fps) if sampling.position == "start" else None
    match options.windowing:
        case WholeVideo():
            return Plan(tuple(_whole(start, end, sampling, lag_ns) for start, end in ranges))
        case Sliding() as sliding:
            window, stride = _lengths(sliding, sampling)
            return Plan(
                tuple(_sliding(start, end, window, stride, sampling, lag_ns) for start, end in ranges)
            )


def _ranges(duration_ns: int, wanted: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    for start, end in wanted:
        if start >= duration_ns:
            raise MalformedOption(
                f"time range [{_s(start)}, {_s(end)}) s starts after the video's end at {_s(duration_ns)} s",
                field="ranges",
                limit=_s(duration_ns),
                value=_s(start),
            )
    return sorted((start, min(end, duration_ns)) for start, end in wanted) or [(0, duration_ns)]


def _lengths(sliding: Sliding, sampling: Sampling) -> tuple[int, int]:
    window = _to_ns(sampling.window_s) if sliding.window_ns is None else sliding.window_ns
    default = round(window * sampling.stride_s / sampling.window_s)
    return window, default if sliding.stride_ns is None else sliding.stride_ns


def _lag_ns(fps: float) -> int:
    """How long after it is due a frame is surely shown: containers round time stamps, to 1 ms at worst."""
    return round(NS_PER_S / fps / _LAGS_PER_FRAME) if fps > 0 else 0


def _whole(start: int, end: int, sampling: Sampling, lag_ns: int | None) -> Grid:
    views = -(-(end - start) // _to_ns(sampling.max_window_s))
    return Grid(
        start_ns=start,
        end_ns=end,
        window_ns=(end - start) // views,
        frames_per_unit=sampling.frames_per_unit,
        units_per_window=sampling.units_per_window,
        stride_units=sampling.units_per_window,
        one_segment=True,
        lag_ns=lag_ns,
    )


def _sliding(
    start: int, end: int, window_ns: int, stride_ns: int, sampling: Sampling, lag_ns: int | None
) -> Grid:
    # A stride of a whole number of units lets overlapping windows share them.
    stride_units = round(stride_ns * sampling.units_per_window / window_ns)
    return Grid(
        start_ns=start,
        end_ns=end,
        window_ns=min(window_ns, end - start),
        frames_per_unit=sampling.frames_per_unit,
        units_per_window=sampling.units_per_window,
        stride_units=min(max(stride_units, 1), sampling.units_per_window),
        lag_ns=lag_ns,
    )


def _check_sliding(window_ns: int, stride_ns: int, sampling: Sampling) -> None:
    shortest, longest = _to_ns(sampling.min_window_s), _to_ns(sampling.max_window_s)
    if not shortest <= window_ns <= longest:
        raise MalformedOption(
            f"window of {_s(window_ns)} s is outside the model's {_s(shortest)} to {_s(longest)} s",
            field="sliding.window",
            limit=f"{_s(shortest)}..{_s(longest)}",
            value=_s(window_ns),
        )
    if not 0 < stride_ns <= window_ns:
        raise MalformedOption(
            f"stride of {_s(stride_ns)} s is outside 0 to the window's {_s(window_ns)} s",
            field="sliding.stride",
            limit=_s(window_ns),
            value=_s(stride_ns),
        )


def _to_ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _s(ns: int) -> str:
    return f"{ns / NS_PER_S:g}"
