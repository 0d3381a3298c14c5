"""The check of thumbnails from a worker that may have been hijacked."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tubelet.service.decode.pool.thumbnail_check import check_thumbnails
from tubelet.service.decode.protocol import ProtocolError
from tubelet.service.types.video import MAX_THUMBNAIL_BYTES, Thumbnail


def _jpeg(width: int, height: int, mode: str = "RGB", kind: str = "JPEG", **options: object) -> bytes:
    file = BytesIO()
    Image.new(mode, (width, height), "red" if mode == "RGB" else None).save(file, kind, **options)
    return file.getvalue()


_GOOD = Thumbnail(5, 160, 90, _jpeg(160, 90))


@pytest.mark.parametrize(
    "thumbnails",
    [
        (),
        (_GOOD,),
        (_GOOD, replace(_GOOD, time_ns=6), Thumbnail(7, 1, 1, _jpeg(1, 1))),
        (Thumbnail(0, 90, 160, _jpeg(90, 160, quality=10)),),
        (Thumbnail(0, 90, 160, _jpeg(90, 160, "L", exif=b"Exif\0\0")),),
    ],
)
def test_thumbnails_as_a_worker_makes_them_are_accepted(thumbnails: tuple[Thumbnail, ...]) -> None:
    check_thumbnails(thumbnails, 3)


@pytest.mark.parametrize(
    ("thumbnails", "message"),
    [
        ((_GOOD, replace(_GOOD, time_ns=6), replace(_GOOD, time_ns=7)), "got 3 thumbnails; at most 2"),
        ((_GOOD, _GOOD), "order of time"),
        ((_GOOD, replace(_GOOD, time_ns=4)), "order of time"),
        ((Thumbnail(0, 161, 90, _jpeg(161, 90)),), "too large"),
        ((replace(_GOOD, jpeg=_GOOD.jpeg + b"\xff\xd9" * MAX_THUMBNAIL_BYTES),), "too large"),
        ((Thumbnail(0, 90, 160, _GOOD.jpeg),), "no JPEG of its size"),
        ((Thumbnail(0, 8, 8, _jpeg(60_000, 8)),), "no JPEG of its size"),
        ((replace(_GOOD, jpeg=_jpeg(160, 90, kind="PNG")),), "no JPEG of its size"),
        ((replace(_GOOD, jpeg=_jpeg(160, 90, progressive=True)),), "no JPEG of its size"),
        ((replace(_GOOD, jpeg=b""),), "no JPEG of its size"),
        ((replace(_GOOD, jpeg=b"<script>"),), "no JPEG of its size"),
        ((replace(_GOOD, jpeg=_GOOD.jpeg[:100] + b"\xff\xd9"),), "no JPEG of its size"),
    ],
)
def test_other_thumbnails_violate_the_protocol(thumbnails: tuple[Thumbnail, ...], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        check_thumbnails(thumbnails, 2)


def test_damaged_headers_are_never_an_error_of_another_kind() -> None:
    chance = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(_GOOD.jpeg[:400])
        for at in chance.integers(0, len(damaged), 5):
            damaged[at] = chance.integers(256)
        cut = bytes(damaged[: chance.integers(len(damaged))])
        for jpeg in (cut, cut + b"\xff\xd9"):
            try:
                check_thumbnails((replace(_GOOD, jpeg=jpeg),), 1)
            except ProtocolError:
                continue
            assert jpeg.startswith(b"\xff\xd8")
