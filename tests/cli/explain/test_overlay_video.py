"""The map of each time over the picture of that time."""

import numpy as np

from tests.support.segment_maps import segment_map
from tubelet.service.cli.explain.overlay_video import MapPainter
from tubelet.service.report.maps.tracks import map_track
from tubelet.service.types.explanation import MapQuestion
from tubelet.service.types.video import NS_PER_S, Rectangle

GREY = np.full((20, 40, 3), 120, np.uint8)


def test_each_picture_has_the_map_of_its_time() -> None:
    values = np.zeros((4, 2, 4))
    for step in range(4):
        values[step, step % 2, step] = 1
    found = segment_map(
        1, 2, steps=4, values=values, rectangle=Rectangle(0, 0, 1, 1)
    )  # steps 2 and 3 are in it
    painter = MapPainter(map_track([found], MapQuestion("relevance")))
    for time_s, step in ((1.0, 2), (1.2, 2), (1.75, 3), (1.49, 2)):
        rows, columns = np.nonzero(np.ptp(painter(GREY, round(time_s * NS_PER_S)).astype(int), axis=2))
        assert (rows.min(), rows.max()) == (step % 2 * 10, step % 2 * 10 + 9), time_s
        assert (columns.min(), columns.max()) == (step * 10, step * 10 + 9), time_s


def test_a_time_without_a_map_has_the_picture_as_it_is() -> None:
    painter = MapPainter(map_track([segment_map(1, 2, steps=4)], MapQuestion("relevance")))
    assert (painter(GREY, 0) == GREY).all()
    assert (painter(GREY, 2 * NS_PER_S) == GREY).all()
