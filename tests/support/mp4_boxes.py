"""Editing the boxes of an mp4 or mov file (ISO 14496-12): a size, a name, then other boxes or bytes."""

import struct
from collections.abc import Callable, Iterator


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that lie beside each other in ``data``: name, body. Only those of 32-bit sizes are known."""
    while data:
        size, name = struct.unpack_from(">I4s", data)
        assert size >= 8
        yield name, data[8:size]
        data = data[size:]


def edited(data: bytes, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """Each box at ``path``, such as ``moov/trak``, replaced by what ``change`` makes of the whole of it.

    The boxes around it get their new sizes; nothing moves as long as they lie behind the media data.
    """
    name, _, rest = path.partition("/")
    return b"".join(
        box(found, body)
        if found != name.encode()
        else box(found, edited(body, rest, change))
        if rest
        else change(box(found, body))
        for found, body in boxes(data)
    )


def with_in_entry(data: bytes, added: bytes) -> bytes:
    """A file with the movie box behind the media data: this box at the end of the first sample entry."""

    def change(stsd: bytes) -> bytes:
        (name, entry), *others = boxes(stsd[16:])
        entries = [box(name, entry + added), *(box(*other) for other in others)]
        return box(b"stsd", stsd[8:16] + b"".join(entries))

    return edited(data, "moov/trak/mdia/minf/stbl/stsd", change)


def samples_reversed(data: bytes) -> bytes:
    """A file of one track, with the movie box in front: the same samples, the last one first."""
    media = data.index(b"mdat") + 4
    sizes = _sizes(_inside(data, "moov/trak/mdia/minf/stbl/stsz"))
    ends = [media + sum(sizes[: number + 1]) for number in range(len(sizes))]
    samples = [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    # One sample a chunk.
    stsc = box(b"stsc", struct.pack(">5I", 0, 1, 1, 1, 1))
    path = "moov/trak/mdia/minf/stbl"
    indexed = edited(edited(data, f"{path}/stsc", lambda _: stsc), f"{path}/stco", lambda _: _stco(sizes, 0))
    media = indexed.index(b"mdat") + 4
    indexed = edited(indexed, f"{path}/stco", lambda _: _stco(sizes, media))
    return indexed[:media] + b"".join(reversed(samples))


def _stco(sizes: list[int], media: int) -> bytes:
    """Where each sample begins, the last one at ``media``."""
    places = [media + sum(sizes[number + 1 :]) for number in range(len(sizes))]
    return box(b"stco", struct.pack(f">{2 + len(places)}I", 0, len(places), *places))


def _sizes(stsz: bytes) -> list[int]:
    return list(struct.unpack(f">{len(stsz) // 4 - 3}I", stsz[12:]))


def _inside(data: bytes, path: str) -> bytes:
    name, _, rest = path.partition("/")
    body = dict(boxes(data))[name.encode()]
    return _inside(body, rest) if rest else body
