"""A confusion matrix drawn as a picture: rows are true labels, columns predicted ones.

n classes. The colour of a cell is its share of the row.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# In pixels.
_SIDE, _MIN_CELL, _MAX_CELL = 960, 14, 60
_GAP = 8
_TITLE_TEXT, _LABEL_TEXT, _MIN_TEXT = 18, 15, 9
_MAX_LABEL = 32  # in characters; a longer label is cut

_PAPER, _INK, _LINE = (255, 255, 255), (30, 30, 30), (222, 226, 232)
_FULL = np.array((16, 64, 140))  # the colour of a share of 1; a share of 0 is paper


def draw_confusion(labels: tuple[str, ...], counts: np.ndarray) -> Image.Image:
    """Draw ``counts``, (n, n) by true and predicted label, as an RGB picture."""
    cell = min(max(_SIDE // len(labels), _MIN_CELL), _MAX_CELL)
    size = min(_LABEL_TEXT, cell - 2)
    names = [
        _text(label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1] + "…", size) for label in labels
    ]
    title_x, title_y = _text("predicted", _TITLE_TEXT), _text("true", _TITLE_TEXT).rotate(90, expand=True)
    longest = max(name.width for name in names)
    left, top = title_y.width + longest + 3 * _GAP, title_x.height + longest + 3 * _GAP
    side = cell * len(labels)
    picture = Image.new("RGB", (left + side + 2 * _GAP, top + side + 2 * _GAP), _PAPER)
    picture.paste(title_x, (left + (side - title_x.width) // 2, _GAP))
    picture.paste(title_y, (_GAP, top + (side - title_y.height) // 2))
    draw = ImageDraw.Draw(picture)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, name in enumerate(names):
        middle = row * cell + cell // 2
        picture.paste(name, (left - _GAP - name.width, top + middle - name.height // 2))
        upright = name.rotate(90, expand=True)
        picture.paste(upright, (left + middle - upright.width // 2, top - _GAP - upright.height))
        for column in range(len(labels)):
            corner = (left + column * cell, top + row * cell)
            _draw_cell(draw, corner, cell, int(counts[row, column]), float(shares[row, column]))
    return picture


def _draw_cell(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, count: int, share: float
) -> None:
    """Draw a cell with its count, coloured by its share of the row."""
    x, y = corner
    red, green, blue = (np.array(_PAPER) + share * (_FULL - _PAPER)).round().astype(int).tolist()
    draw.rectangle((x, y, x + cell, y + cell), fill=(red, green, blue), outline=_LINE)
    # As large as fits; no text where it would be too small to read.
    size = min(_LABEL_TEXT + 3, (cell - 4) * 8 // (5 * max(2, len(str(count)))))
    if count and size >= _MIN_TEXT:
        ink = _PAPER if share > 0.5 else _INK
        draw.text((x + cell / 2, y + cell / 2), str(count), ink, ImageFont.load_default(size), anchor="mm")


def _text(text: str, size: int) -> Image.Image:
    """Draw a line of text as a picture of its size."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("RGB", (round(right - left) + 2, round(bottom - top) + 2), _PAPER)
    ImageDraw.Draw(picture).text((1 - left, 1 - top), text, _INK, font)
    return picture
