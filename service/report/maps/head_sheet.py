"""A picture of all heads of all layers: what each attends to at one moment, over what the model sees.

L layers, A heads, T time steps of a window, R rows and C columns of a map, H W pixels of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from tubelet.service.report.maps.heat import Overlay, full_scale, mixed, scale_colours, to_bytes
from tubelet.service.report.own_files import PICTURE_MARK
from tubelet.service.report.text import clock, printable
from tubelet.service.types.video import Rectangle

_WHOLE = Rectangle(0, 0, 1, 1)
_PANEL, _MIN_PANEL, _GAP = 112, 64, 6  # pixels of the longer side of a panel, and between panels
_MAX_SIDE = 4096  # pixels of the sheet; panels shrink before it grows beyond
_MARGIN, _LEFT, _TOP, _BOTTOM = 16, 116, 84, 74  # pixels around the panels, for the labels of the axes
_MIN_WIDTH = 720
_BACKGROUND, _INK, _MUTED, _PLOT = "#ffffff", "#16191d", "#5a626c", "#eeeeea"
_BAR = "#8c2981"
_TITLE_PX, _TEXT_PX, _SMALL_PX = 17, 13, 11
_WORTH_SAYING = 0.2  # of a head's attention: as much on no patch is written into its panel
_NOT_DRAWN = "frames"  # attention over frames leaves the read-out where it is: there is nothing to draw


@dataclass(frozen=True, slots=True, eq=False)
class WindowHeads:
    """What each head of each layer attends to in one window, from the read-out.

    ``maps`` (L, A, T, R, C) and ``on_no_patch`` (L, A) float32; each map sums to 1 with its share on no
    patch. ``attended`` names what each layer attends to. ``start_s`` (T,) are the starts of the steps.
    ``picture`` (H, W, 3) uint8 is what the model sees at ``time_ns``, in the middle of ``step``.
    """

    model: str
    attended: tuple[str, ...]
    maps: np.ndarray
    on_no_patch: np.ndarray
    start_s: np.ndarray
    picture: np.ndarray
    time_ns: int
    step: int

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a file of maps holds of the heads."""
        return {
            "heads": self.maps,
            "heads_on_no_patch": self.on_no_patch,
            "heads_start_s": self.start_s,
            "heads_attended": np.array(self.attended, np.str_),
        }


def head_sheet(heads: WindowHeads) -> bytes:
    """Draw the heads as a PNG: a row for each layer, a column for each head, all on one scale.

    A layer that attends to whole units, which have no place in a picture, has bars over time instead.
    """
    layers = [layer for layer, name in enumerate(heads.attended) if name != _NOT_DRAWN]
    return _Sheet(heads, layers).png()


