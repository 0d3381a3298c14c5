"""Where the picture that a model sees lies in the shown picture: sizes and corners, without any pixels.

The shown picture is upright, with square pixels. It is resized, then a crop is taken.
"""

from fractions import Fraction

from tubelet.models.spec import CropRounding, Preprocessing
from tubelet.service.types.video import Crop, Rectangle

MAX_ASPECT = 16  # wider pixels, and longer sides in multiples of the target's, are squeezed to this


def resized_size(target: Preprocessing, wide: Fraction, high: Fraction) -> tuple[int, int]:
    """Return the (width, height) after resizing of a shown picture of ``wide`` x ``high`` pixels."""
    rows, columns = target.resized
    if target.resize == "stretch":
        return columns, rows
    scale = max(columns / wide, rows / high)
    return (
        min(max(int(wide * scale), columns), columns * MAX_ASPECT),
        min(max(int(high * scale), rows), rows * MAX_ASPECT),
    )


def crop_corner(target: Preprocessing, crop: Crop, resized: tuple[int, int]) -> tuple[int, int]:
    """Return the (top, left) corner of ``crop`` in a picture of the size ``resized``, (height, width)."""
    down, across = resized[0] - target.height, resized[1] - target.width
    middle = _half(down, target.crop_rounding), _half(across, target.crop_rounding)
    if crop == "centre" or max(down, across) <= 0:
        return middle
    if down > across:
        return (down if crop == "end" else 0), middle[1]
    return middle[0], (across if crop == "end" else 0)


def seen_rectangle(target: Preprocessing, crop: Crop, width: int, height: int) -> Rectangle:
    """Return the part of a shown picture of ``width`` x ``height`` pixels that the model sees in ``crop``.

    Where pixels are not square, ``width`` and ``height`` are rounded: the edges are then off by less than a
    pixel of the model.
    """
    columns, rows = resized_size(target, Fraction(width), Fraction(height))
    top, left = crop_corner(target, crop, (rows, columns))
    return Rectangle(
        left / columns, top / rows, (left + target.width) / columns, (top + target.height) / rows
    )


def _half(margin: int, rounding: CropRounding) -> int:
    """Return half of ``margin`` in whole pixels, rounded towards zero where it is negative."""
    if margin < 0:
        return -(-margin // 2)
    return margin // 2 if rounding == "down" else round(margin / 2)
