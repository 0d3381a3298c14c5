"""Tracks: which map of which segment is shown when, and on which scale."""

import numpy as np
import pytest

from tests.support.segment_maps import RECTANGLE, segment_map
from tubelet.service.report.maps.tracks import difference, map_track
from tubelet.service.types.explanation import MapQuestion
from tubelet.service.types.video import NS_PER_S

QUESTION = MapQuestion("relevance")
HALF_NS = NS_PER_S // 2


def test_each_time_has_the_map_of_its_own_segment() -> None:
    # Both maps cover 0 to 3 s, in steps of half a second; segments are 0 to 1 s, and 1 to 3 s.
    early, late = segment_map(0, 1, steps=6, label="a"), segment_map(1, 3, steps=6, label="b", seed=1)
    track = map_track([early, late], QUESTION)
    assert track.start_ns.tolist() == [step * HALF_NS for step in range(6)]
    assert track.end_ns.tolist() == [(step + 1) * HALF_NS for step in range(6)]
    assert track.labels == ("a",) * 2 + ("b",) * 4
    np.testing.assert_allclose(track.patches[:2], early.map[:2] * early.map.size, rtol=1e-6)
    np.testing.assert_allclose(track.patches[2:], late.map[2:] * late.map.size, rtol=1e-6)
    assert track.rectangle == RECTANGLE


def test_a_step_across_the_end_of_a_segment_is_cut_there() -> None:
    track = map_track([segment_map(0, 0.75, steps=2), segment_map(0.75, 1, steps=2)], QUESTION)
    assert (track.start_ns / NS_PER_S).tolist() == [0, 0.5, 0.75]
    assert (track.end_ns / NS_PER_S).tolist() == [0.5, 0.75, 1]


def test_the_last_step_is_shown_to_the_end_of_its_segment() -> None:
    track = map_track([segment_map(0, 1.2, steps=2)], QUESTION)
    assert track.end_ns[-1] == 1_200_000_000
    assert [track.step_at(round(s * NS_PER_S)) for s in (0, 0.49, 0.5, 1.19, 1.2)] == [0, 0, 1, 1, None]


def test_an_even_map_has_the_same_number_everywhere() -> None:
    even = segment_map(0, 2, steps=4, values=np.ones((4, 3, 2)))
    track = map_track([even], QUESTION)
    assert track.patches == pytest.approx(0.9, abs=1e-5)  # a tenth is on no patch
    assert track.over_time == pytest.approx(0.9, abs=1e-5)
    assert track.most == 3  # so that it has no strong colours


def test_a_map_of_nothing_has_a_scale() -> None:
    track = map_track([segment_map(0, 1, steps=2, values=np.zeros((2, 3, 2)))], QUESTION)
    assert track.most == 3
    assert track.on_no_patch.tolist() == [1, 1]


def test_a_difference_is_positive_where_the_first_label_has_more() -> None:
    first, second = np.zeros((2, 3, 2)), np.zeros((2, 3, 2))
    first[0, 1, 0] = second[1, 2, 1] = 1
    tracks = [
        map_track([segment_map(0, 1, steps=2, values=values)], MapQuestion("relevance", label, other))
        for values, label, other in ((first, "a", "b"), (second, "b", "a"))
    ]
    found = difference(*tracks)
    assert found.scale == "difference"
    assert (found.question.label, found.question.against) == ("a", "b")
    assert (np.sign(found.patches) == first - second).all()
    assert found.most == pytest.approx(0.9 * 12)


def test_the_scale_is_not_that_of_a_single_patch() -> None:
    values = np.ones((50, 10, 10))
    values[0, 0, 0] = 1000
    track = map_track([segment_map(0, 25, steps=50, values=values)], QUESTION)
    assert track.most == 3
