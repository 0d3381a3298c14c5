"""The order and the times of the requests for frames, where key frames near by are used instead."""

from fractions import Fraction

import pytest

from tubelet.service.decode.demux.packet_stats import KeyFrame, KnownKeyFrames
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.frames.unit_assembler import KeyFrameSnap, frame_requests
from tubelet.service.types.plan import Plan, SamplingGrid

MS = 10**6


@pytest.mark.parametrize(
    "offset_ns", [None, 5 * MS]
)  # in the middle of its part of the window, or at its start
def test_key_frames_keep_requests_in_order_and_in_their_range(offset_ns: int | None) -> None:
    """The second range has frames further apart than the first, and key frames right before it are near."""
    dense = SamplingGrid(1000 * MS, 2000 * MS, 1000 * MS, 2, 5, 5, frame_offset_ns=offset_ns)
    sparse = SamplingGrid(2000 * MS, 6000 * MS, 4000 * MS, 2, 2, 2, frame_offset_ns=offset_ns)
    plan = Plan((dense, sparse))
    keys = KnownKeyFrames(KeyFrame(pts, pts, pts) for pts in (970, 1430, 1700, 1960, 3300, 6010))
    snap = KeyFrameSnap(keys, Timeline(Fraction(1, 1000), 0, 40, timed=True))
    requests = list(frame_requests(lambda: plan, snap))
    assert requests == sorted(requests)
    assert len(requests) == 14
    for request in requests:
        grid = plan.grids[request.grid]
        assert grid.start_ns <= request.time_ns < grid.end_ns
    moved = {each.time_ns for each in requests} & {1430 * MS, 1700 * MS, 3300 * MS}
    assert moved == {1430 * MS, 1700 * MS, 3300 * MS}
    assert snap.max_offset_ns > 0
