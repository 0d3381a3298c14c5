"""The choice of the frames that become thumbnails, spread evenly over the frames that a plan asks for."""

from collections.abc import Callable
from math import ceil, floor, log2

from av.video.frame import VideoFrame

from tubelet.service.types.video import Thumbnail

_FEWEST_KEPT = 16  # or more, so that a single thumbnail is of the middle of a video, not of its start


class ThumbnailSampler:
    """A sampler that makes at most ``limit`` thumbnails of the frames that it is offered, in order.

    ``num_frames`` is how many frames are expected; 0 if nobody knows. It may be wrong: sampling begins dense,
    and whenever too many thumbnails are kept, every second one is dropped and the spacing doubled. So memory
    does not grow, and ``limit`` frames or more give at least half of ``limit``. If it is right, the last
    doubling leaves exactly ``limit``.
    """

    def __init__(
        self, limit: int, num_frames: int, encode: Callable[[VideoFrame, int], Thumbnail | None]
    ) -> None:
        self._limit = limit
        self._most_kept = limit * ceil(_FEWEST_KEPT / max(1, limit))
        self._encode = encode
        last_spacing = max(1.0, num_frames / max(1, self._most_kept))
        self._spacing = last_spacing / 2 ** floor(log2(last_spacing))  # in frames
        self._next = 0  # times the spacing; the first frame may be the only one
        self._offered = 0
        self._is_taken = False  # the current frame, as a thumbnail
        self._kept: list[Thumbnail] = []

    @property
    def thumbnails(self) -> tuple[Thumbnail, ...]:
        """The thumbnails, in the order of time: each is in the middle of its part of those that were kept."""
        kept = len(self._kept)
        number = min(self._limit, kept)
        return tuple(self._kept[(2 * part + 1) * kept // (2 * number)] for part in range(number))

    def next_frame(self) -> None:
        """Record that another frame is offered from now on."""
        self._is_taken = False

    def offer(self, frame: VideoFrame, time_ns: int) -> None:
        """Make a thumbnail of ``frame``, which is requested for ``time_ns``, if the spacing is reached.

        A frame that is requested several times becomes one thumbnail at most.
        """
        if self._limit == 0:
            return
        number, self._offered = self._offered, self._offered + 1
        if number < self._next * self._spacing or self._is_taken:
            return
        self._is_taken = True
        thumbnail = self._encode(frame, time_ns)
        if thumbnail is None:
            return
        self._kept.append(thumbnail)
        if len(self._kept) > self._most_kept:
            del self._kept[1::2]
            self._spacing *= 2
            self._next //= 2
        self._next = max(self._next, floor(number / self._spacing)) + 1
