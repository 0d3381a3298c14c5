"""Which of the frames become thumbnails, whether their number was known or not."""

from itertools import pairwise
from typing import Any

import pytest

from tubelet.service.decode.frames.thumbnail_sampler import ThumbnailSampler
from tubelet.service.types.video import Thumbnail

_NO_FRAME: Any = None  # the sampler only passes frames on


def _encode(frame: Any, time_ns: int) -> Thumbnail:
    return Thumbnail(time_ns, 1, 1, b"")


def _sample(limit: int, expected: int, frames: int, requests_each: int = 1) -> list[int]:
    """Offer ``frames`` frames, each for some requests in a row; return the numbers of those taken."""
    sampler = ThumbnailSampler(limit, expected, _encode)
    for number in range(frames):
        sampler.next_frame()
        for _ in range(requests_each):
            sampler.offer(_NO_FRAME, number)
    return [thumbnail.time_ns for thumbnail in sampler.thumbnails]


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 59, 60])
@pytest.mark.parametrize("frames", [1, 2, 16, 60, 61, 80, 400, 3001, 60_000])
def test_known_number_of_frames_gives_exactly_the_limit_evenly(limit: int, frames: int) -> None:
    taken = _sample(limit, frames, frames)
    assert len(taken) == min(limit, frames)
    assert taken == sorted(set(taken))
    spacing = frames / len(taken)
    assert all(abs(after - before - spacing) <= 1 + spacing / 8 for before, after in pairwise(taken))
    assert taken[0] <= spacing
    assert taken[-1] >= frames - 2 * spacing


@pytest.mark.parametrize("limit", [1, 5, 60])
@pytest.mark.parametrize("expected", [0, 1, 100, 10**9])
@pytest.mark.parametrize("frames", [1, 30, 61, 500, 50_000])
def test_unknown_number_of_frames_gives_at_least_half_over_all_of_them(
    limit: int, expected: int, frames: int
) -> None:
    taken = _sample(limit, expected, frames)
    assert min(limit, frames) / 2 <= len(taken) <= limit
    gaps = [after - before for before, after in pairwise([-1, *taken, frames])]
    assert max(gaps) <= 2 * frames / len(taken) + 2


def test_single_thumbnail_is_from_the_middle() -> None:
    assert all(0.3 < _sample(1, expected, 1000)[0] / 1000 < 0.7 for expected in (0, 1000, 5000))


def test_frame_that_serves_many_requests_is_one_thumbnail() -> None:
    assert _sample(60, 500, 1, requests_each=500) == [0]
    assert _sample(60, 500, 5, requests_each=100) == [0, 1, 2, 3, 4]


def test_frames_are_not_encoded_unless_they_are_wanted() -> None:
    encoded: list[int] = []

    def count(frame: Any, time_ns: int) -> Thumbnail | None:
        encoded.append(time_ns)
        return None if time_ns % 2 else _encode(frame, time_ns)

    none, few = ThumbnailSampler(0, 100, count), ThumbnailSampler(20, 100_000, count)
    for number in range(100):
        none.next_frame()
        none.offer(_NO_FRAME, number)
    assert (encoded, none.thumbnails) == ([], ())
    for number in range(100_000):
        few.next_frame()
        few.offer(_NO_FRAME, number)
    assert 20 <= len(encoded) < 400
    assert all(thumbnail.time_ns % 2 == 0 for thumbnail in few.thumbnails)
