"""The check of a worker's thumbnails, before clients get them: a hijacked worker could send anything.

Nothing is decoded here: a JPEG's header says how large its picture is (ITU-T T.81, annex B).
"""

from collections.abc import Sequence
from itertools import pairwise

from tubelet.service.decode.protocol import ProtocolError
from tubelet.service.types.video import MAX_THUMBNAIL_BYTES, MAX_THUMBNAIL_SIDE, Thumbnail

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAME = 0xC0  # the marker of the header of a baseline picture
_SKIPPED = (0xDB, 0xC4, *range(0xE0, 0xF0))  # tables and application data, which may precede it


def check_thumbnails(thumbnails: Sequence[Thumbnail], limit: int) -> None:
    """Check that there are at most ``limit`` thumbnails, in the order of time, each a small JPEG.

    Raises:
        ProtocolError: there are too many, or one is too large or not what it claims to be.
    """
    if len(thumbnails) > limit:
        raise ProtocolError(f"got {len(thumbnails)} thumbnails; at most {limit} were asked for")
    if any(after.time_ns <= before.time_ns for before, after in pairwise(thumbnails)):
        raise ProtocolError("thumbnails are not in the order of time")
    for thumbnail in thumbnails:
        size = thumbnail.width, thumbnail.height
        if len(thumbnail.jpeg) > MAX_THUMBNAIL_BYTES or max(size) > MAX_THUMBNAIL_SIDE:
            raise ProtocolError(f"a thumbnail of {len(thumbnail.jpeg)} bytes is too large: {thumbnail}")
        if _jpeg_size(thumbnail.jpeg) != size:
            raise ProtocolError(f"a thumbnail is no JPEG of its size: {thumbnail}")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) of a baseline JPEG; None if ``data`` is something else."""
    if not (data.startswith(_START) and data.endswith(_END)):
        return None
    start = len(_START)
    while data[start : start + 1] == b"\xff" and start + 9 <= len(data):
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4])
        if marker == _FRAME:
            height, width = (int.from_bytes(data[start + at : start + at + 2]) for at in (5, 7))
            return width, height
        if marker not in _SKIPPED:
            return None
        start += 2 + length
    return None
