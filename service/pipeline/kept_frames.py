"""The frames of units, kept until their segments are explained: decoding waits while there are too many.

S units in a window, t frames in a unit, H W C pixels.
"""

import asyncio
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tubelet.models.spec import Preprocessing
from tubelet.service.explanation_errors import SegmentTooLong
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import UnitFrames

_AHEAD_BYTES = 16 << 20  # of frames that are decoded while a segment is explained


class KeptFrames:
    """Copies of the frames of units, by grid and unit; those of one segment take at most ``max_bytes``.

    ``check_units`` gets the least number of units in a map of each grid, before any is decoded.
    """

    def __init__(self, max_bytes: int, check_units: Callable[[int], None]) -> None:
        self._max_bytes = max_bytes
        self._check_units = check_units
        self._room_bytes = 0
        self._bytes = 0
        self._units: dict[tuple[int, int], np.ndarray] = {}
        self._has_room = asyncio.Event()
        self._has_room.set()

    def use_plan(self, plan: Plan, preprocessing: Preprocessing) -> None:
        """Forget all frames, and keep those of ``plan`` from now on.

        Raises:
            SegmentTooLong: those of one of its segments take too much memory.
            MapTooLarge: a segment has too many units for one map.
        """
        self.drop(range(len(plan.grids)))
        for grid in plan.grids:
            self._check_units(grid.num_units if grid.one_segment else grid.units_per_window)
        frame_bytes = preprocessing.height * preprocessing.width * 3
        most, number = 0, 0
        while number < len(plan.grids):
            views = plan.views(number)
            most = max(most, sum(_frames_of_segment(plan.grids[view]) for view in views) * frame_bytes)
            number = views.stop
        if most > self._max_bytes:
            raise SegmentTooLong(
                f"a segment's frames take {most / (1 << 20):.0f} MiB until it is explained, the limit is "
                f"{self._max_bytes / (1 << 20):g} MiB; ask for shorter segments: sliding windows, or ranges",
                limit=self._max_bytes,
                value=most,
            )
        self._room_bytes = most + _AHEAD_BYTES

    async def keep(self, unit: UnitFrames) -> None:
        """Wait until there is room, then copy the frames of ``unit``, whose own memory is used again."""
        await self._has_room.wait()
        self._units[unit.grid, unit.unit] = unit.pixels.copy()
        self._change(unit.pixels.nbytes)

    def window(self, grid: int, units: range) -> Tensor:
        """Return the frames of a window: (S, t, H, W, C) uint8."""
        return torch.from_numpy(np.stack([self._units[grid, unit] for unit in units]))

    def drop(self, grids: range, before_unit: int | None = None) -> None:
        """Forget the units of ``grids`` that come before a unit, or all of them, and all of earlier grids."""
        for grid, unit in tuple(self._units):
            is_earlier = before_unit is None or unit < before_unit
            if grid < grids.start or (grid in grids and is_earlier):
                self._change(-self._units.pop((grid, unit)).nbytes)

    def _change(self, by: int) -> None:
        """Add to the bytes, and tell who waits."""
        self._bytes += by
        if self._bytes <= self._room_bytes:
            self._has_room.set()
        else:
            self._has_room.clear()


def _frames_of_segment(grid: SamplingGrid) -> int:
    """Return the most frames of ``grid`` that are kept before one of its segments is complete."""
    if grid.one_segment:
        return grid.num_units * grid.frames_per_unit
    # The windows over its middle, and what tells that it cannot change any more: see ``is_settled``.
    units = 2 * (grid.units_per_window + grid.stride_units)
    return min(units, grid.num_units) * grid.frames_per_unit
