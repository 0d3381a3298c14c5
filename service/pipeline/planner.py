"""Planning: metadata, the model's sampling and options become a plan. Integer arithmetic, without I/O."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from tubelet.models.spec import Preprocessing, Sampling
from tubelet.service.errors import MalformedOption
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.request import Options, Sliding, Views, WholeVideo
from tubelet.service.types.video import CROPS, MAX_THUMBNAILS, NS_PER_S, Crop, VideoMetadata, to_ns

_MAX_CLIPS = 30  # no paper uses more
_MAX_VIEWS = 10_000  # of all ranges together; each is a grid of the plan
_UNNOTICED = 0.01  # part of a stride by which rounding may change it without a warning
_LAG_NS = 600_000  # after its time, a frame is shown for certain: timestamps are rounded to 1 ms at worst
_CROPS: dict[int, tuple[Crop, ...]] = {1: ("centre",), 3: CROPS}


def check_options(sampling: Sampling, preprocessing: Preprocessing, options: Options) -> None:
    """Check all that can be checked of ``options`` before the video is known.

    Raises:
        MalformedOption: a range, window, stride, view or number of thumbnails is not possible for any video,
            or for this model.
    """
    if not 0 <= options.thumbnails <= MAX_THUMBNAILS:
        raise MalformedOption(
            f"{options.thumbnails} thumbnails were requested; 0 to {MAX_THUMBNAILS} are possible",
            field="thumbnails",
            limit=MAX_THUMBNAILS,
            value=options.thumbnails,
        )
    match options.windowing:
        case Sliding() as sliding:
            _check_sliding(*_lengths(sliding, sampling), sampling)
        case Views() as views:
            _check_views(views, max(1, len(options.ranges_ns)), preprocessing)
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


def make_plan(metadata: VideoMetadata, sampling: Sampling, options: Options) -> Plan:
    """Plan the grids of all requested ranges, in the order of time; ``check_options`` has been called.

    A range that is shorter than a window gets a single window of the range's length.

    Raises:
        MalformedOption: a range starts after the end of the video.
    """
    ranges = _ranges(metadata.duration_ns, options.ranges_ns)
    return Plan(tuple(_with_frame_offset(grid, sampling) for grid in _grids(ranges, sampling, options)))


def stride_warnings(duration_ns: int, sampling: Sampling, options: Options) -> tuple[str, ...]:
    """Return a warning if the requested stride was rounded to a whole number of units by more than 1 %.

    There is none if all ranges are shorter than a window, since the stride makes no difference then.
    """
    sliding = options.windowing
    if not isinstance(sliding, Sliding) or sliding.stride_ns is None:
        return ()
    window, stride = _lengths(sliding, sampling)
    units = sampling.units_per_window
    used = round(_stride_units(window, stride, units) * window / units)
    is_used = any(end - start > window for start, end in _ranges(duration_ns, options.ranges_ns))
    if not is_used or abs(used - stride) <= _UNNOTICED * stride:
        return ()
    return (
        f"the stride of {_s(stride)} s was rounded to {_s(used)} s: "
        f"it is a whole number of the model's units, which are {_s(round(window / units))} s long",
    )


def can_plan_before_end(options: Options) -> bool:
    """Whether frames can be planned before the end of the video and its key frames are known."""
    return isinstance(options.windowing, Sliding) and not options.ranges_ns and not options.fast


def make_unbounded_plan(max_duration_ns: int, sampling: Sampling, options: Options) -> Plan:
    """Plan a video whose end is not known, but which is at most ``max_duration_ns`` long.

    Cut to the end of a video that is at least one window long, it equals the plan of ``make_plan``.
    """
    assert isinstance(options.windowing, Sliding)
    window, stride = _lengths(options.windowing, sampling)
    grid = _sliding(0, max(max_duration_ns, window), window, stride, sampling)
    return Plan((_with_frame_offset(grid, sampling),), is_unbounded=True)


def _with_frame_offset(grid: SamplingGrid, sampling: Sampling) -> SamplingGrid:
    return replace(grid, frame_offset_ns=_LAG_NS if sampling.position == "start" else None)


def _grids(ranges: list[tuple[int, int]], sampling: Sampling, options: Options) -> Iterator[SamplingGrid]:
    match options.windowing:
        case WholeVideo():
            yield from (_whole(start, end, sampling) for start, end in ranges)
        case Sliding() as sliding:
            window, stride = _lengths(sliding, sampling)
            yield from (_sliding(start, end, window, stride, sampling) for start, end in ranges)
        case Views() as views:
            for start, end in ranges:
                yield from _views(start, end, views, sampling)


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
    window = to_ns(sampling.window_s) if sliding.window_ns is None else sliding.window_ns
    default = round(window * sampling.stride_s / sampling.window_s)
    return window, default if sliding.stride_ns is None else sliding.stride_ns


def _whole(start: int, end: int, sampling: Sampling) -> SamplingGrid:
    views = -(-(end - start) // to_ns(sampling.max_window_s))
    return SamplingGrid(
        start_ns=start,
        end_ns=end,
        window_ns=(end - start) // views,
        frames_per_unit=sampling.frames_per_unit,
        units_per_window=sampling.units_per_window,
        stride_units=sampling.units_per_window,
        one_segment=True,
    )


def _sliding(start: int, end: int, window_ns: int, stride_ns: int, sampling: Sampling) -> SamplingGrid:
    units = sampling.units_per_window
    fitting_ns = min(window_ns, end - start)
    # With a stride of whole units, overlapping windows share units. In a range of a few nanoseconds, it
    # is at least one nanosecond, so that no segment is empty.
    stride_units = max(_stride_units(window_ns, stride_ns, units), -(-units // fitting_ns))
    return SamplingGrid(
        start_ns=start,
        end_ns=end,
        window_ns=fitting_ns,
        frames_per_unit=sampling.frames_per_unit,
        units_per_window=units,
        stride_units=min(stride_units, units),
    )


def _stride_units(window_ns: int, stride_ns: int, units: int) -> int:
    return max(1, round(stride_ns * units / window_ns))


def _views(start: int, end: int, views: Views, sampling: Sampling) -> Iterator[SamplingGrid]:
    window_ns = min(to_ns(sampling.window_s), end - start)
    for view_ns in _spread(start, end - window_ns, views.clips):
        for crop in _CROPS[views.crops]:
            yield SamplingGrid(
                start_ns=start,
                end_ns=end,
                window_ns=window_ns,
                frames_per_unit=sampling.frames_per_unit,
                units_per_window=sampling.units_per_window,
                stride_units=sampling.units_per_window,
                one_segment=True,
                view_ns=view_ns,
                crop=crop,
            )


def _spread(first: int, last: int, number: int) -> list[int]:
    """Return ``number`` distinct values evenly from ``first`` to ``last``; a single one is in the middle."""
    if number == 1:
        return [(first + last) // 2]
    return sorted({first + index * (last - first) // (number - 1) for index in range(number)})


def _check_views(views: Views, num_ranges: int, preprocessing: Preprocessing) -> None:
    if not 1 <= views.clips <= _MAX_CLIPS:
        raise MalformedOption(
            f"{views.clips} clips were requested; 1 to {_MAX_CLIPS} are possible",
            field="views.clips",
            limit=f"1..{_MAX_CLIPS}",
            value=views.clips,
        )
    if views.crops not in _CROPS:
        raise MalformedOption(
            f"{views.crops} crops were requested; 1 or 3 are possible",
            field="views.crops",
            limit="1, 3",
            value=views.crops,
        )
    resized = (preprocessing.resize_height, preprocessing.resize_width)
    kept = (preprocessing.height, preprocessing.width)
    has_margin = any(side not in (None, own) for side, own in zip(resized, kept, strict=True))
    if views.crops > 1 and preprocessing.resize == "stretch" and not has_margin:
        raise MalformedOption(
            f"{views.crops} crops are not possible: this model sees the whole picture, stretched",
            field="views.crops",
            limit=1,
            value=views.crops,
        )
    num_views = num_ranges * views.clips * views.crops
    if num_views > _MAX_VIEWS:
        raise MalformedOption(
            f"{views.clips} clips x {views.crops} crops of {num_ranges} ranges are {num_views} views; "
            f"the limit is {_MAX_VIEWS}",
            field="views",
            limit=_MAX_VIEWS,
            value=num_views,
        )


def _check_sliding(window_ns: int, stride_ns: int, sampling: Sampling) -> None:
    shortest, longest = to_ns(sampling.min_window_s), to_ns(sampling.max_window_s)
    if not shortest <= window_ns <= longest:
        raise MalformedOption(
            f"the window is {_s(window_ns)} s; this model takes {_s(shortest)} to {_s(longest)} s",
            field="sliding.window",
            limit=f"{_s(shortest)}..{_s(longest)}",
            value=_s(window_ns),
        )
    if not 0 < stride_ns <= window_ns:
        raise MalformedOption(
            f"the stride is {_s(stride_ns)} s; it must be above 0 and at most the window's {_s(window_ns)} s",
            field="sliding.stride",
            limit=_s(window_ns),
            value=_s(stride_ns),
        )


def _s(ns: int) -> str:
    return f"{ns / NS_PER_S:g}"
