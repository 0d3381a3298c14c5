"""Broken videos out of sound ones: seeded, so that each can be made again."""

import struct
from collections.abc import Callable
from random import Random

Mutator = Callable[[bytearray, Random], None]

_EXTREMES = {
    1: (0, 1, 0x7F, 0x80, 0xFF),
    2: (0, 1, 0x7FFF, 0xFFFF),
    4: (0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF),
    8: (0, 1, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF),
}
_BOXES = (
    b"moov trak mdia minf stbl stsd stts ctts stsc stsz stco co64 stss",
    b"mdhd mvhd tkhd elst avcC hvcC esds moof traf trun",
)
_EBML_SIZES = (0x80, 0x81, 0xFE, 0xFF)  # 0, 1, 126 and "unknown", in one byte
_MOST = 64


def mutant(clips: list[bytes], seed: int) -> bytes:
    """One of them with one to four things wrong."""
    chance = Random(seed)
    data = bytearray(chance.choice(clips))
    if chance.random() < 0.1:
        data = _spliced(data, chance.choice(clips), chance)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if data:
            chance.choice(_MUTATORS)(data, chance)
    return bytes(data)


def _spliced(data: bytearray, other: bytes, chance: Random) -> bytearray:
    """The head of one and the tail of another."""
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def _flip_bits(data: bytearray, chance: Random) -> None:
    for _ in range(chance.randint(1, _MOST)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: Random) -> None:
    start, length = _slice(data, chance)
    fill = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    data[start : start + length] = fill


def _truncate(data: bytearray, chance: Random) -> None:
    del data[chance.randrange(len(data)) :]


def _cut_out(data: bytearray, chance: Random) -> None:
    start, length = _slice(data, chance)
    del data[start : start + length]


def _repeat(data: bytearray, chance: Random) -> None:
    start, length = _slice(data, chance)
    data[start:start] = data[start : start + length] * chance.randint(1, 8)


def _extreme_number(data: bytearray, chance: Random) -> None:
    width = chance.choice(list(_EXTREMES))
    place = chance.randrange(len(data))
    number, order = chance.choice(_EXTREMES[width]), chance.choice(("big", "little"))
    data[place : place + width] = number.to_bytes(width, order)


def _box_size(data: bytearray, chance: Random) -> None:
    """An mp4 box that claims another size (ISO 14496-12, section 4.2), or a number inside of one."""
    places = [place for name in b" ".join(_BOXES).split() if (place := data.find(name)) >= 4]
    if not places:
        return _extreme_number(data, chance)
    place = chance.choice(places)
    (size,) = struct.unpack_from(">I", data, place - 4)
    if chance.random() < 0.5:
        place += 4 * chance.randint(1, 6)
        size = chance.choice(_EXTREMES[4])
    else:
        place -= 4
        size = chance.choice((*_EXTREMES[4], size - 1, size + 1, size * 2)) & 0xFFFFFFFF
    data[place : place + 4] = struct.pack(">I", size)
    return None


def _element_size(data: bytearray, chance: Random) -> None:
    """A Matroska element that claims another size; most sizes near the front are one byte."""
    place = chance.randrange(min(len(data), 4096))
    data[place] = chance.choice(_EBML_SIZES)


def _slice(data: bytearray, chance: Random) -> tuple[int, int]:
    """Where, and how many bytes: any order of magnitude."""
    start = chance.randrange(len(data))
    return start, min(len(data) - start, 1 << chance.randrange(14))


_MUTATORS: tuple[Mutator, ...] = (
    _flip_bits,
    _overwrite,
    _truncate,
    _cut_out,
    _repeat,
    _extreme_number,
    _box_size,
    _element_size,
)