class _Sheet:
    """The sheet while it is drawn."""

    def __init__(self, heads: WindowHeads, layers: Sequence[int]) -> None:
        self._heads = heads
        self._layers = layers
        self._columns = heads.maps.shape[1]
        height, width = heads.picture.shape[:2]
        fitting = min(
            (_MAX_SIDE - _LEFT - _MARGIN) // self._columns - _GAP,
            (_MAX_SIDE - _TOP - _BOTTOM) // len(layers) - _GAP,
        )
        scale = max(_MIN_PANEL, min(_PANEL, fitting)) / max(height, width)
        self._panel = max(1, round(height * scale)), max(1, round(width * scale))
        full = (
            max(_MIN_WIDTH, _LEFT + self._columns * (self._panel[1] + _GAP) + _MARGIN),
            _TOP + len(layers) * (self._panel[0] + _GAP) + _BOTTOM,
        )
        self._image = Image.new("RGB", full, _BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)
        of_patches = [layer for layer in layers if heads.attended[layer] != "units"]
        self._shown = heads.maps[:, :, heads.step] * heads.maps[0, 0].size  # multiples of an even share
        self._most = full_scale(self._shown[of_patches])

    def png(self) -> bytes:
        """Draw everything, and return the file."""
        heads = self._heads
        shown = Image.fromarray(heads.picture).resize(
            (self._panel[1], self._panel[0]), Image.Resampling.BICUBIC
        )
        overlay = Overlay(self._panel, heads.maps.shape[3:], _WHOLE, opacity=0.85)
        picture = np.asarray(shown)
        self._label_axes()
        for row, layer in enumerate(self._layers):
            for head in range(self._columns):
                left, top = self._corner(row, head)
                if heads.attended[layer] == "units":
                    self._draw_bars(left, top, heads.maps[layer, head].sum(axis=(1, 2)))
                    continue
                values = to_bytes(self._shown[layer, head], self._most, "shares")
                drawn = mixed(picture, overlay.layer(values, "shares"))
                self._image.paste(Image.fromarray(drawn), (left, top))
                if (away := float(heads.on_no_patch[layer, head])) >= _WORTH_SAYING:
                    self._write_share(left, top, away)
        self._draw_legend()
        file, info = BytesIO(), PngInfo()
        info.add_text(*PICTURE_MARK)
        self._image.save(file, "PNG", pnginfo=info, optimize=True)
        return file.getvalue()

    def _corner(self, row: int, column: int) -> tuple[int, int]:
        """Return the left and top of a panel."""
        height, width = self._panel
        return _LEFT + column * (width + _GAP), _TOP + row * (height + _GAP)

    def _label_axes(self) -> None:
        """Write the title, the numbers of heads above columns, and those of layers beside rows."""
        heads = self._heads
        self._text((_MARGIN, 12), f"Attention of {printable(heads.model)}", _TITLE_PX)
        seen = f"from the read-out to what is seen at {clock(heads.time_ns)}, by layer and head"
        self._text((_MARGIN, 36), seen, _TEXT_PX, _MUTED)
        height, width = self._panel
        for head in range(self._columns):
            left, _ = self._corner(0, head)
            self._text((left + width // 2, _TOP - 8), f"head {head}", _TEXT_PX, _INK, "ms")
        for row, layer in enumerate(self._layers):
            _, top = self._corner(row, 0)
            middle = top + height // 2
            self._text((_LEFT - 12, middle - 8), f"layer {layer}", _TEXT_PX, _INK, "rm")
            self._text((_LEFT - 12, middle + 9), f"over {self._of(layer)}", _SMALL_PX, _MUTED, "rm")

    def _of(self, layer: int) -> str:
        """Return what a layer attends to, in a word."""
        return "time" if self._heads.attended[layer] == "units" else "patches"

    def _write_share(self, left: int, top: int, share: float) -> None:
        """Write the share on no patch at the bottom of a panel."""
        height, width = self._panel
        box = (left, top + height - _SMALL_PX - 5, left + width - 1, top + height - 1)
        self._draw.rectangle(box, fill=_INK)
        at = (left + width // 2, top + height - (_SMALL_PX + 5) // 2)
        self._text(at, f"{100 * share:.0f} % on no patch", _SMALL_PX, _BACKGROUND, "mm")

    def _draw_bars(self, left: int, top: int, shares: np.ndarray) -> None:
        """Draw the shares of the steps of a window as bars; a full one is the whole window."""
        height, width = self._panel
        self._draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_PLOT)
        edges = np.rint(left + np.arange(len(shares) + 1) * width / len(shares)).astype(int)
        gap = 1 if width / len(shares) > 4 else 0
        for step, share in enumerate(shares):
            rise = round(float(share) * (height - 2))
            if rise:
                box = (
                    edges[step] + gap,
                    top + height - 1 - rise,
                    edges[step + 1] - 1 - gap,
                    top + height - 1,
                )
                self._draw.rectangle(box, fill=_BAR)

    def _draw_legend(self) -> None:
        """Draw the scale of colours over grey, and say what it means."""
        width, height = 220, 14
        left, top = _MARGIN, self._image.height - _BOTTOM + 22
        grey = np.full((height, width, 3), 128, np.uint8)
        scale = Overlay((height, width), (1, 256), _WHOLE, opacity=0.85)
        drawn = mixed(grey, scale.layer_of(scale_colours("shares")[None]))
        self._image.paste(Image.fromarray(drawn), (left, top))
        self._text((left, top + height + 4), "0", _SMALL_PX, _MUTED)
        self._text(
            (left + width, top + height + 4), f"{self._most:.3g} times or more", _SMALL_PX, _MUTED, "ra"
        )
        meaning = "attention to a patch, in multiples of an even share; one scale for all"
        self._text((left + width + 14, top + height // 2), meaning, _TEXT_PX, _INK, "lm")
        if "units" in self._heads.attended:
            bars = "bars: attention to each part of the window, in the order of time; a full bar is all of it"
            self._text((left + width + 14, top + height // 2 + 20), bars, _SMALL_PX, _MUTED, "lm")

    def _text(
        self, at: tuple[int, int], text: str, size: int, colour: str = _INK, anchor: str = "la"
    ) -> None:
        """Write a line of text."""
        self._draw.text(at, text, fill=colour, font=ImageFont.load_default(size), anchor=anchor)
