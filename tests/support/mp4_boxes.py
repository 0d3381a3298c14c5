"""Editing of boxes in mp4 and mov files (ISO 14496-12): a size, a name, then other boxes or bytes."""

import struct
from collections.abc import Callable, Iterator


def box(name: bytes, body: bytes) -> bytes:
    """Return a box with this name and body."""
    return struct.pack(">I4s", 8 + len(body), name) + body


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and body of each top-level box in ``data``, whose sizes must have 32 bits."""
    while data:
        size, name = struct.unpack_from(">I4s", data)
        assert size >= 8
        yield name, data[8:size]
        data = data[size:]


def edit_boxes(data: bytes, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """Replace each box at ``path``, such as ``moov/trak``, by what ``change`` returns for the whole box.

    The boxes around it get new sizes. Media data keeps its offset if it lies before the edited box.
    """
    name, _, rest = path.partition("/")
    return b"".join(
        box(found, body)
        if found != name.encode()
        else box(found, edit_boxes(body, rest, change))
        if rest
        else change(box(found, body))
        for found, body in boxes(data)
    )


def add_to_sample_entry(data: bytes, added: bytes) -> bytes:
    """Append the box ``added`` to the first sample entry; the movie box must follow the media data."""

    def change(stsd: bytes) -> bytes:
        (name, entry), *others = boxes(stsd[16:])
        entries = [box(name, entry + added), *(box(*other) for other in others)]
        return box(b"stsd", stsd[8:16] + b"".join(entries))

    return edit_boxes(data, "moov/trak/mdia/minf/stbl/stsd", change)


def reverse_samples(data: bytes) -> bytes:
    """Store the samples of a one-track file in reverse order; the movie box must come first."""
    media = data.index(b"mdat") + 4
    sizes = _sizes(_inside(data, "moov/trak/mdia/minf/stbl/stsz"))
    ends = [media + sum(sizes[: number + 1]) for number in range(len(sizes))]
    samples = [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    # One sample in each chunk.
    stsc = box(b"stsc", struct.pack(">5I", 0, 1, 1, 1, 1))
    path = "moov/trak/mdia/minf/stbl"
    indexed = edit_boxes(
        edit_boxes(data, f"{path}/stsc", lambda _: stsc), f"{path}/stco", lambda _: _stco(sizes, 0)
    )
    media = indexed.index(b"mdat") + 4
    indexed = edit_boxes(indexed, f"{path}/stco", lambda _: _stco(sizes, media))
    return indexed[:media] + b"".join(reversed(samples))


def _stco(sizes: list[int], media: int) -> bytes:
    """Return a stco box of reversed samples, the last of which begins at ``media``."""
    places = [media + sum(sizes[number + 1 :]) for number in range(len(sizes))]
    return box(b"stco", struct.pack(f">{2 + len(places)}I", 0, len(places), *places))


def _sizes(stsz: bytes) -> list[int]:
    return list(struct.unpack(f">{len(stsz) // 4 - 3}I", stsz[12:]))


def _inside(data: bytes, path: str) -> bytes:
    name, _, rest = path.partition("/")
    body = dict(boxes(data))[name.encode()]
    return _inside(body, rest) if rest else body
