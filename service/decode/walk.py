"""One plan that a worker walks through: what it may hand out next, and the memory that it comes in."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from service.decode.memory import FrameMemory
from service.decode.protocol import ProtocolError
from service.plan import Plan
from service.values import PixelFormat, UnitFrames


class Walk:
    """``number`` tells its memory from that of the walks before it, whose frames may be held still.

    ``on_release`` is called with the walk and the slot that somebody has given back.
    """

    def __init__(
        self,
        number: int,
        plan: Plan,
        pixel_format: PixelFormat,
        memory_bytes: int,
        on_release: Callable[["Walk", int], None],
    ) -> None:
        self._plan = plan
        self._pixel_format = pixel_format
        self._on_release = on_release
        self._last = (-1, -1, -1)
        slots = _slots(plan, pixel_format, memory_bytes)
        self.memory = FrameMemory(number, slots, _unit_shape(plan, pixel_format), plan.units_at_once)

    def order(self) -> dict[str, Any]:
        """What the worker has to know of it."""
        return {
            "memory": self.memory.number,
            "slots": self.memory.slots,
            "pixel_format": asdict(self._pixel_format),
            "grids": [asdict(grid) for grid in self._plan.grids],
            "is_open": self._plan.is_open,
        }

    def unit(self, grid: int, unit: int, slot: int) -> UnitFrames:
        """What the worker says that it has put into a slot.

        Raises:
            ProtocolError: it is not in the plan, or its turn has gone.
            ValueError: the slot is not the worker's.
        """
        if not self._plan.has(grid, unit):
            raise ProtocolError(f"the plan has no unit {unit} in grid {grid}")
        walked = self._plan.grids[grid]
        ends_ns = walked.frame_time_ns(unit, walked.frames_per_unit - 1)
        if (ends_ns, grid, unit) <= self._last:
            raise ProtocolError(f"unit {unit} of grid {grid}, at {ends_ns}, after {self._last}")
        self._last = (ends_ns, grid, unit)
        return self.memory.hand_out(grid, unit, slot, partial(self._on_release, self))


def passes(plan: Plan, pixel_format: PixelFormat, memory_bytes: int) -> Iterator[tuple[int, Plan]]:
    """The plan in parts that the memory has slots for, with the number of each one's first grid."""
    return plan.passes(_slots(plan, pixel_format, memory_bytes))


def _slots(plan: Plan, pixel_format: PixelFormat, memory_bytes: int) -> int:
    """How many of its units fit; one does, whatever its size."""
    return max(1, memory_bytes // math.prod(_unit_shape(plan, pixel_format)))


def _unit_shape(plan: Plan, pixel_format: PixelFormat) -> tuple[int, int, int, int]:
    return plan.grids[0].frames_per_unit, pixel_format.height, pixel_format.width, 3
